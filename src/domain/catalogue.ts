import type { BlockList } from 'node:net';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { Violation } from '../errors.js';
import { limits } from '../limits.js';
import { maxElements } from '../max_elements.js';
import { urlProblem } from './addresses.js';
import { readBaseUrl } from './base_url.js';
import { defaultWireApi, wireApisOf } from './dialects.js';
import { variantHops } from './experiments/variant_models.js';
import { count, flag, list, name, number, oneOf, ownName, text, time } from './fields.js';
import { variableProblem } from './key_choice.js';
import { PARAMETERS } from './parameters.js';
import { applyPatch, type FieldSpecs, type Patch, touches } from './patch.js';
import { priceSchema } from './price_fields.js';
import type { Model, ParameterRule, Provider, TieredRates } from './rows.js';
import type { State } from './state.js';

const noItems = (value: unknown) => Array.isArray(value) && value.length === 0;
const unspecified = (value: unknown) => typeof value === 'string' && value.endsWith('_UNSPECIFIED');
const empty = (value: unknown) => value === '';

const PROVIDER_NAME = /^[a-z0-9][a-z0-9._-]*$/;
const providerName = name(limits.provider)
  .transform((value) => value.toLowerCase())
  .refine((value) => PROVIDER_NAME.test(value), 'must consist of a-z, 0-9, dot, underscore and hyphen');

const envVar = z
  .string()
  .max(100, 'must have at most 100 characters')
  .superRefine((value, context) => {
    const message = variableProblem(value);
    if (message) context.addIssue({ code: 'custom', message });
  });

/** A base URL in its canonical form. */
const baseUrl = name(limits.baseUrl).transform((written, context) => {
  const read = readBaseUrl(written);
  if ('url' in read) return read.url;
  context.addIssue({ code: 'custom', message: read.problem });
  return z.NEVER;
});

const anyValue = number({ min: -1e12, max: 1e12 }).optional();
const parameterRule = z
  .object({
    parameter: oneOf(...PARAMETERS),
    support: oneOf('PARAMETER_SUPPORT_ACCEPTED', 'PARAMETER_SUPPORT_REJECTED', 'PARAMETER_SUPPORT_IGNORED'),
    minimum: anyValue,
    maximum: anyValue,
    allowed_values: list(name(limits.modelName), maxElements['agentllm.v1.ParameterRule.allowed_values']),
    wire_name: text(limits.modelName),
    not_with: list(oneOf(...PARAMETERS), PARAMETERS.length),
    accepted_with_reasoning_effort: list(
      name(limits.reasoningEffort),
      maxElements['agentllm.v1.ParameterRule.accepted_with_reasoning_effort'],
    ),
    required_default: anyValue,
  })
  .refine((r) => (r.minimum ?? -Infinity) <= (r.maximum ?? Infinity), 'must not have its minimum above its maximum')
  .transform(compactRule);

/** A rule as it is stored, without its empty fields. */
function compactRule(rule: object): ParameterRule {
  const fields = Object.entries(rule).filter(([, v]) => v !== undefined && v !== '' && !noItems(v));
  return Object.fromEntries(fields) as unknown as ParameterRule;
}

const maxRules = maxElements['agentllm.v1.Provider.parameter_rules'];
const parameterRules = {
  schema: z
    .array(parameterRule)
    .max(maxRules, `must have at most ${maxRules} entries`)
    .refine(
      (rules) => new Set(rules.map((rule) => rule.parameter)).size === rules.length,
      'must not have two rules for one parameter',
    ),
  cleared: [],
  absent: noItems,
};

