/*
 * MurmurHash3_x86_32 with seed 0 (Austin Appleby, https://github.com/aappleby/smhasher, public domain) of the UTF-8 bytes
 * of a text. The text is encoded while it is hashed, so that a call allocates no memory; all numbers are local 32-bit
 * integers.
 */

const REPLACEMENT = 0xfffd;

/**
 * The hash of the UTF-8 bytes of `before + text`, as a signed 32-bit number, because V8 allocates an object for a
 * larger number. A lone surrogate is encoded as U+FFFD.
 */
export function murmur3(before: string, text: string): number {
  const split = before.length;
  const length = split + text.length;
  let hash = 0;
  let bytes = 0;
  let block = 0;
  for (let at = 0; at < length; at++) {
    const unit = at < split ? before.charCodeAt(at) : text.charCodeAt(at - split);
    let encoded = unit;
    let size = 1;
    if (unit >= 0x80) {
      const next = at + 1 < split ? before.charCodeAt(at + 1) : text.charCodeAt(at + 1 - split);
      const point = codePoint(unit, next);
      if (point > 0xffff) at++;
      size = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
      encoded = utf8(point, size);
    }
    const filled = bytes & 3;
    block |= encoded << (filled << 3);
    bytes += size;
    if (filled + size < 4) continue;
    hash = (Math.imul(rotate(hash ^ mix(block), 13), 5) + 0xe6546b64) | 0;
    block = filled === 0 ? 0 : encoded >>> ((4 - filled) << 3);
  }
  return finish(hash ^ mix(block) ^ bytes);
}

/** The code point of a non-ASCII UTF-16 unit and the next unit; `next` is NaN at the end of the text. */
function codePoint(unit: number, next: number): number {
  if ((unit & 0xf800) !== 0xd800) return unit;
  if (unit > 0xdbff || (next & 0xfc00) !== 0xdc00) return REPLACEMENT;
  return ((unit & 0x3ff) << 10) + (next & 0x3ff) + 0x10000;
}

/** The UTF-8 bytes of a code point above 0x7f, the first one in the lowest byte. */
function utf8(point: number, size: number): number {
  const last = 0x80 | (point & 0x3f);
  if (size === 2) return 0xc0 | (point >> 6) | (last << 8);
  const third = 0x80 | ((point >> 6) & 0x3f);
  if (size === 3) return 0xe0 | (point >> 12) | (third << 8) | (last << 16);
  return 0xf0 | (point >> 18) | ((0x80 | ((point >> 12) & 0x3f)) << 8) | (third << 16) | (last << 24);
}

const rotate = (value: number, by: number) => (value << by) | (value >>> (32 - by));

/** Mixes a block before it enters the hash; returns 0 for an empty block. */
const mix = (block: number) => Math.imul(rotate(Math.imul(block, 0xcc9e2d51), 15), 0x1b873593);

/** The finalizer, which makes every bit of the hash depend on every bit of the state. */
function finish(state: number): number {
  let hash = state;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}
