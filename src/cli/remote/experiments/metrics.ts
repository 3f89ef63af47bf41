import type {
  ExperimentMetric,
  ExperimentMetricKind,
  Guardrail,
  MetricDirection,
} from '../../../../gen/ts/agentllm/v1/experiment.js';
import { BadValue, type Kind } from '../../kit/values.js';

/* Metrics and guardrails: their syntax on the command line, and the output of their values. */

type Facts = {
  readonly name: string;
  /** Further names on the command line. */
  readonly aliases: readonly string[];
  /** The units of an absolute margin, with the factor to the unit of the contract. */
  readonly units: Readonly<Record<string, number>>;
};

const NANO = 1e9;

const METRICS: Readonly<Partial<Record<ExperimentMetricKind, Facts>>> = {
  EXPERIMENT_METRIC_KIND_SUCCESS_RATE: { name: 'success rate', aliases: ['success'], units: { pp: 0.01 } },
  EXPERIMENT_METRIC_KIND_ERROR_RATE: { name: 'error rate', aliases: ['errors'], units: { pp: 0.01 } },
  EXPERIMENT_METRIC_KIND_COST_PER_CALL: { name: 'cost per call', aliases: ['cost'], units: { usd: NANO } },
  EXPERIMENT_METRIC_KIND_LATENCY_MEAN: {
    name: 'mean latency',
    aliases: ['latency', 'latency mean'],
    units: { ms: 1, s: 1000 },
  },
  EXPERIMENT_METRIC_KIND_LATENCY_P95: {
    name: 'p95 latency',
    aliases: ['latency p95', 'p95'],
    units: { ms: 1, s: 1000 },
  },
  EXPERIMENT_METRIC_KIND_TOKENS_PER_CALL: { name: 'tokens per call', aliases: ['tokens'], units: { '': 1 } },
};

const OUTCOME_UNITS: Facts['units'] = { '': 1 };
const ONLY_GUARDRAIL: readonly string[] = ['EXPERIMENT_METRIC_KIND_ERROR_RATE', 'EXPERIMENT_METRIC_KIND_LATENCY_P95'];

/** The kind of a metric by its name on the command line; spaces, dashes and underscores are equivalent. */
function kindOf(typed: string): ExperimentMetricKind | undefined {
  const name = typed
    .trim()
    .toLowerCase()
    .replaceAll(/[\s_-]+/g, ' ');
  const found = Object.entries(METRICS).find(([, facts]) => facts.name === name || facts.aliases.includes(name));
  return found?.[0] as ExperimentMetricKind | undefined;
}

const OUTCOME_FORM = 'outcome:NAME:higher or outcome:NAME:lower, where higher or lower states which values are better';

/** A metric: `cost`, `success rate`, `outcome:accuracy:higher`. */
export const metric: Kind = {
  value: 'metric',
  suggestions: ['success-rate', 'cost', 'latency', 'tokens'],
  read(raw): ExperimentMetric {
    if (/^outcome\b/i.test(raw)) {
      const [, outcome, better] = /^outcome[ :](.+)[ :](higher|lower)$/i.exec(raw) ?? [];
      if (!outcome || !better) throw new BadValue(`must be ${OUTCOME_FORM}`);
      const direction = `METRIC_DIRECTION_${better.toUpperCase()}_IS_BETTER` as MetricDirection;
      return { kind: 'EXPERIMENT_METRIC_KIND_OUTCOME', outcome, direction };
    }
    const kind = kindOf(raw);
    if (!kind) throw new BadValue(`must be success-rate, cost, latency, tokens, ${OUTCOME_FORM}`);
    if (ONLY_GUARDRAIL.includes(kind)) throw new BadValue('is only for guardrails; use success-rate or latency');
    return { kind, outcome: '', direction: 'METRIC_DIRECTION_UNSPECIFIED' };
  },
};

const GUARDRAIL_FORM =
  'must have the form "error rate +2%", "p95 latency +500ms", "cost +0.002usd" or "outcome:NAME -5%"';

/** A guardrail: a metric, the direction in which it becomes worse, and the margin. */
export const guardrail: Kind = {
  value: 'guardrail',
  read(raw): Guardrail {
    const [, name = '', sign, amount, unit = ''] =
      /^(.+?)\s*([+-])\s*(\d+(?:\.\d+)?)\s*(%|[a-z]*)$/i.exec(raw.trim()) ?? [];
    if (amount === undefined) throw new BadValue(GUARDRAIL_FORM);
    const [, outcome] = /^outcome[ :](.+)$/i.exec(name) ?? [];
    const guarded = outcome ? guardedOutcome(outcome, sign === '+') : guardedCalls(name, sign === '+');
    return { metric: guarded, ...marginOf(guarded, amount, unit.toLowerCase()) };
  },
};

