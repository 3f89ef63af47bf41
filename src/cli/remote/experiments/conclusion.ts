import type { Experiment, MetricResult, PowerNote, VariantResults } from '../../../../gen/ts/agentllm/v1/experiment.js';
import type { GetResultsResponse } from '../../../../gen/ts/agentllm/v1/experiment_service.js';
import { counted, visible } from '../../kit/print.js';
import { digits, guardrailText, isSame, metricName } from './metrics.js';
import { type ShownDifference, shownDifference, signed } from './shown_difference.js';

/* Explains the results of an experiment in sentences. */

type Results = GetResultsResponse;

/** The primary metric of one variant, by intention to treat, with its difference to the control. */
interface Compared {
  readonly variant: VariantResults;
  readonly result: MetricResult;
  readonly shown: ShownDifference | undefined;
}

/** Which variant is better, with which confidence, how many subjects are still needed, and what limits the result. */
export function conclusion(results: Results): string[] {
  const { experiment } = results;
  if (!experiment) return [];
  const missing = missingLines(results);
  return [
    ...verdictLines(results, experiment),
    ...otherMetricLines(results),
    ...(missing.length > 0 ? ['Still needed:', ...missing.map((line) => `  ${line}`)] : []),
    ...limitingLines(results),
    ...nextLines(results, experiment),
  ].map(visible);
}

/** The variants other than the control, with the primary metric. */
function comparedIn({ variants, experiment }: Results): Compared[] {
  const primary = experiment?.primary_metric;
  return variants
    .filter(({ control }) => !control)
    .flatMap((variant) => {
      const result = variant.metrics.find(
        ({ metric, view }) => view === 'RESULT_VIEW_INTENTION_TO_TREAT' && metric && isSame(metric, primary),
      );
      if (!result?.metric) return [];
      const { difference, metric } = result;
      return [{ variant, result, shown: difference && shownDifference(metric, difference) }];
    });
}

/** A variant without weight gets no more subjects. */
const hasWeight = (experiment: Experiment | undefined, name: string): boolean =>
  experiment?.variants.some((one) => one.name === name && (one.weight_basis_points ?? 0) > 0) ?? false;

const isDecided = ({ result: { difference } }: Compared) => difference?.better === true || difference?.worse === true;
const nameOfControl = ({ variants }: Results) => variants.find(({ control }) => control)?.variant ?? 'the control';
const confidenceOf = ({ alpha_basis_points: alpha = 0 }: Experiment) => `${(10_000 - alpha) / 100} %`;

function verdictLines(results: Results, experiment: Experiment): string[] {
  const metric = experiment.primary_metric ? metricName(experiment.primary_metric) : 'the primary metric';
  const control = nameOfControl(results);
  const confidence = `with ${confidenceOf(experiment)} confidence, however often the results are read`;
  const compared = comparedIn(results);
  const each = compared.filter(({ shown }) => shown?.low !== undefined).map((one) => `  ${sentenceOf(one, control)}`);
  switch (results.verdict) {
    case 'EXPERIMENT_VERDICT_SAMPLE_RATIO_MISMATCH':
      return ['The results cannot be trusted: the numbers of subjects do not match the weights of the variants.'];
    case 'EXPERIMENT_VERDICT_VARIANT_BETTER': {
      const [best = '', ...others] = results.better_variants;
      const also = others.length > 0 ? [`Also better than ${control}: ${others.join(', ')}. ${NOT_COMPARED}`] : [];
      return [`${best} is better than ${control} in ${metric}, ${confidence}:`, ...each, ...also];
    }
    case 'EXPERIMENT_VERDICT_CONTROL_BETTER':
      return [`${control}, the control, is better than every other variant in ${metric}, ${confidence}:`, ...each];
    case 'EXPERIMENT_VERDICT_INCONCLUSIVE':
      return [`No variant is better than ${control} in ${metric} ${confidence}:`, ...each];
    default:
      if (experiment.state === 'EXPERIMENT_STATE_DRAFT') return ['The experiment has no effect until it is started.'];
      if (results.variants.every(({ subjects }) => subjects === 0n)) return [NO_SUBJECTS];
      return [
        `There are too few subjects to compare ${metric}: a variant and ${control} need ${results.min_subjects} subjects each.`,
      ];
  }
}

const NO_SUBJECTS =
  'No call with a subject is recorded yet. A call counts if the agent passes a subject: languageModel({ subject }).';
const NOT_COMPARED = 'Variants are compared with the control, not with each other.';

/** `cheap: 60 % lower than control (56 % to 64 % lower)` */
function sentenceOf({ variant, shown }: Compared, control: string): string {
  const { value, low = 0, high = 0, text } = shown as ShownDifference;
  const amount = (one: number) => text(Math.abs(one));
  const side = (one: number) => (one < 0 ? 'lower' : 'higher');
  const [small, large] = Math.abs(low) < Math.abs(high) ? [low, high] : [high, low];
  const range =
    low < 0 && high > 0
      ? `between ${amount(low)} lower and ${amount(high)} higher`
      : `${amount(small)} to ${amount(large)} ${side(large)}`;
  return `${variant.variant}: ${amount(value)} ${side(value)} than ${control}; the true difference is ${range}`;
}

/** The other metrics that differ from the control with confidence: `Other metrics of large: cost per call +141 %, worse.` */
function otherMetricLines({ variants, experiment, verdict }: Results): string[] {
  if (verdict === 'EXPERIMENT_VERDICT_SAMPLE_RATIO_MISMATCH') return [];
  return variants.flatMap(({ variant, metrics }) => {
    const parts = metrics.flatMap(({ metric, view, difference }) => {
      const isOther =
        metric && view === 'RESULT_VIEW_INTENTION_TO_TREAT' && !isSame(metric, experiment?.primary_metric);
      if (!isOther || !difference || !(difference.better || difference.worse)) return [];
      const { value, text } = shownDifference(metric, difference);
      return [`${metricName(metric)} ${signed(value, text)}, ${difference.better ? 'better' : 'worse'}`];
    });
    return parts.length > 0 ? [`Other metrics of ${variant}: ${parts.join('; ')}.`] : [];
  });
}

