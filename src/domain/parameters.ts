import type { Config, ExtraParams } from './rows.js';

/** The parameters that are sent to a provider, by the names that rules use. */
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

/** The field path of a parameter in a config. */
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
