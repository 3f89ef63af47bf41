import type { ExperimentMetric, MetricResult, VariantResults } from '../../../../gen/ts/agentllm/v1/experiment.js';
import type { GetResultsResponse } from '../../../../gen/ts/agentllm/v1/experiment_service.js';
import { moment, small, table, visible } from '../../kit/print.js';
import { conclusion } from './conclusion.js';
import { CHART_HEAD, extentOf, intervalChart } from './interval_chart.js';
import { amountText, digits, guardrailText, isSame, metricName, valueText } from './metrics.js';
import { type ShownDifference, shownDifference, signed } from './shown_difference.js';
import { percentText } from './variants.js';

/* The text of `agentllm experiments results`. */

export type Results = GetResultsResponse;

/** The complete results: variants, metrics with intervals, guardrails, and the explanation. */
export const resultsText = (results: Results): string =>
  [head(results), variantTable(results), metricTable(results), guardrailTable(results), conclusion(results).join('\n')]
    .filter(Boolean)
    .join('\n\n');

/** The short results: variants and the explanation. */
export const statusText = (results: Results): string =>
  [head(results), variantTable(results), conclusion(results).join('\n')].join('\n\n');

/** `experiment model of trader, running since 2026-11-29T12:00:00Z; a subject is a run` */
function head({ experiment }: Results): string {
  if (!experiment) return '';
  const { name, agent_name, state, subject_kind, hypothesis, state_reason, started_at, ended_at, winner } = experiment;
  const since = { RUNNING: `, started ${moment(started_at)}`, CONCLUDED: ` at ${moment(ended_at)}` }[
    state.replace('EXPERIMENT_STATE_', '')
  ];
  const isConcluded = state === 'EXPERIMENT_STATE_CONCLUDED';
  return [
    `experiment ${name} of ${agent_name} is ${small(state, 'EXPERIMENT_STATE_')}${since ?? ''}; a subject is a ${subject_kind}`,
    hypothesis && `hypothesis: ${hypothesis}`,
    state_reason && `reason of the last state change: ${state_reason}`,
    isConcluded && (winner ? `winner: ${winner}` : 'concluded without a winner'),
  ]
    .filter((line): line is string => Boolean(line))
    .map(visible)
    .join('\n');
}

const ms = (value: number | undefined) => (value === undefined ? '' : `${digits(value, 3)} ms`);
const rateText = (rate: number | undefined) => (rate === undefined ? '' : `${digits(rate * 100, 3)} %`);

function variantTable({ variants, experiment }: Results): string {
  const weights = new Map(experiment?.variants.map((one) => [one.name, one.weight_basis_points]));
  const heads = ['VARIANT', 'WEIGHT', 'SUBJECTS', 'CALLS', 'FALLBACK', 'ABORTED', 'P50', 'P95', 'P99'];
  const rows = variants.map((one) => [
    one.variant + (one.control ? ' (control)' : ''),
    percentText(weights.get(one.variant)),
    String(one.subjects),
    String(one.calls),
    rateText(one.contamination_rate),
    String(one.aborted_calls),
    ms(one.latency?.p50_ms),
    ms(one.latency?.p95_ms),
    ms(one.latency?.p99_ms),
  ]);
  return table(heads, rows);
}

/** One metric in one view, with its value for each variant. */
interface MetricRows {
  readonly metric: ExperimentMetric;
  readonly name: string;
  readonly results: readonly (readonly [VariantResults, MetricResult])[];
}

/** The metrics in the order of the response, which lists the intention-to-treat view first. */
function metricsOf({ variants, experiment }: Results): MetricRows[] {
  const hasFallbacks = variants.some(({ fallback_calls }) => fallback_calls > 0n);
  const primary = experiment?.primary_metric;
  const first = variants[0]?.metrics ?? [];
  return first
    .filter(({ view }) => hasFallbacks || view !== 'RESULT_VIEW_AS_SERVED')
    .flatMap(({ metric, view }) => {
      if (!metric) return [];
      const results = variants.flatMap((variant) => {
        const found = variant.metrics.find((one) => one.view === view && isSame(metric, one.metric));
        return found ? [[variant, found] as const] : [];
      });
      if (results.every(([, { value }]) => value === undefined)) return [];
      const notes = [isSame(metric, primary) && 'primary', view === 'RESULT_VIEW_AS_SERVED' && 'as served'];
      const note = notes.filter(Boolean).join(', ');
      return [{ metric, results, name: metricName(metric) + (note && ` (${note})`) }];
    });
}

const METRIC_HEADS = ['METRIC', 'VARIANT', 'VALUE', 'DIFFERENCE', 'INTERVAL', 'RESULT', CHART_HEAD];

function metricTable(results: Results): string {
  const rows = metricsOf(results).flatMap(({ metric, name, results: all }) => {
    const shown = all.map(([, { difference }]) => difference && shownDifference(metric, difference));
    const extent = extentOf(shown.filter((one) => one !== undefined));
    return all.map(([variant, result], at) => [
      at === 0 ? name : ' ',
      variant.variant,
      result.value === undefined ? '' : valueText(metric, result.value),
      ...differenceCells(variant, result, shown[at], hasEnough(results, variant)),
      intervalChart(shown[at], extent),
    ]);
  });
  return rows.length === 0 ? '' : table(METRIC_HEADS, rows);
}

/** Whether a variant and the control have enough subjects for an interval. */
const hasEnough = ({ variants, min_subjects }: Results, { subjects }: VariantResults) =>
  variants.filter(({ control }) => control).every((one) => one.subjects >= min_subjects && subjects >= min_subjects);

/** The cells of the difference, its interval and its result. */
function differenceCells(
  { control }: VariantResults,
  { difference }: MetricResult,
  shown: ShownDifference | undefined,
  isEnough: boolean,
): string[] {
  if (!difference || !shown) return ['', '', control ? 'control' : ''];
  const { value, low, high, text } = shown;
  const interval = low === undefined || high === undefined ? '' : `${signed(low, text)} to ${signed(high, text)}`;
  const undecided = interval !== '' ? 'undecided' : isEnough ? 'no interval' : 'too few subjects';
  return [signed(value, text), interval, difference.better ? 'better' : difference.worse ? 'worse' : undecided];
}

function guardrailTable({ guardrails }: Results): string {
  const heads = ['GUARDRAIL', 'VARIANT', 'PERMITTED', 'WORSE BY', 'INTERVAL', 'RESULT'];
  const rows = guardrails.map(({ guardrail, variant, permitted, observed, interval, violated }) => {
    const text = (value: number) => (guardrail?.metric ? amountText(guardrail.metric, value) : digits(value));
    return [
      guardrail ? guardrailText(guardrail) : '',
      variant,
      permitted === undefined ? '' : text(permitted),
      observed === undefined ? '' : text(observed),
      interval ? `${signed(interval.low, text)} to ${signed(interval.high, text)}` : '',
      violated ? 'violated' : interval ? 'not violated' : 'too few subjects',
    ];
  });
  return rows.length === 0 ? '' : table(heads, rows);
}