/** The fields of a provider that a request can set, by their paths below `provider`. */
export const providerFields: FieldSpecs = {
  display_name: { schema: text(limits.displayName), cleared: null },
  aliases: { schema: list(providerName, maxElements['agentllm.v1.Provider.aliases']), cleared: [], absent: noItems },
  dialect: {
    schema: oneOf('DIALECT_OPENAI', 'DIALECT_OPENAI_COMPATIBLE', 'DIALECT_ANTHROPIC', 'DIALECT_OPENAI_RESPONSES'),
    absent: unspecified,
  },
  wire_api: {
    schema: oneOf('WIRE_API_CHAT_COMPLETIONS', 'WIRE_API_RESPONSES', 'WIRE_API_MESSAGES'),
    cleared: 'WIRE_API_UNSPECIFIED',
    absent: unspecified,
    // A request that changes only the dialect and names the current wire API keeps the wire API.
    appliesUnchanged: true,
  },
  base_url: { schema: baseUrl, absent: empty },
  api_key_env_vars: {
    schema: list(envVar, maxElements['agentllm.v1.Provider.api_key_env_vars']),
    cleared: [],
    absent: noItems,
  },
  enabled: { schema: flag, cleared: true },
  allow_unknown_models: { schema: flag, cleared: true },
  parameter_rules: parameterRules,
};
export const newProviderFields: FieldSpecs = {
  name: { schema: providerName, absent: empty },
  ...providerFields,
};
export const providerOutputOnly = ['name', 'built_in', 'created_at', 'updated_at', 'revision', 'etag'] as const;

/** The fields of a built-in provider that can be changed. Those that determine where a key is sent cannot. */
const BUILT_IN_CHANGEABLE = ['display_name', 'enabled', 'allow_unknown_models', 'aliases'];

export const newProvider = (): Provider => ({
  id: 0,
  name: '',
  display_name: null,
  aliases: [],
  dialect: 'DIALECT_UNSPECIFIED',
  base_url: '',
  api_key_env_vars: [],
  built_in: false,
  enabled: true,
  allow_unknown_models: true,
  parameter_rules: [],
  origin: 'operator',
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 0,
  wire_api: 'WIRE_API_UNSPECIFIED',
});

export function patchProvider(before: Provider, patch: Patch): Provider {
  const row = applyPatch(before, patch, newProviderFields);
  return {
    ...row,
    // By default, unknown models are rejected for built-in providers and accepted for operator-defined ones.
    ...(patch.cleared.has('allow_unknown_models') && { allow_unknown_models: !before.built_in }),
    ...(usesDefaultWireApi(before, row, patch) && { wire_api: defaultWireApi(row.dialect) }),
    origin: 'operator',
  };
}

/** A new dialect has its default wire API, unless the request names another one. */
const usesDefaultWireApi = (before: Provider, row: Provider, patch: Patch): boolean =>
  patch.cleared.has('wire_api') || (row.dialect !== before.dialect && !touches(patch, 'wire_api'));

/** The fields of a patch that cannot be changed on a built-in provider. */
export const fixedFields = (patch: Patch, before: Provider, row: Provider): string[] =>
  Object.keys(providerFields).filter(
    (field) => touches(patch, field) && !BUILT_IN_CHANGEABLE.includes(field) && !isSame(before, row, field),
  );

const isSame = (before: Provider, row: Provider, field: string): boolean =>
  isDeepStrictEqual(before[field as keyof Provider], row[field as keyof Provider]);

/** All violations of a provider's new values, except the uniqueness of its name. */
export function checkProvider(state: State, row: Provider, patch: Patch, allowed: BlockList): Violation[] {
  const problems: Violation[] = [];
  const report = (field: string, description: string | undefined) => {
    if (description && !patch.invalid.has(field)) problems.push({ field: `provider.${field}`, description });
  };
  if (row.name === '') report('name', 'is required');
  if (row.dialect === 'DIALECT_UNSPECIFIED') report('dialect', 'is required');
  else if (touches(patch, 'dialect', 'wire_api')) report('wire_api', wireApiProblem(row));
  if (row.base_url === '') report('base_url', 'is required');
  else if (touches(patch, 'base_url')) report('base_url', urlProblem(row.base_url, allowed));
  if (touches(patch, 'aliases')) {
    report('aliases', row.aliases.includes(row.name) ? 'must not have the name itself' : undefined);
  }
  if (touches(patch, 'api_key_env_vars') && !row.built_in) {
    const builtIn = [...state.providersInOrder.after()].filter((p) => p.built_in);
    const builtInVariable = row.api_key_env_vars.find((v) => builtIn.some((p) => p.api_key_env_vars.includes(v)));
    report(
      'api_key_env_vars',
      builtInVariable && `must not have ${builtInVariable}: that key is sent to its own provider only`,
    );
  }
  return problems;
}

