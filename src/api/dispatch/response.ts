import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';

/** Bytes that a response gets after its write is committed: `adoption` of two hundred watchers, or the text of a token. */
export const ADDED_BYTES = 128 * 1024;

/**
 * Returns the bytes of a response; throws when there are too many. Clients of other languages refuse longer ones by
 * default, and a message of them says nothing of the cause.
 * @param added bytes that are still to be added.
 */
export function checkedResponse<Bytes extends Uint8Array>(bytes: Bytes, added = 0): Bytes {
  if (bytes.length + added > limits.maxResponseBytes) throw ServiceError.of('RESPONSE_TOO_LARGE', {});
  return bytes;
}
