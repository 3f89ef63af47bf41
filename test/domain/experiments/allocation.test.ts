import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  allocate,
  bucketCount,
  type VariantBuckets,
  type VariantWeight,
} from '../../../src/domain/experiments/allocation.js';
import { Assignment, BUCKETS, bucketOf } from '../../../src/domain/experiments/assignment.js';
import { rangesOf, vectors } from './vectors.js';

/** The name of the variant of each bucket. */
function ownersOf(variants: readonly VariantBuckets[]): string[] {
  const owners: string[] = [];
  for (const { name, ranges } of variants)
    for (const { start, end } of ranges) for (let bucket = start; bucket < end; bucket++) owners[bucket] = name;
  return owners;
}

const weightOf = (weights: readonly VariantWeight[], name: string) =>
  weights.find((one) => one.name === name)?.weight ?? 0;

/** Names and weights of 2 to 10 variants; some weights are 0. */
const anyWeights: fc.Arbitrary<VariantWeight[]> = fc
  .uniqueArray(fc.constantFrom(...'abcdefghijkl'), { minLength: 2, maxLength: 10 })
  .chain((names) =>
    fc
      .array(fc.oneof(fc.nat(BUCKETS), fc.constantFrom(0, BUCKETS)), {
        minLength: names.length - 1,
        maxLength: names.length - 1,
      })
      .map((cuts) => {
        const edges = [0, ...cuts.sort((x, y) => x - y), BUCKETS];
        return names.map((name, at) => ({ name, weight: (edges[at + 1] as number) - (edges[at] as number) }));
      }),
  );

describe('allocate', () => {
  it('gives contiguous ranges in the order of the variants at first', () => {
    const weights = [
      { name: 'control', weight: 5000 },
      { name: 'none', weight: 0 },
      { name: 'treatment', weight: 5000 },
    ];
    expect(allocate([], weights)).toEqual([
      { name: 'control', ranges: [{ start: 0, end: 5000 }] },
      { name: 'none', ranges: [] },
      { name: 'treatment', ranges: [{ start: 5000, end: 10_000 }] },
    ]);
  });

  it.each(vectors.allocations.map((one) => [one.about, one] as const))(
    'has the ranges of conformance/assignment.json: %s',
    (_, { steps }) => {
      let variants: readonly VariantBuckets[] = [];
      for (const step of steps) {
        const before = ownersOf(variants);
        variants = allocate(variants, step.variants);
        expect(variants).toEqual(step.variants.map((one) => ({ name: one.name, ranges: rangesOf(one) })));
        const after = ownersOf(variants);
        expect(before.filter((owner, bucket) => owner !== after[bucket]).length).toBe(step.moved);
      }
    },
  );

  it('moves only buckets from variants that shrink to variants that grow, and as few as possible', () => {
    fc.assert(
      fc.property(fc.array(anyWeights, { minLength: 2, maxLength: 6 }), (changes) => {
        let variants: readonly VariantBuckets[] = [];
        let before: readonly VariantWeight[] = [];
        for (const weights of changes) {
          const owners = ownersOf(variants);
          variants = allocate(variants, weights);
          const after = ownersOf(variants);
          for (const { name, weight } of weights)
            expect(bucketCount(variants.find((one) => one.name === name)?.ranges ?? [])).toBe(weight);
          expect(after.length).toBe(BUCKETS);
          const moved = owners.flatMap((owner, bucket) => (owner === after[bucket] ? [] : [bucket]));
          // The buckets that a variant has too many must leave it: no allocation moves fewer.
          const excess = before.map(({ name, weight }) => Math.max(0, weight - weightOf(weights, name)));
          expect(moved.length).toBe(excess.reduce((sum, count) => sum + count, 0));
          for (const bucket of moved) {
            const [from, to] = [owners[bucket] as string, after[bucket] as string];
            if (weightOf(weights, from) >= weightOf(before, from)) expect.fail(`${from} does not shrink`);
            if (weightOf(weights, to) <= weightOf(before, to)) expect.fail(`${to} does not grow`);
          }
          before = weights;
        }
      }),
      { numRuns: 60 },
    );
  });

  it('moves only subjects of buckets that moved', () => {
    const before = allocate(
      [],
      [
        { name: 'control', weight: 9000 },
        { name: 'a', weight: 1000 },
      ],
    );
    const after = allocate(before, [
      { name: 'control', weight: 5000 },
      { name: 'a', weight: 3000 },
      { name: 'b', weight: 2000 },
    ]);
    const [first, second] = [new Assignment('9f86d081884c7d65', before), new Assignment('9f86d081884c7d65', after)];
    let moved = 0;
    for (let at = 0; at < 20_000; at++) {
      const subject = `ticker-${at}`;
      const [from, to] = [before[first.variantOf(subject)]?.name, after[second.variantOf(subject)]?.name];
      if (from === to) continue;
      moved++;
      expect(from).toBe('control');
      expect(bucketOf('9f86d081884c7d65', subject)).toBeGreaterThanOrEqual(5000);
    }
    expect(moved / 20_000).toBeCloseTo(0.4, 1);
  });

  it('depends neither on the order of the previous variants nor on how their ranges are divided', () => {
    fc.assert(
      fc.property(anyWeights, anyWeights, (first, second) => {
        const before = allocate([], first);
        const divided = [...before].reverse().map(({ name, ranges }) => ({
          name,
          ranges: ranges
            .flatMap(({ start, end }) => [
              { start: start + ((end - start) >> 1), end },
              { start, end: start + ((end - start) >> 1) },
            ])
            .filter(({ start, end }) => start < end),
        }));
        expect(allocate(divided, second)).toEqual(allocate(before, second));
      }),
      { numRuns: 60 },
    );
  });

  it('rejects weights that are not a division of all buckets', () => {
    for (const weights of [[9999], [5000, 5001], [-1, 10_001], [0.5, 9999.5], [Number.NaN, 10_000], []])
      expect(() =>
        allocate(
          [],
          weights.map((weight, at) => ({ name: `v${at}`, weight })),
        ),
      ).toThrow('basis points');
    const twice = { name: 'a', weight: 5000 };
    expect(() => allocate([], [twice, twice])).toThrow('the same name');
    expect(() => allocate([{ name: 'a', ranges: [{ start: 0, end: 5 }] }], [{ name: 'a', weight: BUCKETS }])).toThrow(
      'have 5 buckets',
    );
  });
});
