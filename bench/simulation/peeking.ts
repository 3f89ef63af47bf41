import { MINIMUM_SUBJECTS } from '../../src/domain/experiments/confidence_sequence.js';
import { differenceOf, type Interval } from '../../src/domain/experiments/difference.js';
import type { MetricSums } from '../../src/domain/experiments/metric_sums.js';
import { Random } from './random.js';
import { type Scenario, Traffic } from './traffic.js';

/** The results of many runs of a scenario in which the results are read after every call. */
export interface Peeks {
  readonly runs: number;
  /** Runs in which an interval of a difference does not contain the true difference at some time. */
  readonly missed: number;
  /** The same for relative differences. */
  readonly relativeMissed: number;
  /** Runs in which an interval excludes 0 at some time. */
  readonly different: number;
  /**
   * Runs in which an ordinary test (1.96 standard errors at alpha = 0.05) excludes the true difference at some time.
   */
  readonly naiveMissed: number;
  /** The mean number of calls until an interval excludes 0, in the runs in which one does. */
  readonly callsUntilDifferent: number;
}

export const ALPHA = 0.05;

/** Runs a scenario with the seeds `seed` to `seed + runs - 1`. */
export function peek(scenario: Scenario, runs: number, seed = 1): Peeks {
  const results = Array.from({ length: runs }, (_, at) => peekOnce(scenario, new Random(seed + at)));
  const count = (is: (one: Look) => boolean) => results.filter(is).length;
  const found = results.flatMap(({ differentAt }) => differentAt ?? []);
  return {
    runs,
    missed: count(({ missed }) => missed),
    relativeMissed: count(({ relativeMissed }) => relativeMissed),
    different: found.length,
    naiveMissed: count(({ naiveMissed }) => naiveMissed),
    callsUntilDifferent: found.reduce((sum, calls) => sum + calls, 0) / found.length,
  };
}

interface Look {
  missed: boolean;
  relativeMissed: boolean;
  naiveMissed: boolean;
  differentAt: number | undefined;
}

const excludes = (interval: Interval | undefined, value: number): boolean =>
  interval !== undefined && (interval.low > value || interval.high < value);

function peekOnce(scenario: Scenario, random: Random): Look {
  const traffic = new Traffic(scenario, random);
  const look: Look = { missed: false, relativeMissed: false, naiveMissed: false, differentAt: undefined };
  while (traffic.calls < scenario.calls) {
    const { variant } = traffic.next();
    // A call of the control changes all differences, a call of another variant changes one.
    const first = variant === 0 ? 1 : variant;
    const last = variant === 0 ? scenario.draws.length - 1 : variant;
    for (let at = first; at <= last; at++) compare(scenario, traffic, at, look);
  }
  return look;
}

function compare({ draws, means, isProportion }: Scenario, { sums, calls }: Traffic, at: number, look: Look): void {
  const [variant, control] = [sums[at] as (typeof sums)[number], sums[0] as (typeof sums)[number]];
  if (Math.min(variant.subjects, control.subjects) < MINIMUM_SUBJECTS) return;
  const comparisons = draws.length - 1;
  const difference = differenceOf(variant, control, { alpha: ALPHA, comparisons, isProportion });
  if (!difference) return;
  const [mean, base] = [means[at] as number, means[0] as number];
  if (excludes(difference.interval, mean - base)) look.missed = true;
  if (excludes(difference.relativeInterval, (mean - base) / Math.abs(base))) look.relativeMissed = true;
  if (look.differentAt === undefined && excludes(difference.interval, 0)) look.differentAt = calls;
  const error = Math.sqrt(squaredError(variant) + squaredError(control));
  if (Math.abs(difference.absolute - mean + base) > 1.96 * error) look.naiveMissed = true;
}

/** The square of the standard error of a ratio, for the test that is made once. */
function squaredError({ subjects, x, xx, y, yy, xy }: MetricSums): number {
  const value = y / x;
  return ((yy - 2 * value * xy + value ** 2 * xx) * subjects) / x ** 2 / (subjects - 1);
}
