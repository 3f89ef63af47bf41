import { Metadata, type StatusObject } from '@grpc/grpc-js';
import {
  BadRequest,
  ErrorInfo,
  PreconditionFailure,
  ResourceInfo,
  RetryInfo,
} from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { printable } from '../domain/text.js';
import { type ServiceError, StatusCode } from '../errors.js';
import { limits } from '../limits.js';

/** The domain of every ErrorInfo of this service. */
const DOMAIN = 'agentllm';

const any = (type: string, value: Uint8Array) => ({
  type_url: `type.googleapis.com/google.rpc.${type}`,
  value: Buffer.from(value),
});
const longest = 300;

/** An error as a google.rpc.Status with its details. */
export function statusOf(error: ServiceError): Status {
  // Details are dropped from the end until the whole fits; the reason always stays.
  for (let listed = error.violations.length; ; listed = Math.floor(listed / 2)) {
    const status = statusWith(error, listed);
    if (listed === 0 || Status.encode(status).finish().length <= limits.maxStatusBytes * MARGIN) return status;
  }
}
/** Of the whole: base64 makes the details a third longer, and the message travels twice. */
const MARGIN = 0.6;

function statusWith(error: ServiceError, listed: number): Status {
  const details = [any('ErrorInfo', ErrorInfo.encode(errorInfo(error)).finish())];
  if (error.violations.length > 0)
    details.push(any('BadRequest', BadRequest.encode(badRequest(error, listed)).finish()));
  for (const resource of error.resources.slice(0, 5)) {
    const info = { resource_type: `agentllm.v1.${resource.type}`, resource_name: printable(resource.name, longest) };
    details.push(any('ResourceInfo', ResourceInfo.encode(ResourceInfo.fromPartial(info)).finish()));
  }
  if (error.code === 'FAILED_PRECONDITION') {
    const violation = { type: error.reason, subject: error.resources[0]?.name ?? '', description: messageOf(error) };
    details.push(any('PreconditionFailure', PreconditionFailure.encode({ violations: [violation] }).finish()));
  }
  if (error.retryAfterMs !== undefined) details.push(any('RetryInfo', retryInfo(error.retryAfterMs)));
  return { code: StatusCode[error.code], message: messageOf(error), details };
}

const messageOf = (error: ServiceError) => printable(error.message, 600);

function errorInfo(error: ServiceError): ErrorInfo {
  const metadata = Object.entries(error.metadata).map(([key, value]) => [key, printable(value, longest)]);
  return { reason: error.reason, domain: DOMAIN, metadata: Object.fromEntries(metadata) };
}

function badRequest(error: ServiceError, listed: number): BadRequest {
  const shown = error.violations.slice(0, listed).map((violation) => ({
    field: printable(violation.field, longest),
    description: printable(violation.description, longest),
    reason: error.reason,
    localized_message: undefined,
  }));
  const more = error.violations.length - listed;
  const rest = {
    field: '',
    description: `and ${more} more problems`,
    reason: error.reason,
    localized_message: undefined,
  };
  return { field_violations: more > 0 ? [...shown, rest] : shown };
}

function retryInfo(ms: number): Uint8Array {
  const retry_delay = { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
  return RetryInfo.encode({ retry_delay }).finish();
}

/** An error as grpc-js sends it. Everything in it is printable: a lone surrogate would end the process. */
export function grpcStatus(error: ServiceError): Partial<StatusObject> {
  const status = statusOf(error);
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(Status.encode(status).finish()));
  return { code: status.code as number, details: status.message, metadata };
}
