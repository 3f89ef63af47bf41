import type { Draw, Scenario } from './traffic.js';

const HALF = [{ fromCall: 0, weights: [5000, 5000] }];

const bernoulli =
  (share: number): Draw =>
  (random) =>
    random.uniform() < share ? 1 : 0;

/** Each subject has its own probability: 0.2 below or above the mean. */
const correlatedBernoulli =
  (share: number): Draw =>
  (random, trait) =>
    random.uniform() < share + (trait > 0 ? 0.2 : -0.2) ? 1 : 0;

/** Log-normal with the mean `mean`; `own` and `common` are the deviations of the logarithm within and between subjects. */
const logNormal =
  (mean: number, own: number, common = 0): Draw =>
  (random, trait) =>
    mean * Math.exp(own * random.normal() + common * trait - (own ** 2 + common ** 2) / 2);

/** Without a difference between the variants. */
export const NULL_SCENARIOS: readonly Scenario[] = [
  {
    name: 'success of 90 %',
    draws: [bernoulli(0.9), bernoulli(0.9)],
    means: [0.9, 0.9],
    weights: HALF,
    calls: 4_000,
    callsPerSubject: 1,
    isProportion: true,
  },
  {
    name: 'skewed cost, weights 90 to 10',
    draws: [logNormal(1, 1), logNormal(1, 1)],
    means: [1, 1],
    weights: [{ fromCall: 0, weights: [9000, 1000] }],
    calls: 4_000,
    callsPerSubject: 1,
    isProportion: false,
  },
  {
    name: 'calls of a subject are correlated',
    draws: [correlatedBernoulli(0.7), correlatedBernoulli(0.7)],
    means: [0.7, 0.7],
    weights: HALF,
    calls: 6_000,
    callsPerSubject: 5,
    isProportion: true,
  },
  {
    name: 'weights change from 95 to 5 to 50 to 50 and back',
    draws: [logNormal(2, 0.5, 0.7), logNormal(2, 0.5, 0.7)],
    means: [2, 2],
    weights: [
      { fromCall: 0, weights: [9500, 500] },
      { fromCall: 2_000, weights: [5000, 5000] },
      { fromCall: 4_000, weights: [8000, 2000] },
    ],
    calls: 6_000,
    callsPerSubject: 3,
    isProportion: false,
  },
  {
    name: 'four variants',
    draws: [logNormal(1, 0.8), logNormal(1, 0.8), logNormal(1, 0.8), logNormal(1, 0.8)],
    means: [1, 1, 1, 1],
    weights: [{ fromCall: 0, weights: [4000, 2000, 2000, 2000] }],
    calls: 5_000,
    callsPerSubject: 1,
    isProportion: false,
  },
];

/** With a difference, which the intervals must contain and, in the end, detect. */
export const DIFFERENT_SCENARIOS: readonly Scenario[] = [
  {
    name: 'success of 85 instead of 75 %',
    draws: [bernoulli(0.75), bernoulli(0.85)],
    means: [0.75, 0.85],
    weights: HALF,
    calls: 4_000,
    callsPerSubject: 1,
    isProportion: true,
  },
  {
    name: 'a fifth less of a skewed, correlated cost, weights 70 to 30',
    draws: [logNormal(5, 0.6, 0.5), logNormal(4, 0.6, 0.5)],
    means: [5, 4],
    weights: [{ fromCall: 0, weights: [7000, 3000] }],
    calls: 10_000,
    callsPerSubject: 3,
    isProportion: false,
  },
  {
    name: 'an outcome around 0, mean of each subject',
    draws: [(random, trait) => random.normal() + trait, (random, trait) => random.normal() + trait + 0.3],
    means: [0, 0.3],
    weights: HALF,
    calls: 8_000,
    callsPerSubject: 2,
    isProportion: false,
    isPerSubject: true,
  },
];
