import {
  type ExperimentMetric,
  type ExperimentVariant,
  MetricDifference,
  type MetricResult,
} from '../../../../gen/ts/agentllm/v1/experiment.js';
import { GetResultsResponse } from '../../../../gen/ts/agentllm/v1/experiment_service.js';

/* Results of an experiment, as the service sends them, for tests of their text. */

export const COST: ExperimentMetric = {
  kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL',
  outcome: '',
  direction: 'METRIC_DIRECTION_LOWER_IS_BETTER',
};
export const SUCCESS: ExperimentMetric = {
  kind: 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE',
  outcome: '',
  direction: 'METRIC_DIRECTION_HIGHER_IS_BETTER',
};
export const ERRORS: ExperimentMetric = {
  kind: 'EXPERIMENT_METRIC_KIND_ERROR_RATE',
  outcome: '',
  direction: 'METRIC_DIRECTION_LOWER_IS_BETTER',
};

const INTENTION = 'RESULT_VIEW_INTENTION_TO_TREAT';

/** The value of a metric. `difference` is relative to a control with the value 200 000. */
export const metricResult = (
  metric: ExperimentMetric,
  value: number,
  difference?: readonly [value: number, low?: number, high?: number],
  view: MetricResult['view'] = INTENTION,
): MetricResult => ({ metric, value, view, subjects: 400n, difference: difference && differenceOf(...difference) });

function differenceOf(value: number, low?: number, high?: number): MetricDifference {
  const control = 200_000;
  const hasInterval = low !== undefined && high !== undefined;
  return MetricDifference.fromPartial({
    absolute: value * control,
    relative: value,
    ...(hasInterval && {
      interval: { low: low * control, high: high * control },
      relative_interval: { low, high },
      better: high < 0,
      worse: low > 0,
    }),
  });
}

interface VariantInput {
  readonly name: string;
  readonly metrics: readonly MetricResult[];
  readonly fallbacks?: bigint;
}

/** Results of two or more variants; the first one is the control. */
export function resultsOf(
  variants: readonly VariantInput[],
  more: Parameters<typeof GetResultsResponse.fromPartial>[0] = {},
): GetResultsResponse {
  const definitions = variants.map(
    ({ name }, at): Partial<ExperimentVariant> => ({ name, control: at === 0, weight_basis_points: 5000 }),
  );
  return GetResultsResponse.fromPartial({
    min_subjects: 100n,
    verdict: 'EXPERIMENT_VERDICT_INCONCLUSIVE',
    sample_ratio: { p_value: 0.41, counts: [{ variant: 'control', subjects: 400n, expected: 400 }] },
    ...more,
    experiment: {
      name: 'model',
      agent_name: 'trader',
      state: 'EXPERIMENT_STATE_RUNNING',
      subject_kind: 'run',
      started_at: new Date('2026-11-29T12:00:00Z'),
      primary_metric: COST,
      alpha_basis_points: 500,
      smallest_effect_basis_points: 500,
      variants: definitions,
      ...more.experiment,
    },
    variants: variants.map(({ name, metrics, fallbacks = 0n }, at) => ({
      variant: name,
      control: at === 0,
      subjects: 400n,
      calls: 800n,
      fallback_calls: fallbacks,
      contamination_rate: Number(fallbacks) / 800,
      latency: { p50_ms: 512.3, p95_ms: 1204, p99_ms: 2310 },
      metrics: [...metrics],
    })),
  });
}