/** The number of subjects that are still needed by variants that are neither better nor worse with confidence. */
function missingLines(results: Results): string[] {
  const { power, experiment, verdict } = results;
  if (verdict === 'EXPERIMENT_VERDICT_SAMPLE_RATIO_MISMATCH') return [];
  // Nothing is assigned any more.
  if (experiment?.state === 'EXPERIMENT_STATE_CONCLUDED') return [];
  if (results.variants.every(({ subjects }) => subjects === 0n)) return [];
  const decided = new Set(
    comparedIn(results)
      .filter(isDecided)
      .map(({ variant }) => variant.variant),
  );
  const effect = `a difference of ${(experiment?.smallest_effect_basis_points ?? 0) / 100} %`;
  return power
    .filter(({ variant }) => !decided.has(variant) && hasWeight(experiment, variant))
    .map((note) => missingFor(note, effect));
}

function missingFor({ variant, needed_subjects, subjects, subjects_per_day, weeks_left }: PowerNote, effect: string) {
  if (needed_subjects === undefined)
    return `${variant}: the number of subjects that are needed to detect ${effect} is not known yet`;
  if (needed_subjects <= subjects)
    return `${variant}: nothing; with ${subjects} subjects, ${effect} would very likely be detected`;
  const count = `${variant}: ${needed_subjects - subjects} more subjects to detect ${effect} (${subjects} of ${needed_subjects} are counted)`;
  if (subjects_per_day === undefined || weeks_left === undefined)
    return `${count}; the time that this takes can be estimated after the first hour`;
  return `${count}: ${durationText(weeks_left)} at ${digits(subjects_per_day, 3)} subjects a day`;
}

const DAYS = 7;

function durationText(weeks: number): string {
  if (weeks * DAYS * 24 < 1) return 'less than an hour';
  if (weeks * DAYS < 1) return `about ${digits(weeks * DAYS * 24, 2)} hours`;
  return weeks < 2 ? `about ${digits(weeks * DAYS, 2)} days` : `about ${digits(weeks, 2)} weeks`;
}

/** Contamination, the sample ratio, guardrails, and attempts of unknown cost. */
const limitingLines = (results: Results): string[] => [
  ...contaminationLines(results),
  ...ratioLines(results),
  ...guardrailLines(results),
  ...results.variants
    .filter(({ unpriced_attempts }) => unpriced_attempts > 0n)
    .map(({ variant, unpriced_attempts }) => {
      const attempts = counted(Number(unpriced_attempts), 'attempt');
      return `Cost: ${attempts} of ${variant} without a known cost are not included.`;
    }),
];

function contaminationLines({ variants }: Results): string[] {
  if (variants.every(({ calls }) => calls === 0n)) return [];
  const rates = variants.filter(({ contamination_rate: rate = 0 }) => rate > 0);
  if (rates.length === 0) return ['Contamination: none; no call was served by a fallback.'];
  const parts = rates.map(
    (one) => `${digits((one.contamination_rate ?? 0) * 100, 3)} % of the calls of ${one.variant}`,
  );
  return [`Contamination: fallbacks served ${parts.join(', ')}. These calls count for the assigned variant.`];
}

function ratioLines({ sample_ratio: ratio }: Results): string[] {
  if (!ratio || ratio.counts.every(({ subjects }) => subjects === 0n)) return [];
  const p = `p = ${digits(ratio.p_value, 2)}`;
  if (!ratio.mismatch) return [`Sample ratio: matches the weights (${p}).`];
  const counts = ratio.counts.map((one) => `${one.variant} ${one.subjects} instead of ${digits(one.expected)}`);
  return [
    `Sample ratio: mismatch (${p}): ${counts.join(', ')} subjects. Calls of a variant are lost or counted wrongly; find the cause before you use the results.`,
  ];
}

function guardrailLines({ guardrails }: Results): string[] {
  if (guardrails.every(({ observed }) => observed === undefined)) return [];
  const violated = guardrails.filter((one) => one.violated);
  if (violated.length === 0) return ['Guardrails: none is violated.'];
  return violated.map(
    ({ guardrail, variant }) => `Guardrail violated: ${guardrail ? guardrailText(guardrail) : ''} by ${variant}.`,
  );
}

/** A word of a shell. */
const quoted = (word: string) => (/^[\w./:@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);

/** The next command. */
function nextLines(results: Results, experiment: Experiment): string[] {
  const { state, name, agent_name } = experiment;
  const command = (verb: string, more = '') =>
    `Next: agentllm experiments ${verb} ${quoted(name)} --agent ${quoted(agent_name)}${more}`;
  const violated = results.guardrails.some((one) => one.violated && hasWeight(experiment, one.variant));
  if (state === 'EXPERIMENT_STATE_DRAFT') return [command('start')];
  if (state === 'EXPERIMENT_STATE_CONCLUDED') return [];
  const winner =
    results.verdict === 'EXPERIMENT_VERDICT_VARIANT_BETTER'
      ? results.better_variants[0]
      : results.verdict === 'EXPERIMENT_VERDICT_CONTROL_BETTER'
        ? nameOfControl(results)
        : undefined;
  if (violated) return [command('conclude', ' --without-winner')];
  if (winner !== undefined) return [command('conclude', ` --winner ${quoted(winner)}`)];
  return state === 'EXPERIMENT_STATE_PAUSED' ? [command('resume')] : [];
}
