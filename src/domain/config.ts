import type { Violation } from '../errors.js';
import { limits } from '../limits.js';
import { maxElements } from '../max_elements.js';
import { count, flag, int64, integer, json, list, name, number, text } from './fields.js';
import { fieldOf, PARAMETERS, type Parameter, parametersOf } from './parameters.js';
import { applyPatch, type FieldSpecs, type Patch, touches } from './patch.js';
import type { Config, ExtraParams, Provider } from './rows.js';
import { accepts, rangeProblem, ruleFor } from './rules.js';
import type { State } from './state.js';
import { nearest, printable } from './text.js';
import { canonicalName } from './view.js';

const fallback = { cleared: null };
const cost = { schema: number(limits.costPer1k), cleared: 0, appliesUnchanged: true };

/** The fields of a config that a request can set, by their paths below `config`. */
export const configFields: FieldSpecs = {
  provider: { schema: name(limits.provider) },
  model_name: { schema: name(limits.modelName) },
  temperature: { schema: number(limits.temperature), cleared: null },
  max_tokens: { schema: count, cleared: null },
  top_p: { schema: number(limits.topP), cleared: null },
  fallback_provider: { schema: name(limits.provider), ...fallback },
  fallback_model: { schema: name(limits.modelName), ...fallback },
  cost_per_1k_input_tokens: cost,
  cost_per_1k_output_tokens: cost,
  price_given: { schema: flag, cleared: false, appliesUnchanged: true },
  enabled: { schema: flag, cleared: true },
  metadata_json: { schema: json('object'), cleared: null },
  priority: { schema: integer(limits.priority), cleared: 0 },
  credential_name: { schema: name(limits.credentialName), cleared: null },
  'extra_params.reasoning_effort': { schema: name(limits.reasoningEffort), cleared: null },
  'extra_params.thinking_budget_tokens': { schema: integer(limits.thinkingBudgetTokens), cleared: null },
  'extra_params.stop_sequences': {
    schema: list(
      text(limits.stopSequence).min(1, 'must not be empty'),
      maxElements['agentllm.v1.ExtraParams.stop_sequences'],
    ),
    cleared: null,
    absent: (value) => Array.isArray(value) && value.length === 0,
  },
  'extra_params.seed': {
    schema: int64({ min: Number.MIN_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER }),
    cleared: null,
  },
  'extra_params.request_timeout_ms': { schema: integer(limits.requestTimeoutMs), cleared: null },
};

export const configOutputOnly = [
  'id',
  'agent_id',
  'agent_name',
  'has_api_key_override',
  'api_key_state',
  'created_at',
  'updated_at',
  'revision',
  'etag',
] as const;

/** A new config with its defaults, before the request is applied. */
export const newConfig = (agentId: number, priority: number): Config => ({
  id: 0,
  agent_id: agentId,
  provider: '',
  model_name: '',
  temperature: 0.7,
  max_tokens: null,
  top_p: null,
  fallback_provider: null,
  fallback_model: null,
  cost_per_1k_input_tokens: 0,
  cost_per_1k_output_tokens: 0,
  price_given: false,
  enabled: true,
  metadata_json: null,
  priority,
  extra_params: null,
  key_id: null,
  key_revision: null,
  credential_id: null,
  created_at: new Date(0),
  updated_at: new Date(0),
  revision: 0,
});

/** Applies a patch to a config: provider names become canonical, extra parameters are merged, `price_given` is set. */
export function patchConfig(state: State, before: Config, patch: Patch): Config {
  const { credential_name, ...row } = applyPatch<Config & { credential_name?: string | null }>(
    before,
    patch,
    configFields,
  );
  const credential = credential_name ? state.credentialNamed(credential_name) : undefined;
  return {
    ...row,
    credential_id: credential_name === undefined ? before.credential_id : (credential?.id ?? null),
    provider: canonicalName(state, row.provider),
    fallback_provider: row.fallback_provider && canonicalName(state, row.fallback_provider),
    extra_params: patchExtraParams(before.extra_params, patch),
    ...price(before, row, patch),
  };
}

