import { type DescMessage, fromBinary, type JsonObject, type Registry, toJson } from '@bufbuild/protobuf';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { statusOf } from '../api/messages/status.js';
import type { Reason, ServiceError } from '../errors.js';
import type { StatusCode } from '../status_codes.js';
import { type HttpResponse, json } from './http_response.js';

/** The HTTP status of each code, as the comments of google.rpc.Code state it. */
const HTTP_STATUS: Readonly<Record<StatusCode, number>> = {
  CANCELLED: 499,
  INVALID_ARGUMENT: 400,
  DEADLINE_EXCEEDED: 504,
  NOT_FOUND: 404,
  ALREADY_EXISTS: 409,
  PERMISSION_DENIED: 403,
  RESOURCE_EXHAUSTED: 429,
  FAILED_PRECONDITION: 400,
  ABORTED: 409,
  OUT_OF_RANGE: 400,
  UNIMPLEMENTED: 501,
  INTERNAL: 500,
  UNAVAILABLE: 503,
  UNAUTHENTICATED: 401,
};

/** Reasons for which HTTP has a specific status. */
const REASON_STATUS: { readonly [R in Reason]?: number } = {
  HTTP_METHOD_NOT_ALLOWED: 405,
  REQUEST_TOO_LARGE: 413,
  UNSUPPORTED_BODY: 415,
  HOST_NOT_ALLOWED: 421,
};

/**
 * Creates the error response in the format of Google's APIs: google.rpc.Status as JSON, with an HTTP status.
 * @param overrides additional headers, and a status that replaces that of the reason.
 */
export function errorResponse(
  registry: Registry,
  error: ServiceError,
  overrides: { readonly status?: number; readonly headers?: HttpResponse['headers'] } = {},
): HttpResponse {
  const desc = registry.getMessage('google.rpc.Status') as DescMessage;
  const status = fromBinary(desc, Status.encode(statusOf(error)).finish());
  const { message, details } = toJson(desc, status, { registry, alwaysEmitImplicit: true }) as JsonObject;
  const code = overrides.status ?? REASON_STATUS[error.reason] ?? HTTP_STATUS[error.code];
  const { retryAfterMs } = error;
  const retryAfter = Math.max(1, Math.ceil((retryAfterMs ?? 0) / 1000));
  const headers = {
    ...(retryAfterMs !== undefined && { 'retry-after': String(retryAfter) }),
    ...overrides.headers,
    ...(code === 401 && { 'www-authenticate': 'Bearer' }),
  };
  return json(code, JSON.stringify({ error: { code, message, status: error.code, details } }), headers);
}
