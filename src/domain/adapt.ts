import type { FindingReason } from '../../gen/ts/agentllm/v1/finding.js';
import type { Model, ParameterRule, Provider } from './rows.js';
import { accepts, PARAMETERS, type Parameter, type ParameterValue, type ParameterValues, ruleFor } from './rules.js';

/** One parameter as it is sent. */
export interface SentParameter {
  readonly name: Parameter;
  readonly wire_name: string;
  readonly value: ParameterValue;
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

/**
 * Fits parameters to a model (runtime.md, "Adaptation"): what the model refuses
 * or ignores is left out, what is outside of its range becomes the nearest
 * allowed value, and what it needs is filled in. Every difference is reported;
 * 0 is a value like any other.
 */
export function adapt(
  provider: Provider | undefined,
  model: Model | undefined,
  values: ParameterValues,
): { sent: SentParameter[]; adaptations: Adaptation[] } {
  const sent: SentParameter[] = [];
  const adaptations: Adaptation[] = [];
  const ruleOf = (parameter: string) => ruleFor(provider, model, parameter as Parameter);
  for (const parameter of PARAMETERS) {
    const configured = values[parameter];
    const change = changeFor(parameter, ruleOf, configured, values);
    if (change) adaptations.push(change);
    const value = change ? change.effective : configured;
    if (value !== undefined)
      sent.push({ name: parameter, wire_name: ruleOf(parameter)?.wire_name || parameter, value });
  }
  return { sent, adaptations };
}

function changeFor(
  parameter: Parameter,
  ruleOf: (parameter: string) => ParameterRule | undefined,
  configured: ParameterValue | undefined,
  values: ParameterValues,
): Adaptation | undefined {
  const rule = ruleOf(parameter);
  if (!rule) return undefined;
  const change = (reason: FindingReason, effective: ParameterValue | undefined, because: string): Adaptation => ({
    parameter,
    reason,
    configured,
    effective,
    because,
  });
  if (configured === undefined) {
    if (rule.required_default === undefined) return undefined;
    return change('FINDING_REASON_PARAMETER_REQUIRED', clamp(rule, rule.required_default), 'it needs one');
  }
  if (!accepts(rule, values))
    return rule.support === 'PARAMETER_SUPPORT_IGNORED'
      ? change('FINDING_REASON_PARAMETER_IGNORED', undefined, 'it ignores it')
      : change('FINDING_REASON_PARAMETER_REJECTED', undefined, 'it refuses it');
  const rival = rule.not_with?.find((other) => isOn(other, values) && accepts(ruleOf(other), values));
  if (rival) return change('FINDING_REASON_PARAMETER_CONFLICT', undefined, `it does not take it with ${rival}`);
  const nearest = clamp(rule, configured);
  if (nearest === configured) return undefined;
  return change('FINDING_REASON_PARAMETER_CLAMPED', nearest, `it is outside of what it takes`);
}

/** A thinking budget of 0 switches thinking off, so it rules nothing out. */
const isOn = (parameter: string, values: ParameterValues) => {
  const value = values[parameter as Parameter];
  return value !== undefined && !(parameter === 'thinking_budget_tokens' && value === 0);
};

/** The nearest allowed value; a word that is not allowed has none and is left out, and so does "off". */
function clamp(rule: ParameterRule, value: ParameterValue): ParameterValue | undefined {
  if (rule.parameter === 'thinking_budget_tokens' && value === 0 && (rule.minimum ?? 0) > 0) return undefined;
  if (typeof value === 'number')
    return Math.min(Math.max(value, rule.minimum ?? value), rule.maximum ?? Number.POSITIVE_INFINITY);
  if (typeof value === 'string' && rule.allowed_values?.length && !rule.allowed_values.includes(value))
    return undefined;
  return value;
}