function patchExtraParams(before: ExtraParams | null, patch: Patch): ExtraParams | null {
  const next: Record<string, unknown> = { ...before };
  const prefix = 'extra_params.';
  for (const path of patch.cleared) if (path.startsWith(prefix)) delete next[path.slice(prefix.length)];
  for (const [path, value] of Object.entries(patch.set))
    if (path.startsWith(prefix)) next[path.slice(prefix.length)] = value;
  return Object.keys(next).length > 0 ? next : null;
}

const COSTS = ['cost_per_1k_input_tokens', 'cost_per_1k_output_tokens'] as const;

/**
 * Whether the costs are a price. The cost columns, which have the schema of the
 * original Python system, store 0.0 both for "free" and for "not given", so the
 * flag decides. It becomes true when a cost is sent and false when both are
 * cleared.
 */
function price(before: Config, row: Config, patch: Patch): Partial<Config> {
  const sent = COSTS.some((cost) => cost in patch.set);
  if (patch.set['price_given'] === false || (patch.cleared.has('price_given') && !sent))
    return Object.fromEntries([...COSTS.map((cost) => [cost, patch.set[cost] ?? 0]), ['price_given', false]]);
  if (patch.set['price_given'] === true || sent) return { price_given: true };
  if (COSTS.some((cost) => patch.cleared.has(cost))) return { price_given: COSTS.some((cost) => row[cost] !== 0) };
  return { price_given: before.price_given };
}

/** Options of the check of a config. */
export interface CheckOptions {
  /** Path of the config in the request. */
  readonly at: string;
  /** Accept a model that is not in the catalogue. */
  readonly allowUnknownModel: boolean;
  /** Caches the messages about unknown names, so that a request for 1 000 agents searches for the nearest name once. */
  readonly texts?: Map<string, string>;
}

function textOf({ texts }: Pick<CheckOptions, 'texts'>, key: string, make: () => string): string {
  const text = texts?.get(key) ?? make();
  texts?.set(key, text);
  return text;
}

/**
 * All violations of a config's new values. Only fields that the patch touches are
 * checked, so that a stored value that has become invalid does not prevent the
 * change of another field.
 */
export function checkConfig(state: State, row: Config, patch: Patch, options: CheckOptions): Violation[] {
  const problems: Violation[] = [];
  const report = (field: string, description: string | undefined) => {
    if (description) problems.push({ field: `${options.at}.${field}`, description });
  };
  const checkField = (field: string, problem: () => string | undefined) => {
    if (!patch.invalid.has(field)) report(field, problem());
  };
  if (row.id === 0)
    for (const field of ['provider', 'model_name'] as const) if (!row[field]) checkField(field, () => 'is required');
  if (touches(patch, 'provider') && row.provider)
    checkField('provider', () => providerProblem(state, row.provider, options));
  if (touches(patch, 'provider', 'model_name') && row.model_name && row.provider)
    checkField('model_name', () => modelProblem(state, row.provider, row.model_name, options));
  if (touches(patch, 'provider', 'model_name', 'fallback_provider', 'fallback_model'))
    checkFallback(state, row, patch, options, checkField);
  if (patch.set['price_given'] === false && COSTS.some((cost) => row[cost] !== 0))
    report('price_given', 'must not be false while a cost is given');
  checkParameters(state, row, patch, checkField);
  checkField('credential_name', () => credentialProblem(state, patch, options));
  return problems;
}

function credentialProblem(state: State, patch: Patch, options: CheckOptions): string | undefined {
  const written = patch.set['credential_name'] as string | undefined;
  if (written === undefined || state.credentialNamed(written)) return undefined;
  return textOf(options, `credential ${written}`, () => {
    const suggestion = nearest(written, state.credentialNames);
    const hint = suggestion ? `; did you mean "${suggestion}"?` : '';
    return `no credential has the name ${JSON.stringify(printable(written, 60))}${hint}`;
  });
}

type Report = (field: string, problem: () => string | undefined) => void;

/** Why a provider cannot be used, or undefined. */
export function providerProblem(
  state: State,
  written: string,
  options: Pick<CheckOptions, 'texts'> = {},
): string | undefined {
  const provider = state.provider(written);
  if (provider?.enabled) return undefined;
  const shown = JSON.stringify(printable(written, 60));
  if (provider) return `Invalid provider ${shown}: it is disabled`;
  return textOf(options, `provider ${written}`, () => {
    const known = [...state.providersInOrder.after()].map((p) => p.name);
    return `Invalid provider ${shown}: ${listKnown(known, 'providers', nearest(written, state.providerNames))}`;
  });
}