const guardedOutcome = (outcome: string, worseIsHigher: boolean): ExperimentMetric => ({
  kind: 'EXPERIMENT_METRIC_KIND_OUTCOME',
  outcome,
  direction: worseIsHigher ? 'METRIC_DIRECTION_LOWER_IS_BETTER' : 'METRIC_DIRECTION_HIGHER_IS_BETTER',
});

function guardedCalls(name: string, worseIsHigher: boolean): ExperimentMetric {
  const kind = kindOf(name);
  if (!kind) throw new BadValue(GUARDRAIL_FORM);
  if (kind === 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE')
    throw new BadValue('cannot be a guardrail; use the error rate, such as "error rate +2pp"');
  if (!worseIsHigher) throw new BadValue(`must have a +, because a higher ${METRICS[kind]?.name} is worse`);
  return { kind, outcome: '', direction: 'METRIC_DIRECTION_UNSPECIFIED' };
}

function marginOf({ kind }: ExperimentMetric, amount: string, unit: string): Omit<Guardrail, 'metric'> {
  if (unit === '%') {
    if (!/^\d+(\.\d{1,2})?$/.test(amount)) throw new BadValue('must be a percentage with at most 2 decimal places');
    return { relative_margin_basis_points: Math.round(Number(amount) * 100) };
  }
  const units = METRICS[kind]?.units ?? OUTCOME_UNITS;
  const factor = units[unit];
  if (factor === undefined) {
    const allowed = Object.keys(units).map((one) => (one === '' ? 'no unit' : one));
    throw new BadValue(`must have a margin in % of the control, or in ${allowed.join(' or ')}`);
  }
  return { absolute_margin: Number(amount) * factor };
}

/** `cost per call`, `outcome accuracy`. */
export const metricName = ({ kind, outcome }: ExperimentMetric): string => METRICS[kind]?.name ?? `outcome ${outcome}`;

/** `cost per call, lower is better`. */
export const metricTitle = (one: ExperimentMetric): string =>
  `${metricName(one)}, ${one.direction === 'METRIC_DIRECTION_HIGHER_IS_BETTER' ? 'higher' : 'lower'} is better`;

export const isSame = (one: ExperimentMetric, other: ExperimentMetric | undefined): boolean =>
  one.kind === other?.kind && one.outcome === other.outcome;

/** `error rate +2 %` */
export function guardrailText({ metric: guarded, ...margin }: Guardrail): string {
  if (!guarded) return '';
  const sign = guarded.direction === 'METRIC_DIRECTION_HIGHER_IS_BETTER' ? '-' : '+';
  const { relative_margin_basis_points: relative, absolute_margin: absolute } = margin;
  const amount = relative === undefined ? amountText(guarded, absolute ?? 0) : `${relative / 100} %`;
  return `${metricName(guarded)} ${sign}${amount}`;
}

const DIGITS = 4;

/** A number with four significant digits, and without an exponent. */
export function digits(value: number, significant = DIGITS): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const decimals = significant - 1 - Math.floor(Math.log10(Math.abs(value)));
  const rounded = value.toFixed(Math.min(Math.max(decimals, 0), 20));
  return rounded.includes('.') ? rounded.replace(/\.?0+$/, '') : rounded;
}

const isRate = ({ kind }: ExperimentMetric) => METRICS[kind]?.units['pp'] !== undefined;
const isLatency = ({ kind }: ExperimentMetric) => METRICS[kind]?.units['ms'] !== undefined;
const isCost = ({ kind }: ExperimentMetric) => METRICS[kind]?.units['usd'] !== undefined;

/** A value of a metric with its unit: `97.5 %`, `0.000201 USD`, `812 ms`. */
export const valueText = (one: ExperimentMetric, value: number): string =>
  isRate(one) ? `${digits(value * 100)} %` : amountText(one, value);

/** A difference of values with its unit. The difference of two rates is in percentage points. */
export function amountText(one: ExperimentMetric, amount: number): string {
  if (isRate(one)) return `${digits(amount * 100, 3)} pp`;
  if (isLatency(one)) return `${digits(amount, 3)} ms`;
  return isCost(one) ? `${digits(amount / NANO, 3)} USD` : digits(amount, 3);
}

/** Whether differences of this metric are shown relative to the control and not in the unit of the metric. */
export const isRelative = (one: ExperimentMetric): boolean =>
  !isRate(one) && one.kind !== 'EXPERIMENT_METRIC_KIND_OUTCOME';
