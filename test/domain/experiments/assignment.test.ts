import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { allocate } from '../../../src/domain/experiments/allocation.js';
import { Assignment, BUCKETS, bucketOf, UNASSIGNED } from '../../../src/domain/experiments/assignment.js';
import { rangesOf, subjectVectors, vectors } from './vectors.js';

const SALT = '9f86d081884c7d65';

const weightsOf = (...weights: number[]) => weights.map((weight, at) => ({ name: `v${at}`, weight }));

/** The chi-square statistic of observed against expected numbers. */
function chiSquare(observed: ArrayLike<number>, expected: readonly number[]): number {
  return expected.reduce((sum, count, at) => sum + ((observed[at] as number) - count) ** 2 / count, 0);
}

describe('bucketOf', () => {
  it('has the values of conformance/assignment.json', () => {
    for (const { salt, subject, bucket } of subjectVectors) expect(bucketOf(salt, subject)).toBe(bucket);
  });

  it('has no bias between buckets', () => {
    const counts = new Uint32Array(BUCKETS);
    const subjects = 1_000_000;
    for (let at = 0; at < subjects; at++) {
      const bucket = bucketOf(SALT, `user-${at}`);
      counts[bucket] = (counts[bucket] as number) + 1;
    }
    const expected = new Array<number>(BUCKETS).fill(subjects / BUCKETS);
    // The 0.001 and 0.999 quantiles of chi-square with 9999 degrees of freedom (scipy.stats.chi2.ppf).
    expect(chiSquare(counts, expected)).toBeGreaterThan(9567.7);
    expect(chiSquare(counts, expected)).toBeLessThan(10442.7);
  });

  it('is independent between salts', () => {
    const cells = new Uint32Array(100);
    const subjects = 100_000;
    for (let at = 0; at < subjects; at++) {
      const cell =
        Math.floor(bucketOf(SALT, `${at}`) / 1000) * 10 + Math.floor(bucketOf('0000000000000000', `${at}`) / 1000);
      cells[cell] = (cells[cell] as number) + 1;
    }
    // The 0.999 quantile of chi-square with 99 degrees of freedom.
    expect(chiSquare(cells, new Array<number>(100).fill(subjects / 100))).toBeLessThan(148.23);
  });
});

describe('Assignment', () => {
  it.each(vectors.assignments.map((one, at) => [at, one] as const))(
    'has the variants of conformance/assignment.json, assignment %i',
    (_, { salt, variants, subjects, buckets }) => {
      const assignment = new Assignment(
        salt,
        variants.map((one) => ({ ranges: rangesOf(one) })),
      );
      const nameAt = (index: number) => variants[index]?.name;
      for (const { subject, variant } of subjects) expect(nameAt(assignment.variantOf(subject))).toBe(variant);
      for (const { bucket, variant } of buckets) expect(nameAt(assignment.ownerOf(bucket))).toBe(variant);
    },
  );

  it('gives variants the shares of their weights', () => {
    const weights = [5000, 3000, 1900, 100];
    const subjects = 200_000;
    for (const salt of [SALT, 'c0ffee254729296a', '0123456789abcdef']) {
      const assignment = new Assignment(salt, allocate([], weightsOf(...weights)));
      const counts = new Uint32Array(weights.length);
      for (let at = 0; at < subjects; at++) {
        const variant = assignment.variantOf(`run-${at}`);
        counts[variant] = (counts[variant] as number) + 1;
      }
      const expected = weights.map((weight) => (subjects * weight) / BUCKETS);
      // The 0.999 quantile of chi-square with 3 degrees of freedom.
      expect(chiSquare(counts, expected)).toBeLessThan(16.266);
    }
  });

  it('gives a subject the same variant in any order of variants and ranges', () => {
    const first = allocate([], weightsOf(2500, 2500, 5000));
    const variants = allocate(first, weightsOf(4000, 1000, 5000));
    const assignment = new Assignment(SALT, variants);
    const reversed = new Assignment(
      SALT,
      [...variants].reverse().map(({ ranges }) => ({ ranges: [...ranges].reverse() })),
    );
    fc.assert(
      fc.property(fc.string(), (subject) => {
        expect(reversed.variantOf(subject)).toBe(2 - assignment.variantOf(subject));
        expect(assignment.bucketOf(subject)).toBe(bucketOf(SALT, subject));
      }),
    );
  });

  it('has no variant for a bucket that is in no range', () => {
    const assignment = new Assignment(SALT, [{ ranges: [{ start: 10, end: 20 }] }, { ranges: [] }]);
    expect([0, 9, 10, 19, 20, 9999].map((bucket) => assignment.ownerOf(bucket))).toEqual([
      UNASSIGNED,
      UNASSIGNED,
      0,
      0,
      UNASSIGNED,
      UNASSIGNED,
    ]);
    expect(new Assignment(SALT, []).variantOf('x')).toBe(UNASSIGNED);
  });
});
