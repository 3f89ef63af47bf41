import type { Difference, Interval } from './difference.js';
import type { Direction } from './guardrail.js';

/** A value of the enum ExperimentVerdict without its prefix. */
export type VerdictKind =
  | 'TOO_FEW_SUBJECTS'
  | 'INCONCLUSIVE'
  | 'VARIANT_BETTER'
  | 'CONTROL_BETTER'
  | 'SAMPLE_RATIO_MISMATCH';

/** The result of the comparison of a variant with the control in the primary metric. */
export type Comparison = 'BETTER' | 'WORSE' | 'OPEN' | 'TOO_FEW_SUBJECTS';

export interface VariantComparison {
  readonly name: string;
  readonly comparison: Comparison;
  /** 1 minus the always-valid p-value of the hypothesis of no difference; 0 without an interval. */
  readonly certainty: number;
}

export interface Verdict {
  readonly kind: VerdictKind;
  /** All variants except the control, the best observed value first. */
  readonly variants: readonly VariantComparison[];
  /**
   * The variant that is better than the control and all other variants, with confidence; undefined if there is no such
   * variant.
   */
  readonly best: string | undefined;
}

/** A variant with its difference to the control; undefined: the variant has no value. */
export interface Compared {
  readonly name: string;
  readonly difference: Pick<Difference, 'absolute' | 'interval' | 'pValue'> | undefined;
}

/** Computes the verdict from the differences in the primary metric. */
export function verdictOf(compared: readonly Compared[], direction: Direction, hasMismatch: boolean): Verdict {
  const sign = direction === 'higher is better' ? 1 : -1;
  const sorted = [...compared].sort((a, b) => gain(b, sign) - gain(a, sign));
  const variants = sorted.map(({ name, difference }) => ({
    name,
    comparison: comparisonOf(difference?.interval, sign),
    certainty: difference?.interval ? 1 - (difference.pValue ?? 1) : 0,
  }));
  return { kind: kindOf(variants, hasMismatch), variants, best: hasMismatch ? undefined : bestOf(sorted, sign) };
}

/** The observed gain over the control; variants without a value are last. */
const gain = ({ difference }: Compared, sign: number): number =>
  difference ? sign * difference.absolute : Number.NEGATIVE_INFINITY;

function comparisonOf(interval: Interval | undefined, sign: number): Comparison {
  if (!interval) return 'TOO_FEW_SUBJECTS';
  if (sign > 0 ? interval.low > 0 : interval.high < 0) return 'BETTER';
  if (sign > 0 ? interval.high < 0 : interval.low > 0) return 'WORSE';
  return 'OPEN';
}

function kindOf(variants: readonly VariantComparison[], hasMismatch: boolean): VerdictKind {
  const has = (comparison: Comparison) => variants.some((one) => one.comparison === comparison);
  if (hasMismatch) return 'SAMPLE_RATIO_MISMATCH';
  if (has('BETTER')) return 'VARIANT_BETTER';
  if (variants.length > 0 && variants.every(({ comparison }) => comparison === 'WORSE')) return 'CONTROL_BETTER';
  return variants.every(({ comparison }) => comparison === 'TOO_FEW_SUBJECTS') ? 'TOO_FEW_SUBJECTS' : 'INCONCLUSIVE';
}

/**
 * All intervals are valid together, so a variant is better than another one if its interval is entirely beyond the
 * other interval.
 */
function bestOf(sorted: readonly Compared[], sign: number): string | undefined {
  const [first, ...others] = sorted;
  const worst = first && lowestGain(first, sign);
  if (first === undefined || worst === undefined || worst <= 0) return undefined;
  const isBeyond = (other: Compared) => {
    const highest = highestGain(other, sign);
    return highest !== undefined && worst > highest;
  };
  return others.every(isBeyond) ? first.name : undefined;
}

/** The bounds of the gain over the control. */
const lowestGain = ({ difference }: Compared, sign: number): number | undefined =>
  difference?.interval && (sign > 0 ? difference.interval.low : -difference.interval.high);
const highestGain = ({ difference }: Compared, sign: number): number | undefined =>
  difference?.interval && (sign > 0 ? difference.interval.high : -difference.interval.low);
