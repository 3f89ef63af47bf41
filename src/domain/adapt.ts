import type { FindingReason } from '../../gen/ts/agentllm/v1/finding.js';
import { WIRE_APIS } from './dialects.js';
import { PARAMETERS, type Parameter, type ParameterValue, type ParameterValues } from './parameters.js';
import type { Model, Provider } from './rows.js';
import { accepts, type EffectiveRule, isOff, ruleFor } from './rules.js';

/** A value in the form in which it is sent. */
export type WireValue = ParameterValue | Readonly<Record<string, string | number>>;

/** One parameter as it is sent. */
export interface SentParameter {
  readonly name: Parameter;
  /** Its name in the body of the request; a dot separates the names of nested objects. */
  readonly wire_name: string;
  readonly value: WireValue;
}

/** One parameter that is not sent as it was configured. */
export interface Adaptation {
  readonly parameter: Parameter;
  readonly reason: FindingReason;
  /** undefined: not set. */
  readonly configured: ParameterValue | undefined;
  /** undefined: left out. */
  readonly effective: ParameterValue | undefined;
  readonly because: string;
}

/** What is configured, with what there is to know of its parameters. */
interface Configured {
  readonly values: ParameterValues;
  readonly ruleOf: (parameter: Parameter) => EffectiveRule | undefined;
  /** The wire API, as messages name it. */
  readonly api: string;
}

/** A parameter with the value that would be sent if it were the only one. */
interface Candidate {
  readonly parameter: Parameter;
  readonly rule: EffectiveRule | undefined;
  readonly configured: ParameterValue | undefined;
  /** undefined: not sent. */
  readonly value: ParameterValue | undefined;
  readonly change: Pick<Adaptation, 'reason' | 'because'> | undefined;
}

/**
 * Fits parameters to a model (runtime.md, "Adaptation"): what the model or its wire API does not accept is left out, what
 * is outside its range becomes the nearest allowed value, and what it needs is filled in. Every difference is reported; 0
 * is a value like any other.
 */
export function adapt(
  provider: Provider | undefined,
  model: Model | undefined,
  values: ParameterValues,
): { sent: SentParameter[]; adaptations: Adaptation[] } {
  const api = WIRE_APIS[provider?.dialect ?? 'DIALECT_UNSPECIFIED'] ?? 'the API of its provider';
  const settled = settle({ values, ruleOf: (parameter) => ruleFor(provider, model, parameter), api });
  return {
    sent: settled.flatMap(({ parameter, rule, value }) =>
      value === undefined
        ? []
        : [{ name: parameter, wire_name: rule?.wire_name || parameter, value: wireValue(rule, value) }],
    ),
    adaptations: settled.flatMap(({ parameter, configured, value, change }) =>
      change ? [{ parameter, configured, effective: value, ...change }] : [],
    ),
  };
}

/** Every parameter with what is sent of it, together with the others. */
function settle(parameters: Configured): readonly Candidate[] {
  const effort = alone(parameters, 'reasoning_effort', undefined);
  return resolveConflicts(makeRoom(PARAMETERS.map((parameter) => alone(parameters, parameter, effort.value))));
}

const isEffort = ({ parameter }: Candidate) => parameter === 'reasoning_effort';

/** A parameter on its own: support, range and required value. */
function alone(
  { ruleOf, values, api }: Configured,
  parameter: Parameter,
  effort: ParameterValue | undefined,
): Candidate {
  const rule = ruleOf(parameter);
  const configured = values[parameter];
  const outcome = (value?: ParameterValue, reason?: FindingReason, because = ''): Candidate => {
    const change = reason && { reason, because };
    return { parameter, rule, configured, value, change };
  };
  if (!rule) return outcome(configured);
  if (configured === undefined) {
    if (rule.required_default === undefined) return outcome();
    const value = clamp(rule, rule.required_default);
    return outcome(value, 'FINDING_REASON_PARAMETER_REQUIRED', 'the model needs a value');
  }
  if (!accepts(rule, effort)) {
    if (rule.support === 'PARAMETER_SUPPORT_IGNORED')
      return outcome(undefined, 'FINDING_REASON_PARAMETER_IGNORED', 'the model ignores it');
    const because = rule.layer === 'dialect' ? `${api} has no such parameter` : 'the model rejects it';
    return outcome(undefined, 'FINDING_REASON_PARAMETER_REJECTED', because);
  }
  const nearest = clamp(rule, configured);
  if (nearest === configured) return outcome(configured);
  return outcome(nearest, 'FINDING_REASON_PARAMETER_CLAMPED', `the model accepts ${rangeText(rule)}`);
}

