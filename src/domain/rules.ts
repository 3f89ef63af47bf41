import type { Config, ExtraParams, Model, ParameterRule, Provider } from './rows.js';

/** The parameters that go to a provider, by the names that rules use. */
export const PARAMETERS = [
  'temperature',
  'top_p',
  'max_tokens',
  'reasoning_effort',
  'thinking_budget_tokens',
  'stop_sequences',
  'seed',
] as const;
export type Parameter = (typeof PARAMETERS)[number];
export type ParameterValue = number | string | readonly string[];
export type ParameterValues = { readonly [P in Parameter]?: ParameterValue };

/** Where a parameter stands in a config, for field paths. */
export const fieldOf = (parameter: Parameter): string =>
  parameter === 'temperature' || parameter === 'top_p' || parameter === 'max_tokens'
    ? parameter
    : `extra_params.${parameter}`;

type WithParameters = Pick<Config, 'temperature' | 'top_p' | 'max_tokens'> & {
  readonly extra_params: ExtraParams | null;
};

/** The parameters that a config sets. */
export function parametersOf(config: WithParameters): ParameterValues {
  const { reasoning_effort, thinking_budget_tokens, stop_sequences, seed } = config.extra_params ?? {};
  const all = {
    temperature: config.temperature,
    top_p: config.top_p,
    max_tokens: config.max_tokens,
    reasoning_effort,
    thinking_budget_tokens,
    stop_sequences: stop_sequences?.length ? stop_sequences : undefined,
    seed,
  };
  return Object.fromEntries(Object.entries(all).filter(([, v]) => v !== null && v !== undefined));
}

/** What a model, known or not, does with a parameter: its own rule, else its provider's. */
export function ruleFor(
  provider: Provider | undefined,
  model: Model | undefined,
  parameter: Parameter,
): ParameterRule | undefined {
  const named = (rule: ParameterRule) => rule.parameter === parameter;
  const rule = model?.parameter_rules.find(named) ?? provider?.parameter_rules.find(named);
  if (parameter !== 'max_tokens' || model?.max_output_tokens == null) return rule;
  // The output cap of the model bounds max_tokens without a rule of its own.
  const maximum = Math.min(rule?.maximum ?? Number.POSITIVE_INFINITY, model.max_output_tokens);
  return { support: 'PARAMETER_SUPPORT_ACCEPTED', ...rule, parameter, maximum };
}

/** Whether a rule lets a parameter through, given the other parameters. */
export function accepts(rule: ParameterRule | undefined, values: ParameterValues): boolean {
  if (!rule || rule.support === 'PARAMETER_SUPPORT_ACCEPTED') return true;
  const effort = values.reasoning_effort;
  return typeof effort === 'string' && (rule.accepted_with_reasoning_effort?.includes(effort) ?? false);
}

/** Why a value is outside of what a model takes, or undefined; a parameter that is left out has no range. */
export function rangeProblem(
  rule: ParameterRule | undefined,
  value: unknown,
  values: ParameterValues,
  model: string,
): string | undefined {
  if (!rule || !accepts(rule, values)) return undefined;
  // A thinking budget of 0 is no budget: it switches thinking off.
  if (rule.parameter === 'thinking_budget_tokens' && value === 0) return undefined;
  if (typeof value === 'number') {
    if (rule.maximum !== undefined && value > rule.maximum)
      return `must be at most ${rule.maximum} for ${model}, not ${value}`;
    if (rule.minimum !== undefined && value < rule.minimum)
      return `must be at least ${rule.minimum} for ${model}, not ${value}`;
  }
  if (typeof value === 'string' && rule.allowed_values?.length && !rule.allowed_values.includes(value))
    return `must be one of ${rule.allowed_values.join(', ')} for ${model}, not ${JSON.stringify(value)}`;
  return undefined;
}
