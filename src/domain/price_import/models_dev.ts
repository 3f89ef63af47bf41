import { limits } from '../../limits.js';
import type { PriceTier } from '../rows.js';
import {
  checkName,
  FieldReader,
  type ImportedFacts,
  type ImportedModel,
  orderedTiers,
  type StatedPrice,
  stated,
} from './entry.js';
import { JsonObject, type JsonValue } from './json.js';

/*
 * The `api.json` of models.dev: an object of providers, each with an object of `models`. Their `cost` is in USD per
 * million tokens.
 */

const PER_MILLION = { name: 'USD per million tokens', places: 6 };
const NOTHING: StatedPrice = { rates: {}, tiers: [] };

/** The models of a file; undefined for an entry that does not have the format. */
export function* modelsDevModels(file: JsonValue): Generator<ImportedModel | undefined> {
  if (!(file instanceof JsonObject)) return;
  for (const [provider, value] of file.members) {
    const models = value instanceof JsonObject ? value.members.get('models') : undefined;
    if (!(models instanceof JsonObject)) {
      yield undefined;
      continue;
    }
    for (const [name, model] of models.members) {
      const isRepeated = file.repeated?.has(provider) || models.repeated?.has(name) || false;
      yield modelOf(provider, name, model, isRepeated);
    }
  }
}

function modelOf(provider: string, name: string, value: JsonValue, isRepeated: boolean): ImportedModel | undefined {
  const problems: string[] = [];
  const factProblems: string[] = [];
  if (isRepeated) problems.push('the entry occurs twice');
  checkName(name, factProblems);
  const model = { provider, name, entry: `${provider}/${name}`, price: NOTHING, facts: {}, problems, factProblems };
  if (!(value instanceof JsonObject)) {
    problems.push('the entry must be an object');
    return model;
  }
  const facts = new FieldReader(value, factProblems);
  const modalities = facts.nested('modalities');
  if (modalities?.list('output')?.includes('text') === false) return undefined;
  return {
    ...model,
    price: priceOf(new FieldReader(value, problems)),
    facts: factsOf(facts, modalities?.list('input')),
  };
}

function priceOf(fields: FieldReader): StatedPrice {
  const cost = fields.nested('cost');
  return cost ? { rates: ratesOf(cost), tiers: orderedTiers(tiersOf(cost), cost) } : NOTHING;
}

const ratesOf = (cost: FieldReader) =>
  stated({
    input_micro_usd_per_million: cost.rate('input', PER_MILLION),
    cached_input_micro_usd_per_million: cost.rate('cache_read', PER_MILLION),
    cache_write_micro_usd_per_million: cost.rate('cache_write', PER_MILLION),
    cache_write_long_micro_usd_per_million: undefined,
    output_micro_usd_per_million: cost.rate('output', PER_MILLION),
    reasoning_micro_usd_per_million: cost.rate('reasoning', PER_MILLION),
  });

/** The tiers in the list `tiers`; files of earlier dates have one tier in a field such as `context_over_200k`. */
function tiersOf(cost: FieldReader): PriceTier[] {
  const items = cost.list('tiers');
  if (items) return items.flatMap((item, at) => tierOf(item, at, cost));
  const fields = [...cost.object.members.keys()].map((field) => /^context_over_(\d{1,6})k$/.exec(field));
  return fields.flatMap((found) => {
    const tier = found && cost.nested(found[0]);
    return tier ? [{ above_input_tokens: Number(found[1]) * 1000, rates: ratesOf(tier) }] : [];
  });
}

function tierOf(item: JsonValue, at: number, cost: FieldReader): PriceTier[] {
  const fields = item instanceof JsonObject ? cost.item('tiers', at, item) : undefined;
  const condition = fields?.nested('tier');
  const threshold = condition?.count('size');
  if (fields && threshold !== undefined && condition?.text('type', limits.modelName) === 'context')
    return [{ above_input_tokens: threshold, rates: ratesOf(fields) }];
  cost.report(`tiers[${at}]`, 'is not a context tier');
  return [];
}

const factsOf = (fields: FieldReader, input: readonly JsonValue[] | undefined): ImportedFacts => {
  const limit = fields.nested('limit');
  return {
    display_name: fields.text('name', limits.displayName),
    context_window_tokens: limit?.count('context'),
    max_output_tokens: limit?.count('output'),
    supports_functions: fields.flag('tool_call'),
    supports_vision: input?.includes('image'),
    supports_reasoning: fields.flag('reasoning'),
    supports_structured_output: fields.flag('structured_output'),
  };
};
