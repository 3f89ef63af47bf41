import { type DialectRule, dialectRule } from './dialects.js';
import type { Parameter, ParameterValue, ParameterValues } from './parameters.js';
import type { Model, ParameterRule, Provider } from './rows.js';

/** The effective rule for a parameter, and the layer that it comes from. */
export interface EffectiveRule extends ParameterRule, Pick<DialectRule, 'object' | 'less_than'> {
  readonly layer: 'model' | 'provider' | 'dialect';
}

/**
 * The rule for a parameter of a model: that of the model, if it is known, else of the provider, else of the dialect.
 */
export function ruleFor(
  provider: Provider | undefined,
  model: Model | undefined,
  parameter: Parameter,
): EffectiveRule | undefined {
  const rule = layeredRule(provider, model, parameter);
  if (parameter !== 'max_tokens' || model?.max_output_tokens == null) return rule;
  // The output limit of the model bounds max_tokens without a separate rule.
  const maximum = Math.min(rule?.maximum ?? Number.POSITIVE_INFINITY, model.max_output_tokens);
  return { support: 'PARAMETER_SUPPORT_ACCEPTED', layer: 'model', ...rule, parameter, maximum };
}

function layeredRule(
  provider: Provider | undefined,
  model: Model | undefined,
  parameter: Parameter,
): EffectiveRule | undefined {
  const isFor = (rule: ParameterRule) => rule.parameter === parameter;
  const dialect = provider && dialectRule(provider, parameter);
  const ofModel = model?.parameter_rules.find(isFor);
  const ofProvider = provider?.parameter_rules.find(isFor);
  if (ofModel) return { ...ofModel, ...wireOf(ofModel, dialect), layer: 'model' };
  if (ofProvider) return { ...ofProvider, ...wireOf(ofProvider, dialect), layer: 'provider' };
  return dialect && { ...dialect, parameter, layer: 'dialect' };
}

/** How a parameter is sent: the dialect applies unless the rule has a wire name outside the dialect's object. */
function wireOf(rule: ParameterRule, dialect: DialectRule | undefined) {
  if (!dialect) return {};
  const { object, wire_name = '', less_than } = dialect;
  const isOwn = Boolean(rule.wire_name) && !(object && `${rule.wire_name}.`.startsWith(`${wire_name}.`));
  const required_default = rule.required_default ?? dialect.required_default;
  return {
    ...(required_default !== undefined && { required_default }),
    ...(less_than && { less_than }),
    ...(isOwn ? {} : { wire_name, ...(object && { object }) }),
  };
}

/** Whether a rule accepts a parameter, given the reasoning effort that is sent. */
export function accepts(rule: ParameterRule | undefined, effort: ParameterValue | undefined): boolean {
  if (!rule || rule.support === 'PARAMETER_SUPPORT_ACCEPTED') return true;
  return typeof effort === 'string' && (rule.accepted_with_reasoning_effort?.includes(effort) ?? false);
}

/** Whether a value disables a parameter: a thinking budget of 0 means no thinking. */
export const isOff = (parameter: string, value: unknown): boolean =>
  parameter === 'thinking_budget_tokens' && value === 0;

/** Why a model does not accept a value, or undefined. A parameter that is left out has no range. */
export function rangeProblem(
  rule: EffectiveRule | undefined,
  value: unknown,
  values: ParameterValues,
  model: string,
): string | undefined {
  if (!rule || !accepts(rule, values.reasoning_effort) || isOff(rule.parameter, value)) return undefined;
  const { maximum = Number.POSITIVE_INFINITY, minimum = Number.NEGATIVE_INFINITY, allowed_values, less_than } = rule;
  if (typeof value === 'number') {
    if (value > maximum) return `must be at most ${maximum} for ${model}, not ${value}`;
    if (value < minimum) return `must be at least ${minimum} for ${model}, not ${value}`;
    const bound = less_than && values[less_than];
    if (typeof bound === 'number' && value >= bound)
      return `must be less than ${less_than}, which is ${bound}, for ${model}, not ${value}`;
  }
  if (Array.isArray(value) && value.length > maximum)
    return `must have at most ${maximum} entries for ${model}, not ${value.length}`;
  if (typeof value === 'string' && allowed_values?.length && !allowed_values.includes(value))
    return `must be one of ${allowed_values.join(', ')} for ${model}, not ${JSON.stringify(value)}`;
  return undefined;
}
