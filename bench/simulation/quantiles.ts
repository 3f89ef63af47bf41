import { LATENCY_BINS, latencyBin } from '../../src/domain/experiments/latency_histogram.js';
import { quantileDifference } from '../../src/domain/experiments/quantile_difference.js';
import { ALPHA } from './peeking.js';
import { Random } from './random.js';
import { type Scenario, Traffic } from './traffic.js';

/** A scenario whose values are durations in ms; `means` are the true quantiles. */
export interface QuantileScenario extends Scenario {
  readonly share: number;
}

const duration =
  (median: number, own: number, common: number) =>
  (random: Random, trait: number): number =>
    median * Math.exp(own * random.normal() + common * trait);

/** The 95 % quantile of the normal distribution. */
const Z95 = 1.6448536269514722;

const base = {
  weights: [{ fromCall: 0, weights: [5000, 5000] }],
  isProportion: false,
};

export const QUANTILE_SCENARIOS: readonly QuantileScenario[] = [
  {
    ...base,
    name: 'p95, one call for each subject',
    draws: [duration(1_000, 0.6, 0), duration(1_000, 0.6, 0)],
    means: [1_000 * Math.exp(0.6 * Z95), 1_000 * Math.exp(0.6 * Z95)],
    share: 0.95,
    calls: 3_000,
    callsPerSubject: 1,
  },
  {
    ...base,
    name: 'p50, all calls of a subject alike, a variant that takes twice as long',
    draws: [duration(1_000, 0, 0.6), duration(2_000, 0, 0.6)],
    means: [1_000, 2_000],
    share: 0.5,
    calls: 6_000,
    callsPerSubject: 4,
  },
];

export interface QuantilePeeks {
  readonly runs: number;
  /** Runs in which an interval does not contain the true difference at some time. */
  readonly missed: number;
  /** Runs in which an interval excludes 0 at some time. */
  readonly different: number;
}

/** Runs in which the results are read after every 25th call. */
export function peekAtQuantiles(scenario: QuantileScenario, runs: number, seed = 1): QuantilePeeks {
  const results = Array.from({ length: runs }, (_, at) => peekOnce(scenario, new Random(seed + at)));
  return {
    runs,
    missed: results.filter(({ missed }) => missed).length,
    different: results.filter(({ different }) => different).length,
  };
}

function peekOnce(scenario: QuantileScenario, random: Random) {
  const traffic = new Traffic(scenario, random);
  const counts = [0, 1].map(() => ({
    histogram: new Array<number>(LATENCY_BINS).fill(0),
    subjects: 0,
    callsSquared: 0,
  }));
  const look = { missed: false, different: false };
  const truth = (scenario.means[1] as number) - (scenario.means[0] as number);
  while (traffic.calls < scenario.calls) {
    const { variant, value, row } = traffic.next();
    const count = counts[variant] as (typeof counts)[number];
    const bin = latencyBin(value);
    count.histogram[bin] = (count.histogram[bin] as number) + 1;
    count.callsSquared += 2 * row.calls - 1;
    if (row.calls === 1) count.subjects++;
    if (traffic.calls % 25 !== 0) continue;
    const [control, other] = counts as [typeof count, typeof count];
    const interval = quantileDifference(other, control, scenario.share, { alpha: ALPHA, comparisons: 1 })?.interval;
    if (!interval) continue;
    if (interval.low > truth || interval.high < truth) look.missed = true;
    if (interval.low > 0 || interval.high < 0) look.different = true;
  }
  return look;
}
