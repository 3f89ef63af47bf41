import {
  BadRequest,
  ErrorInfo,
  PreconditionFailure,
  ResourceInfo,
  RetryInfo,
} from '../../../gen/ts/google/rpc/error_details.js';
import type { Status } from '../../../gen/ts/google/rpc/status.js';
import { printable } from '../../domain/text.js';
import type { Resource, ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { StatusCode } from '../../status_codes.js';

/** The domain of every ErrorInfo of this service. */
const DOMAIN = 'agentllm';

type Detail = Status['details'][number];
const detailOf = (type: string, value: Uint8Array): Detail => ({
  type_url: `type.googleapis.com/google.rpc.${type}`,
  value: Buffer.from(value),
});

/** Maximum lengths of the texts of a status: in characters, and in bytes on the wire. */
const TEXTS = {
  message: { characters: 600, bytes: 1600 },
  metadata: { characters: 300, bytes: 500 },
  field: { characters: 300, bytes: 300 },
  description: { characters: 300, bytes: 600 },
  resource: { characters: 120, bytes: 180 },
} as const;
/** Maximum number of metadata entries of one error; no reason has more. */
const MAX_METADATA = 4;
/**
 * Bytes that are reserved for the last violation, which counts the omitted ones, and for the framing of the details.
 */
const RESERVED_BYTES = 160;

/**
 * Converts an error to a google.rpc.Status with its details, of at most `limits.maxStatusBytes` on the wire. Every text
 * is truncated to its limit, and violations are added as long as they fit, so the time does not depend on the error.
 */
export function statusOf(error: ServiceError): Status {
  const message = truncated(error.message, TEXTS.message);
  const info = detailOf('ErrorInfo', ErrorInfo.encode(errorInfo(error)).finish());
  const others = otherDetails(error, message);
  const fixed = [info, ...others].reduce((sum, detail) => sum + sizeOf(detail), wireSize(message));
  let remaining = limits.maxStatusBytes - RESERVED_BYTES - fixed;
  const resources = error.resources.map(resourceInfo).filter((detail) => {
    remaining -= sizeOf(detail);
    return remaining >= 0;
  });
  const field_violations = violationsOf(error, remaining);
  const named =
    field_violations.length > 0 ? [detailOf('BadRequest', BadRequest.encode({ field_violations }).finish())] : [];
  return { code: StatusCode[error.code], message, details: [info, ...named, ...resources, ...others] };
}

/** The length in base64. */
const base64 = (bytes: number) => Math.ceil(bytes / 3) * 4;
const sizeOf = ({ type_url, value }: Detail) => base64(type_url.length + value.length + 10);
/** A message is sent twice: in base64 within the details, and with all non-ASCII characters escaped. */
const wireSize = (text: string) => base64(Buffer.byteLength(text)) + encodeURI(text).length;

/** Maximum bytes on the wire of a UTF-16 code unit: of a character of three bytes, such as a Chinese one. */
const WIRE_BYTES = 13;

/** A printable text, truncated to its limits between two characters. */
function truncated(text: string, { characters, bytes }: { characters: number; bytes: number }): string {
  const whole = printable(text, characters);
  if (whole.length * WIRE_BYTES <= bytes || wireSize(whole) <= bytes) return whole;
  let size = 8;
  let cut = '';
  for (const character of whole) {
    size += (Buffer.byteLength(character) * 4) / 3 + encodeURI(character).length;
    if (size > bytes) return `${cut}…`;
    cut += character;
  }
  return cut;
}

function resourceInfo({ type, name }: Resource): Detail {
  const info = { resource_type: `agentllm.v1.${type}`, resource_name: truncated(name, TEXTS.resource) };
  return detailOf('ResourceInfo', ResourceInfo.encode(ResourceInfo.fromPartial(info)).finish());
}

function otherDetails(error: ServiceError, message: string): Detail[] {
  const details: Detail[] = [];
  if (error.code === 'FAILED_PRECONDITION') {
    const subject = truncated(error.resources[0]?.name ?? '', TEXTS.resource);
    const description = truncated(message, TEXTS.description);
    const violations = [{ type: error.reason, subject, description }];
    details.push(detailOf('PreconditionFailure', PreconditionFailure.encode({ violations }).finish()));
  }
  if (error.retryAfterMs !== undefined) details.push(detailOf('RetryInfo', retryInfo(error.retryAfterMs)));
  return details;
}

function errorInfo(error: ServiceError): ErrorInfo {
  const metadata = Object.entries(error.metadata).slice(0, MAX_METADATA);
  return {
    reason: error.reason,
    domain: DOMAIN,
    metadata: Object.fromEntries(metadata.map(([key, value]) => [key, truncated(value, TEXTS.metadata)])),
  };
}

type FieldViolation = BadRequest['field_violations'][number];

/** As many violations as fit into `bytes`; if some are omitted, the last one counts them. */
function violationsOf({ violations, problemCount, reason }: ServiceError, bytes: number): FieldViolation[] {
  const named: FieldViolation[] = [];
  let remaining = bytes;
  for (const { field, description } of violations) {
    const violationDetail = violation(truncated(field, TEXTS.field), truncated(description, TEXTS.description), reason);
    remaining -= base64(
      Buffer.byteLength(violationDetail.field) + Buffer.byteLength(violationDetail.description) + reason.length + 12,
    );
    if (remaining < 0) break;
    named.push(violationDetail);
  }
  const more = problemCount - named.length;
  if (more > 0) named.push(violation('', `and ${more} more problems`, reason));
  return named;
}

const violation = (field: string, description: string, reason: string): FieldViolation => ({
  field,
  description,
  reason,
  localized_message: undefined,
});

function retryInfo(ms: number): Uint8Array {
  const retry_delay = { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 };
  return RetryInfo.encode({ retry_delay }).finish();
}
