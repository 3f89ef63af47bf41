import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Ordered } from '../../src/domain/ordered.js';

interface Value {
  readonly key: number;
  readonly version: number;
}

const byKey = (a: Value, b: Value) => a.key - b.key;
const key = fc.integer({ min: 0, max: 15 });
const operations = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant('put' as const), key }),
    fc.record({ kind: fc.constant('remove' as const), key }),
  ),
  { maxLength: 60 },
);

describe('Ordered', () => {
  it('is a sorted array without equals, whatever is put in and taken out', () => {
    fc.assert(
      fc.property(operations, fc.integer({ min: -1, max: 16 }), (done, cursor) => {
        const ordered = new Ordered<Value>(byKey);
        let model: Value[] = [];
        for (const [version, { kind, key }] of done.entries()) {
          const value = { key, version };
          model = model.filter((other) => other.key !== key);
          if (kind === 'put') {
            ordered.put(value);
            model = [...model, value].sort(byKey);
          } else ordered.remove(value);
          expect([...ordered.after()]).toEqual(model);
          expect(ordered.size).toBe(model.length);
        }
        const behind = (value: Value) => (value.key <= cursor ? -1 : 1);
        expect([...ordered.after(behind)]).toEqual(model.filter((value) => value.key > cursor));
      }),
    );
  });

  it('pages through everything once, page by page', () => {
    fc.assert(
      fc.property(fc.uniqueArray(key), fc.integer({ min: 1, max: 5 }), (keys, size) => {
        const ordered = new Ordered<Value>(byKey);
        for (const key of keys) ordered.put({ key, version: 0 });
        const seen: number[] = [];
        for (;;) {
          const last = seen.at(-1);
          const page = ordered.after(last === undefined ? undefined : (value) => (value.key <= last ? -1 : 1));
          const taken = [...page].slice(0, size).map((value) => value.key);
          seen.push(...taken);
          if (taken.length < size) break;
        }
        expect(seen).toEqual([...keys].sort((a, b) => a - b));
      }),
    );
  });

  it('finds its place by a binary search', () => {
    const ordered = new Ordered<number>((a, b) => a - b);
    for (let value = 0; value < 4096; value++) ordered.put(value);
    let looks = 0;
    const rest = ordered.after((value) => {
      looks++;
      return value <= 3000 ? -1 : 1;
    });
    expect(rest.next().value).toBe(3001);
    expect(looks).toBeLessThanOrEqual(13);
  });
});
