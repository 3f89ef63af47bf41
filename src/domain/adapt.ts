import type { FindingReason } from '../../gen/ts/agentllm/v1/finding.js';
import { apiName } from './dialects.js';
import { PARAMETERS, type Parameter, type ParameterValue, type ParameterValues } from './parameters.js';
import type { Model, Provider } from './rows.js';
import { accepts, type EffectiveRule, isOff, ruleFor } from './rules.js';

/** A value as it appears in the request body. */
export type WireValue = ParameterValue | Readonly<Record<string, string | number>>;

/** One parameter as it is sent. */
export interface SentParameter {
  readonly name: Parameter;
  /** Its name in the body of the request; a dot separates the names of nested objects. */
  readonly wire_name: string;
  readonly value: WireValue;
}

/** One parameter whose sent value differs from the configured one. */
export interface Adaptation {
  readonly parameter: Parameter;
  readonly reason: FindingReason;
  /** undefined: not set. */
  readonly configured: ParameterValue | undefined;
  /** undefined: left out. */
  readonly effective: ParameterValue | undefined;
  readonly because: string;
}

/** The configured parameters, and the rules that apply to them. */
interface Configured {
  readonly values: ParameterValues;
  readonly ruleOf: (parameter: Parameter) => EffectiveRule | undefined;
  /** The name of the wire API, for messages. */
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
 * Adapts parameters to a model. A parameter that the model or its wire API does not accept is left out, a value outside
 * the range becomes the nearest allowed value, and a required parameter gets its default. Every difference is reported.
 * 0 is a value, not an absent one.
 */
export function adapt(
  provider: Provider | undefined,
  model: Model | undefined,
  values: ParameterValues,
): { sent: SentParameter[]; adaptations: Adaptation[] } {
  const api = (provider && apiName(provider)) ?? 'the API of its provider';
  const adapted = adaptAll({ values, ruleOf: (parameter) => ruleFor(provider, model, parameter), api });
  return {
    sent: adapted.flatMap(({ parameter, rule, value }) =>
      value === undefined
        ? []
        : [{ name: parameter, wire_name: rule?.wire_name || parameter, value: wireValue(rule, value) }],
    ),
    adaptations: adapted.flatMap(({ parameter, configured, value, change }) =>
      change ? [{ parameter, configured, effective: value, ...change }] : [],
    ),
  };
}

/** Adapts each parameter separately, then resolves the conflicts between them. */
function adaptAll(parameters: Configured): readonly Candidate[] {
  const effort = adaptOne(parameters, 'reasoning_effort', undefined);
  const candidates = PARAMETERS.map((parameter) => adaptOne(parameters, parameter, effort.value));
  return resolveConflicts(raiseDefaults(candidates));
}

const isEffort = ({ parameter }: Candidate) => parameter === 'reasoning_effort';

/** Adapts one parameter: support, range and required value. */
function adaptOne(
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
    return outcome(value, 'FINDING_REASON_PARAMETER_REQUIRED', 'the model requires a value');
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

/** Raises a required default above a parameter that must be less than it, such as a thinking budget. */
function raiseDefaults(candidates: readonly Candidate[]): Candidate[] {
  return candidates.map((candidate) => {
    const { parameter, rule, configured, value } = candidate;
    const lowerValue = candidates.find((other) => other.rule?.less_than === parameter)?.value;
    if (!rule || configured !== undefined || typeof value !== 'number' || typeof lowerValue !== 'number')
      return candidate;
    return { ...candidate, value: clamp(rule, value + lowerValue) };
  });
}

/**
 * Leaves out parameters that the model does not accept together with other ones. The parameters in the `not_with` of a
 * rule have precedence over its parameter, so they are processed first; in a cycle of rules the order of PARAMETERS
 * decides. The reasoning effort always has precedence, because the acceptance of other parameters depends on it. A
 * parameter that is left out does not exclude other ones.
 */
function resolveConflicts(candidates: readonly Candidate[]): Candidate[] {
  const conflicts = new Map<Candidate, Candidate>();
  const enabled = candidates.filter(({ parameter, value }) => value !== undefined && !isOff(parameter, value));
  const kept = enabled.filter(isEffort);
  const waiting = enabled.filter((one) => !isEffort(one));
  while (waiting.length > 0) {
    const nextIndex = waiting.findIndex((one) => !waiting.some((other) => yieldsTo(one, other)));
    const [next] = waiting.splice(Math.max(nextIndex, 0), 1) as [Candidate];
    const conflict = kept.find((one) => yieldsTo(next, one) || yieldsTo(one, next));
    if (conflict) conflicts.set(next, conflict);
    else kept.push(next);
  }
  return candidates.map((candidate) => {
    const conflict = conflicts.get(candidate);
    return conflict ? leftOutFor(conflict, candidate) : candidate;
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

function leftOutFor(kept: Candidate, candidate: Candidate): Candidate {
  const because = isBeyond(candidate, kept)
    ? `it must be less than ${kept.parameter}, which is ${kept.value}`
    : `the model does not accept it together with ${kept.parameter}`;
  // Leaving out a default does not change a configured value, so it is not reported.
  const change = { reason: 'FINDING_REASON_PARAMETER_CONFLICT', because } as const;
  return { ...candidate, value: undefined, change: candidate.configured === undefined ? undefined : change };
}

/** The nearest value that a rule allows; undefined for a word that is not allowed and for "off" below a minimum. */
function clamp(rule: EffectiveRule, value: ParameterValue): ParameterValue | undefined {
  const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY, allowed_values } = rule;
  if (isOff(rule.parameter, value)) return rule.object || minimum <= 0 ? value : undefined;
  if (typeof value === 'number') return Math.min(Math.max(value, minimum), maximum);
  if (typeof value === 'string') return !allowed_values?.length || allowed_values.includes(value) ? value : undefined;
  return value.length > maximum ? value.slice(0, Math.max(maximum, 0)) : value;
}

/** The values that a rule allows, as text. */
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
