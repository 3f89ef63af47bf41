import { describe, expect, it } from 'vitest';
import { type Compared, verdictOf } from '../../../src/domain/experiments/verdict.js';

const variant = (name: string, low: number, high: number, pValue = low > 0 || high < 0 ? 0.01 : 0.4): Compared => ({
  name,
  difference: { absolute: (low + high) / 2, interval: { low, high }, pValue },
});
const young = (name: string): Compared => ({
  name,
  difference: { absolute: 5, interval: undefined, pValue: undefined },
});
const none = (name: string): Compared => ({ name, difference: undefined });

describe('verdictOf', () => {
  const higher = (compared: readonly Compared[]) => verdictOf(compared, 'higher is better', false);

  it('names the variant that is better than the control and than all others', () => {
    const verdict = higher([variant('a', -2, -1), variant('b', 3, 4), variant('c', 1, 2)]);
    expect(verdict.kind).toBe('VARIANT_BETTER');
    expect(verdict.best).toBe('b');
    expect(verdict.variants).toEqual([
      { name: 'b', comparison: 'BETTER', certainty: 0.99 },
      { name: 'c', comparison: 'BETTER', certainty: 0.99 },
      { name: 'a', comparison: 'WORSE', certainty: 0.99 },
    ]);
  });

  it('names no best variant while the intervals of two overlap or one has none', () => {
    expect(higher([variant('a', 1, 3), variant('b', 2, 4)])).toMatchObject({ kind: 'VARIANT_BETTER', best: undefined });
    expect(higher([variant('a', 1, 3), young('b')])).toMatchObject({ kind: 'VARIANT_BETTER', best: undefined });
    expect(higher([variant('a', 1, 3), none('b')]).best).toBeUndefined();
  });

  it('prefers lower values where they are better', () => {
    const verdict = verdictOf([variant('a', -2, -1), variant('b', 1, 2)], 'lower is better', false);
    expect(verdict).toMatchObject({ kind: 'VARIANT_BETTER', best: 'a' });
    expect(verdict.variants.map(({ comparison }) => comparison)).toEqual(['BETTER', 'WORSE']);
    expect(verdictOf([variant('b', 1, 2)], 'lower is better', false).kind).toBe('CONTROL_BETTER');
  });

  it('is for the control only when every variant is worse', () => {
    expect(higher([variant('a', -2, -1), variant('b', -4, -3)])).toMatchObject({
      kind: 'CONTROL_BETTER',
      best: undefined,
    });
    expect(higher([variant('a', -2, -1), variant('b', -1, 3)]).kind).toBe('INCONCLUSIVE');
    expect(higher([variant('a', -2, -1), young('b')]).kind).toBe('INCONCLUSIVE');
  });

  it('states that there are too few subjects when no variant has an interval', () => {
    const verdict = higher([young('a'), none('b')]);
    expect(verdict.kind).toBe('TOO_FEW_SUBJECTS');
    expect(verdict.variants).toEqual([
      { name: 'a', comparison: 'TOO_FEW_SUBJECTS', certainty: 0 },
      { name: 'b', comparison: 'TOO_FEW_SUBJECTS', certainty: 0 },
    ]);
    expect(higher([]).kind).toBe('TOO_FEW_SUBJECTS');
  });

  it('trusts no difference when subjects are missing in a variant', () => {
    expect(verdictOf([variant('a', 1, 2)], 'higher is better', true)).toMatchObject({
      kind: 'SAMPLE_RATIO_MISMATCH',
      best: undefined,
    });
  });
});
