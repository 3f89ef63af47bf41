import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';

/**
 * Bytes that are added to a response after its write is committed: `adoption` of 200 watchers, or the text of a token.
 */
export const ADDED_BYTES = 128 * 1024;

/**
 * Returns the bytes of a response; throws RESPONSE_TOO_LARGE if there are too many. Clients in other languages reject
 * longer responses by default, and their errors do not name the cause.
 * @param added the number of bytes that will be added later.
 */
export function checkedResponse<Bytes extends Uint8Array>(bytes: Bytes, added = 0): Bytes {
  if (bytes.length + added > limits.maxResponseBytes) throw ServiceError.of('RESPONSE_TOO_LARGE', {});
  return bytes;
}
