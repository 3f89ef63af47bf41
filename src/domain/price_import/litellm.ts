import type { PriceTier, Rates } from '../rows.js';
import { checkName, FieldReader, type ImportedFacts, type ImportedModel, orderedTiers, stated } from './entry.js';
import { JsonObject, type JsonValue } from './json.js';

/*
 * LiteLLM's `model_prices_and_context_window.json`: an object of models, each with its `litellm_provider` and rates in
 * USD per token. The entry `sample_spec` documents the format; its provider is a sentence, so it matches no
 * provider of the catalogue.
 */

const PER_TOKEN = { name: 'USD per token', places: 12 };

const RATES: Readonly<Record<keyof Rates, string>> = {
  input_micro_usd_per_million: 'input_cost_per_token',
  cached_input_micro_usd_per_million: 'cache_read_input_token_cost',
  cache_write_micro_usd_per_million: 'cache_creation_input_token_cost',
  cache_write_long_micro_usd_per_million: 'cache_creation_input_token_cost_above_1hr',
  output_micro_usd_per_million: 'output_cost_per_token',
  reasoning_micro_usd_per_million: 'output_cost_per_reasoning_token',
};

/** The modes of models that take and return text. Rates of other modes are not rates of tokens. */
const MODES = ['chat', 'responses', 'completion'];

/** Rates that depend on something that a price cannot express. Rates of service tiers (`_priority`, `_flex`) are ignored. */
const UNSUPPORTED = /^tiered_pricing$|off_peak/;

/** The models of a file; undefined if it does not have the format. */
export function* litellmModels(file: JsonValue): Generator<ImportedModel | undefined> {
  if (!(file instanceof JsonObject)) return;
  for (const [entry, value] of file.members) {
    const isModel = value instanceof JsonObject && typeof value.members.get('litellm_provider') === 'string';
    yield isModel ? modelOf(entry, value, file.repeated?.has(entry) ?? false) : undefined;
  }
}

function modelOf(entry: string, object: JsonObject, isRepeated: boolean): ImportedModel | undefined {
  const provider = object.members.get('litellm_provider') as string;
  const mode = object.members.get('mode') ?? 'chat';
  if (typeof mode === 'string' && !MODES.includes(mode)) return undefined;
  const problems: string[] = [];
  const factProblems: string[] = [];
  const fields = new FieldReader(object, problems);
  if (isRepeated) problems.push('the entry occurs twice');
  if (typeof mode !== 'string') fields.report('mode', 'must be a text');
  for (const [field, value] of object.members)
    if (value !== null && UNSUPPORTED.test(field)) fields.report(field, 'is not supported');
  const name = entry.startsWith(`${provider}/`) ? entry.slice(provider.length + 1) : entry;
  checkName(name, factProblems);
  return {
    provider,
    name,
    entry,
    price: { rates: ratesOf(fields, ''), tiers: orderedTiers(tiersOf(fields), fields) },
    facts: factsOf(new FieldReader(object, factProblems)),
    problems,
    factProblems,
  };
}

const ratesOf = (fields: FieldReader, suffix: string) =>
  stated(
    Object.fromEntries(
      Object.entries(RATES).map(([rate, field]) => [rate, fields.rate(field + suffix, PER_TOKEN)]),
    ) as Record<keyof Rates, number | undefined>,
  );

const TIER = /_above_(\d{1,6})k_tokens$/;

/** The tiers that fields such as `input_cost_per_token_above_200k_tokens` state. */
function tiersOf(fields: FieldReader): PriceTier[] {
  const suffixes = new Map<string, number>();
  for (const field of fields.object.members.keys()) {
    const [suffix, thousands] = TIER.exec(field) ?? [];
    if (suffix && Object.values(RATES).includes(field.slice(0, -suffix.length)))
      suffixes.set(suffix, Number(thousands) * 1000);
  }
  return [...suffixes].map(([suffix, above_input_tokens]) => ({ above_input_tokens, rates: ratesOf(fields, suffix) }));
}

const factsOf = (fields: FieldReader): ImportedFacts => ({
  context_window_tokens: fields.count('max_input_tokens'),
  max_output_tokens: fields.count('max_output_tokens'),
  supports_functions: fields.flag('supports_function_calling'),
  supports_vision: fields.flag('supports_vision'),
  supports_reasoning: fields.flag('supports_reasoning'),
  supports_prefill: fields.flag('supports_assistant_prefill'),
  supports_structured_output: fields.flag('supports_response_schema'),
  retires_at: fields.day('deprecation_date'),
});