function wireApiProblem({ dialect, wire_api }: Provider): string | undefined {
  const possible = wireApisOf(dialect);
  return possible.includes(wire_api) ? undefined : `must be ${possible.join(' or ')} for ${dialect}, not ${wire_api}`;
}

const modelOptional = (schema: z.ZodType) => ({ schema, cleared: null });
/** The fields of a model that a request can set, by their paths below `model`. */
export const modelFields: FieldSpecs = {
  display_name: modelOptional(text(limits.displayName)),
  context_window_tokens: modelOptional(count),
  max_output_tokens: modelOptional(count),
  supports_functions: modelOptional(flag),
  supports_vision: modelOptional(flag),
  supports_reasoning: modelOptional(flag),
  supports_forced_tool_choice: modelOptional(flag),
  supports_prefill: modelOptional(flag),
  supports_structured_output: modelOptional(flag),
  parameter_rules: parameterRules,
  price: { schema: priceSchema },
  as_of: modelOptional(time),
  retires_at: modelOptional(time),
  replaced_by: modelOptional(name(limits.modelName)),
};
export const newModelFields: FieldSpecs = {
  provider: { schema: name(limits.provider), absent: empty },
  name: { schema: ownName(limits.modelName), absent: empty },
  ...modelFields,
};
export const modelOutputOnly = [
  'provider',
  'name',
  'built_in',
  'created_at',
  'updated_at',
  'revision',
  'etag',
] as const;

export const newModel = (): Model => ({
  id: 0,
  provider: '',
  name: '',
  display_name: null,
  context_window_tokens: null,
  max_output_tokens: null,
  supports_functions: null,
  supports_vision: null,
  supports_reasoning: null,
  supports_forced_tool_choice: null,
  supports_prefill: null,
  supports_structured_output: null,
  parameter_rules: [],
  as_of: null,
  retires_at: null,
  replaced_by: null,
  built_in: false,
  origin: 'operator',
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 0,
});

/** Rates as they are stored: an absent rate is unknown (null). */
export const ratesOf = (rates: Partial<TieredRates>): TieredRates => ({
  input_micro_usd_per_million: rates.input_micro_usd_per_million ?? null,
  cached_input_micro_usd_per_million: rates.cached_input_micro_usd_per_million ?? null,
  cache_write_micro_usd_per_million: rates.cache_write_micro_usd_per_million ?? null,
  output_micro_usd_per_million: rates.output_micro_usd_per_million ?? null,
  reasoning_micro_usd_per_million: rates.reasoning_micro_usd_per_million ?? null,
  cache_write_long_micro_usd_per_million: rates.cache_write_long_micro_usd_per_million ?? null,
  tiers: rates.tiers ?? [],
  windows: rates.windows ?? [],
});

export function patchModel(before: Model, patch: Patch): Model {
  const { price: _, ...row } = applyPatch(before, patch, newModelFields) as Model & { price?: unknown };
  return { ...row, origin: 'operator' };
}

/** All violations of a model's new values. */
export function checkModel(row: Model, patch: Patch): Violation[] {
  const problems: Violation[] = [];
  for (const field of ['provider', 'name'] as const)
    if (row[field] === '' && !patch.invalid.has(field))
      problems.push({ field: `model.${field}`, description: 'is required' });
  return problems;
}

/**
 * The number of configs, agents, experiments and credentials that name a provider, or of configs, agents and experiments
 * that name a model.
 */
export function usersOf(state: State, provider: string, model?: string): number {
  const uses = (p: string | null, m: string | null) => p === provider && (model === undefined || m === model);
  let users = 0;
  for (const config of state.configs.values())
    if (uses(config.provider, config.model_name) || uses(config.fallback_provider, config.fallback_model)) users++;
  if (model === undefined)
    for (const credential of state.credentials.values()) if (credential.provider === provider) users++;
  for (const agent of state.agents.values()) if (uses(agent.llm_provider, agent.llm_model)) users++;
  for (const experiment of state.experiments.inOrder.after())
    if (variantHops(state, experiment).some((hop) => uses(hop.provider, hop.model_name))) users++;
  return users;
}
