import { type Contrast, contrastOf, type Interval, type Pair } from './difference.js';
import type { QuantileDifference } from './quantile_difference.js';

export type Direction = 'higher is better' | 'lower is better';

/**
 * The permitted difference in the worse direction: in the unit of the metric, or as a part of the value of the control.
 */
export type Margin = { readonly absolute: number } | { readonly relative: number };

/** A guardrail for one variant. All values are in the unit of the metric and in the worse direction. */
export interface GuardrailState {
  readonly permitted: number;
  readonly observed: number;
  /** The interval of `observed`; undefined: too few subjects. */
  readonly interval: Interval | undefined;
  /** Whether the variant is worse than permitted, with confidence at all times together. */
  readonly violated: boolean;
}

const permittedOf = (margin: Margin, control: number): number =>
  'absolute' in margin ? margin.absolute : margin.relative * Math.abs(control);

/** A guardrail on a metric that is compared by its mean. */
export function guardMean(pair: Pair, direction: Direction, margin: Margin): GuardrailState {
  const sign = direction === 'lower is better' ? 1 : -1;
  const { value, interval } = contrastOf(pair, 1);
  return {
    permitted: permittedOf(margin, pair.control.value),
    observed: sign * value,
    interval: interval && signed(interval, sign),
    violated: 'absolute' in margin ? lowest(pair, 1, sign) > margin.absolute : isBeyond(pair, sign, margin.relative),
  };
}

/**
 * Whether a variant is worse by more than a part of the control's absolute value. The uncertainty of the control is
 * included. Because the sign of the control's value can be uncertain, the margin is computed for the value and for its
 * negative; both bounds must be exceeded.
 */
function isBeyond(pair: Pair, sign: number, part: number): boolean {
  return [1 + part, 1 - part].every((factor) => lowest(pair, factor, sign) > 0);
}

/** The lower bound of `variant - factor * control` in the worse direction. */
function lowest(pair: Pair, factor: number, sign: number): number {
  const { interval }: Contrast = contrastOf(pair, factor);
  return interval ? signed(interval, sign).low : Number.NEGATIVE_INFINITY;
}

const signed = ({ low, high }: Interval, sign: number): Interval =>
  sign > 0 ? { low, high } : { low: -high, high: -low };

/** A guardrail on a quantile of the durations of calls. Shorter durations are better. */
export function guardQuantile(difference: QuantileDifference, margin: Margin): GuardrailState {
  const { control, absolute, interval, intervals } = difference;
  const isViolated = ({ variant, control: base }: NonNullable<typeof intervals>) =>
    'absolute' in margin ? variant.low - base.high > margin.absolute : variant.low > (1 + margin.relative) * base.high;
  return {
    permitted: permittedOf(margin, control),
    observed: absolute,
    interval,
    violated: intervals !== undefined && isViolated(intervals),
  };
}
