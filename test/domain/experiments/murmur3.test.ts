import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { murmur3 } from '../../../src/domain/experiments/murmur3.js';
import { subjectVectors } from './vectors.js';

/** Published hashes with seed 0: Wikipedia ("MurmurHash"), and the tests of Guava's Hashing.murmur3_32 and of mmh3. */
const PUBLISHED = [
  ['', 0],
  ['test', 0xba6bd213],
  ['hello', 0x248bfa47],
  ['hello, world', 0x149bbb7f],
  ['19 Jan 2038 at 3:14:07 AM', 0xe31e8a70],
  ['Hello, world!', 0xc0363e43],
  ['The quick brown fox jumps over the lazy dog', 0x2e4ff723],
  ['The quick brown fox jumps over the lazy dog.', 0xd5c48bfc],
] as const;

/** MurmurHash3_x86_32 as published, over bytes. */
function overBytes(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const scramble = (block: number) => {
    const product = Math.imul(block, 0xcc9e2d51);
    return Math.imul((product << 15) | (product >>> 17), 0x1b873593);
  };
  let hash = 0;
  const blocks = bytes.length >> 2;
  for (let at = 0; at < blocks; at++) {
    hash ^= scramble(view.getUint32(4 * at, true));
    hash = (Math.imul((hash << 13) | (hash >>> 19), 5) + 0xe6546b64) | 0;
  }
  const tail = [...bytes.subarray(4 * blocks)].reduce((block, byte, at) => block | (byte << (8 * at)), 0);
  hash ^= scramble(tail) ^ bytes.length;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

const unsigned = (before: string, text: string) => murmur3(before, text) >>> 0;

describe('murmur3', () => {
  it.each(PUBLISHED)('has the published value for %j', (text, hash) => {
    expect(unsigned('', text)).toBe(hash);
    for (let at = 0; at <= text.length; at++) expect(unsigned(text.slice(0, at), text.slice(at))).toBe(hash);
  });

  it('has the values of conformance/assignment.json', () => {
    expect(subjectVectors.length).toBeGreaterThan(100);
    for (const { salt, subject, hash } of subjectVectors) expect(unsigned(`${salt}:`, subject)).toBe(hash);
  });

  it('hashes what TextEncoder writes, for any UTF-16 units and any split', () => {
    const encoder = new TextEncoder();
    const units = fc.array(
      fc.oneof(fc.integer({ min: 0, max: 0xffff }), fc.integer({ min: 0xd7ff, max: 0xe000 }), fc.constant(0x61)),
      { maxLength: 40 },
    );
    fc.assert(
      fc.property(units, fc.nat(40), (codes, at) => {
        const text = String.fromCharCode(...codes);
        expect(unsigned(text.slice(0, at), text.slice(at))).toBe(overBytes(encoder.encode(text)));
      }),
      { numRuns: 3_000 },
    );
  });
});