/** A required default leaves room for a parameter that has to be less, such as a thinking budget. */
function makeRoom(candidates: readonly Candidate[]): Candidate[] {
  return candidates.map((candidate) => {
    const { parameter, rule, configured, value } = candidate;
    const inside = candidates.find((one) => one.rule?.less_than === parameter)?.value;
    if (!rule || configured !== undefined || typeof value !== 'number' || typeof inside !== 'number') return candidate;
    return { ...candidate, value: clamp(rule, value + inside) };
  });
}

/**
 * Leaves out parameters that the model does not accept together with others. A parameter yields to those in its rule's
 * `not_with`, so those are looked at first; where rules form a circle, the order of PARAMETERS decides. The reasoning
 * effort is kept before all others, because whether they are accepted depends on it. Only what is kept counts: what is
 * left out itself rules nothing out.
 */
function resolveConflicts(candidates: readonly Candidate[]): Candidate[] {
  const rivals = new Map<Candidate, Candidate>();
  const on = candidates.filter(({ parameter, value }) => value !== undefined && !isOff(parameter, value));
  const kept = on.filter(isEffort);
  const waiting = on.filter((one) => !isEffort(one));
  while (waiting.length > 0) {
    const free = waiting.findIndex((one) => !waiting.some((other) => yieldsTo(one, other)));
    const [next] = waiting.splice(Math.max(free, 0), 1) as [Candidate];
    const rival = kept.find((one) => yieldsTo(next, one) || yieldsTo(one, next));
    if (rival) rivals.set(next, rival);
    else kept.push(next);
  }
  return candidates.map((candidate) => {
    const rival = rivals.get(candidate);
    return rival ? leftOutFor(rival, candidate) : candidate;
  });
}

const yieldsTo = (one: Candidate, other: Candidate): boolean =>
  one !== other && ((one.rule?.not_with?.includes(other.parameter) ?? false) || isBeyond(one, other));

/** Whether a parameter is not less than the one that bounds it. */
const isBeyond = ({ rule, value }: Candidate, bound: Candidate): boolean =>
  rule?.less_than === bound.parameter &&
  typeof value === 'number' &&
  typeof bound.value === 'number' &&
  value >= bound.value;

function leftOutFor(rival: Candidate, candidate: Candidate): Candidate {
  const because = isBeyond(candidate, rival)
    ? `it must be less than ${rival.parameter}, which is ${rival.value}`
    : `the model does not accept it together with ${rival.parameter}`;
  // A default that is not sent is no change of what was configured.
  const change = { reason: 'FINDING_REASON_PARAMETER_CONFLICT', because } as const;
  return { ...candidate, value: undefined, change: candidate.configured === undefined ? undefined : change };
}

/** The nearest value that a rule allows. A word that is not allowed has none, and neither has "off" below a minimum. */
function clamp(rule: EffectiveRule, value: ParameterValue): ParameterValue | undefined {
  const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY, allowed_values } = rule;
  if (isOff(rule.parameter, value)) return rule.object || minimum <= 0 ? value : undefined;
  if (typeof value === 'number') return Math.min(Math.max(value, minimum), maximum);
  if (typeof value === 'string') return !allowed_values?.length || allowed_values.includes(value) ? value : undefined;
  return value.length > maximum ? value.slice(0, Math.max(maximum, 0)) : value;
}

/** What a rule allows, in words. */
function rangeText({ parameter, minimum, maximum, allowed_values }: EffectiveRule): string {
  if (allowed_values?.length) return allowed_values.join(', ');
  const unit = parameter === 'stop_sequences' ? ' entries' : '';
  if (minimum === undefined) return `at most ${maximum}${unit}`;
  return maximum === undefined ? `at least ${minimum}${unit}` : `${minimum} to ${maximum}${unit}`;
}

function wireValue(rule: EffectiveRule | undefined, value: ParameterValue): WireValue {
  const { object } = rule ?? {};
  if (!object || typeof value !== 'number') return value;
  return value === 0 ? object.zero : { ...object.constants, [object.member]: value };
}
