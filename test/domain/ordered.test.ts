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
  it('equals a sorted array without duplicates after any puts and removals', () => {
    fc.assert(
      fc.property(operations, fc.integer({ min: -1, max: 16 }), (applied, cursor) => {
        const ordered = new Ordered<Value>(byKey);
        let model: Value[] = [];
        for (const [version, { kind, key }] of applied.entries()) {
          const value = { key, version };
          model = model.filter((other) => other.key !== key);
          if (kind === 'put') {
            ordered.put(value);
            model = [...model, value].sort(byKey);
          } else ordered.remove(value);
          expect([...ordered.after()]).toEqual(model);
          expect(ordered.size).toBe(model.length);
        }
        const compareToCursor = (value: Value) => (value.key <= cursor ? -1 : 1);
        expect([...ordered.after(compareToCursor)]).toEqual(model.filter((value) => value.key > cursor));
      }),
    );
  });

  it('returns every value exactly once when it is read page by page', () => {
    fc.assert(
      fc.property(fc.uniqueArray(key), fc.integer({ min: 1, max: 5 }), (keys, size) => {
        const ordered = new Ordered<Value>(byKey);
        for (const key of keys) ordered.put({ key, version: 0 });
        const seen: number[] = [];
        for (;;) {
          const last = seen.at(-1);
          const page = ordered.after(last === undefined ? undefined : (value) => (value.key <= last ? -1 : 1));
          const pageKeys = [...page].slice(0, size).map((value) => value.key);
          seen.push(...pageKeys);
          if (pageKeys.length < size) break;
        }
        expect(seen).toEqual([...keys].sort((a, b) => a - b));
      }),
    );
  });

  it('finds the start position by a binary search', () => {
    const ordered = new Ordered<number>((a, b) => a - b);
    for (let value = 0; value < 4096; value++) ordered.put(value);
    let comparisons = 0;
    const rest = ordered.after((value) => {
      comparisons++;
      return value <= 3000 ? -1 : 1;
    });
    expect(rest.next().value).toBe(3001);
    expect(comparisons).toBeLessThanOrEqual(13);
  });
});
