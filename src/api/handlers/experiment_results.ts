import {
  ExperimentVerdict,
  type GuardrailResult,
  type MetricResult,
  ResultView,
  type VariantResults,
} from '../../../gen/ts/agentllm/v1/experiment.js';
import type { GetResultsRequest, GetResultsResponse } from '../../../gen/ts/agentllm/v1/experiment_service.js';
import { MINIMUM_SUBJECTS } from '../../domain/experiments/confidence_sequence.js';
import {
  type GuardrailCheck,
  type MetricDifference,
  type MetricValue,
  type PowerNote,
  Results,
  sideOf,
} from '../../domain/experiments/results.js';
import { type ExperimentSums, sumsOf } from '../../domain/experiments/sums.js';
import type { Experiment, Metric, Variant } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { readSums } from '../../store/experiments/read_sums.js';
import type { Call } from '../dispatch/method.js';
import { experimentMessage, guardrailMessage } from '../messages/experiments.js';
import type { Backend } from './backend.js';
import { namedExperiment } from './experiment_requests.js';

/** Returns the current results of an experiment. */
export async function getResults(
  { store }: Backend,
  state: State,
  { request }: Call<GetResultsRequest, GetResultsResponse>,
): Promise<GetResultsResponse> {
  const experiment = namedExperiment(state, request);
  const message = experimentMessage(state, experiment);
  const revision = BigInt(state.revision);
  const sums = await readSums(store, experiment);
  return { experiment: message, revision, ...resultsMessage(experiment, sums, new Date()) };
}

function resultsMessage(
  experiment: Experiment,
  sums: ExperimentSums,
  now: Date,
): Omit<GetResultsResponse, 'experiment' | 'revision'> {
  const results = new Results(experiment, sums);
  const { counts, expected, mismatch, pValue } = results.sampleRatio;
  const { kind, variants, best } = results.verdict;
  return {
    variants: experiment.variants.map((variant) => variantMessage(results, sums, variant)),
    sample_ratio: {
      mismatch,
      p_value: pValue,
      counts: experiment.variants.map(({ name }, at) => ({
        variant: name,
        subjects: BigInt(counts[at] ?? 0),
        expected: expected[at] ?? 0,
      })),
    },
    power: results.power(now.getTime()).map(powerMessage),
    guardrails: results.guardrails().map(guardrailResult),
    verdict: ExperimentVerdict[kind],
    better_variants: variants.filter(({ comparison }) => comparison === 'BETTER').map(({ name }) => name),
    best_variant: best ?? '',
    min_subjects: BigInt(MINIMUM_SUBJECTS),
    computed_at: now,
  };
}

function variantMessage(results: Results, sums: ExperimentSums, variant: Variant): VariantResults {
  const { name, control } = variant;
  const { subjects, all, served, aborted_calls, unpriced_attempts } = sumsOf(sums, name);
  const fallback = all.calls - served.calls;
  const quantiles = results.quantiles(name);
  return {
    variant: name,
    control,
    subjects: BigInt(subjects),
    calls: BigInt(all.calls),
    fallback_calls: BigInt(fallback),
    aborted_calls: BigInt(aborted_calls),
    contamination_rate: all.calls === 0 ? undefined : fallback / all.calls,
    unpriced_attempts: BigInt(unpriced_attempts),
    metrics: results.metrics.map(([metric, view]) => metricMessage(results.valueOf(variant, metric, view))),
    latency: quantiles && { p50_ms: quantiles.p50, p95_ms: quantiles.p95, p99_ms: quantiles.p99 },
  };
}

const metricMessage = ({ metric, view, subjects, value, difference }: MetricValue): MetricResult => ({
  metric: { ...metric },
  view: view === 'all' ? ResultView.INTENTION_TO_TREAT : ResultView.AS_SERVED,
  subjects: BigInt(subjects),
  value,
  difference: difference && differenceMessage(metric, difference),
});

function differenceMessage(metric: Metric, difference: MetricDifference) {
  const { absolute, interval, relative, relativeInterval, pValue } = difference;
  const side = sideOf(metric, interval);
  return {
    absolute,
    interval: interval && { ...interval },
    relative,
    relative_interval: relativeInterval && { ...relativeInterval },
    better: side === 'better',
    worse: side === 'worse',
    p_value: pValue,
  };
}

const powerMessage = ({ variant, needed, subjects, perDay, weeksLeft }: PowerNote) => ({
  variant,
  needed_subjects: needed === undefined ? undefined : BigInt(needed),
  subjects: BigInt(subjects),
  subjects_per_day: perDay,
  weeks_left: weeksLeft,
});

const guardrailResult = ({ guardrail, variant, state }: GuardrailCheck): GuardrailResult => ({
  guardrail: guardrailMessage(guardrail),
  variant,
  permitted: state?.permitted,
  observed: state?.observed,
  interval: state?.interval && { ...state.interval },
  violated: state?.violated ?? false,
});