/** Why a model cannot be used with a provider, or undefined. Models of an unknown provider are not checked. */
export function modelProblem(
  state: State,
  providerName: string,
  model: string,
  options: Pick<CheckOptions, 'allowUnknownModel' | 'texts'>,
): string | undefined {
  const provider = state.provider(providerName);
  if (!provider || options.allowUnknownModel || provider.allow_unknown_models) return undefined;
  if (state.model(provider.name, model)) return undefined;
  return textOf(options, `model ${provider.name} ${model}`, () => {
    const known = state.modelsOf(provider.name);
    // The list is for choosing a model, so it has no model that is or will be shut down.
    const current = known.filter((m) => m.retires_at === null && m.replaced_by === null);
    const names = (current.length > 0 ? current : known).map((m) => m.name);
    const suggestion = nearest(
      model,
      known.map((m) => m.name),
    );
    return `Invalid model ${JSON.stringify(printable(model, 120))} for ${provider.name}: ${listKnown(names, 'models', suggestion)}`;
  });
}

/** Lists up to 12 known names, after the nearest match. */
function listKnown(known: readonly string[], what: string, suggestion: string | undefined): string {
  const shown = known.slice(0, 12).join(', ');
  const more = known.length > 12 ? ` and ${known.length - 12} more` : '';
  const list = known.length > 0 ? `known ${what}: ${shown}${more}` : `no ${what} are known`;
  return suggestion ? `did you mean "${suggestion}"? ${list}` : list;
}

/** A fallback has a provider and a model, both exist, and they differ from those of the config. */
function checkFallback(state: State, row: Config, patch: Patch, options: CheckOptions, checkField: Report): void {
  const { fallback_provider: provider, fallback_model: model } = row;
  const touched = touches(patch, 'fallback_provider', 'fallback_model');
  if (patch.invalid.has('fallback_provider') || patch.invalid.has('fallback_model')) return;
  if (provider === null || model === null) {
    if (!touched) return;
    if (provider !== null) checkField('fallback_model', () => 'must be set together with fallback_provider');
    if (model !== null) checkField('fallback_provider', () => 'must be set together with fallback_model');
    return;
  }
  if (touched) {
    checkField('fallback_provider', () => providerProblem(state, provider, options));
    checkField('fallback_model', () => modelProblem(state, provider, model, options));
  }
  if (provider === row.provider && model === row.model_name)
    checkField('fallback_model', () => 'must differ from the primary: provider and model are the same');
}

/** Checks the parameters against the config's model. For its fallback they are adapted instead. */
function checkParameters(state: State, row: Config, patch: Patch, checkField: Report): void {
  const provider: Provider | undefined = state.provider(row.provider);
  const model = state.model(row.provider, row.model_name);
  const values = parametersOf(row);
  const modelTouched = touches(patch, 'provider', 'model_name');
  const shown = `${row.provider}/${printable(row.model_name, 60)}`;
  for (const parameter of PARAMETERS) {
    const field = fieldOf(parameter);
    const value = values[parameter];
    const rule = ruleFor(provider, model, parameter);
    const fields = rule?.less_than ? [field, fieldOf(rule.less_than)] : [field];
    if (value === undefined || !(modelTouched || touches(patch, ...fields))) continue;
    checkField(field, () => rangeProblem(rule, value, values, shown) ?? refusalProblem(parameter, rule, values, shown));
  }
}

/**
 * Sampling parameters that a model rejects are left out of the call: the default
 * temperature would otherwise exclude every newer model. Extra parameters have no
 * default, so a write that sets one for such a model fails.
 */
function refusalProblem(
  parameter: Parameter,
  rule: ReturnType<typeof ruleFor>,
  values: ReturnType<typeof parametersOf>,
  shown: string,
): string | undefined {
  const extra = fieldOf(parameter).startsWith('extra_params.');
  if (!extra || rule?.support !== 'PARAMETER_SUPPORT_REJECTED' || accepts(rule, values.reasoning_effort))
    return undefined;
  return `is not accepted by ${shown}; leave it out`;
}
