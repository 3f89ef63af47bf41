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
/** How long the texts of a status may be, in characters, at first; both are halved until the whole fits. */
const TEXTS = { message: 600, detail: 300 };
type Texts = typeof TEXTS;

/** An error as a google.rpc.Status with its details, within `limits.maxStatusBytes` as it travels. */
export function statusOf(error: ServiceError): Status {
  let listed = error.violations.length;
  for (let texts = TEXTS; ; texts = { message: texts.message >> 1, detail: texts.detail >> 1 }) {
    for (; ; listed >>= 1) {
      const status = statusWith(error, listed, texts);
      if (sizeOf(status) <= limits.maxStatusBytes) return status;
      if (listed === 0) break;
    }
  }
}

/** Bytes on the wire: details in base64, and the message once more with everything but ASCII escaped. */
const sizeOf = (status: Status): number =>
  Math.ceil(Status.encode(status).finish().length / 3) * 4 + encodeURI(status.message).length;

function statusWith(error: ServiceError, listed: number, texts: Texts): Status {
  const message = printable(error.message, texts.message);
  const short = (text: string) => printable(text, texts.detail);
  const details = [any('ErrorInfo', ErrorInfo.encode(errorInfo(error, short)).finish())];
  if (error.violations.length > 0)
    details.push(any('BadRequest', BadRequest.encode(badRequest(error, listed, short)).finish()));
  for (const resource of error.resources.slice(0, 5)) {
    const info = { resource_type: `agentllm.v1.${resource.type}`, resource_name: short(resource.name) };
    details.push(any('ResourceInfo', ResourceInfo.encode(ResourceInfo.fromPartial(info)).finish()));
  }
  if (error.code === 'FAILED_PRECONDITION') {
    const violation = { type: error.reason, subject: short(error.resources[0]?.name ?? ''), description: message };
    details.push(any('PreconditionFailure', PreconditionFailure.encode({ violations: [violation] }).finish()));
  }
  if (error.retryAfterMs !== undefined) details.push(any('RetryInfo', retryInfo(error.retryAfterMs)));
  return { code: StatusCode[error.code], message, details };
}

type Short = (text: string) => string;

function errorInfo(error: ServiceError, short: Short): ErrorInfo {
  const metadata = Object.entries(error.metadata).map(([key, value]) => [key, short(value)]);
  return { reason: error.reason, domain: DOMAIN, metadata: Object.fromEntries(metadata) };
}

function badRequest(error: ServiceError, listed: number, short: Short): BadRequest {
  const shown = error.violations.slice(0, listed).map((violation) => ({
    field: short(violation.field),
    description: short(violation.description),
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
export function grpcStatus(error: ServiceError): StatusObject {
  const status = statusOf(error);
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(Status.encode(status).finish()));
  return { code: status.code as number, details: status.message, metadata };
}
