import type { ProposalKind } from '../../../gen/ts/agentllm/v1/provider_service.js';
import { limits } from '../../limits.js';
import { newModel, ratesOf } from '../catalogue.js';
import { ratesAt } from '../cost.js';
import { currentPrice } from '../price_book.js';
import type { Model, OtherRates, Price, PriceTier, Rates, TieredRates } from '../rows.js';
import { byModelName, type State } from '../state.js';
import { printable } from '../text.js';
import type { ImportedFacts, ImportedModel, StatedPrice } from './entry.js';

/** A price that an imported catalogue proposes. */
export interface Proposal {
  readonly provider: string;
  readonly name: string;
  readonly kind: Exclude<ProposalKind, 'PROPOSAL_KIND_UNSPECIFIED'>;
  readonly proposed: TieredRates;
  readonly current: Price | undefined;
  /**
   * The largest relative difference of a rate in whole percent, rounded up; undefined if no relative difference exists.
   */
  readonly drift: number | undefined;
  /** The existing model. */
  readonly model: Model | undefined;
  /** The facts for a model that the catalogue does not have. */
  readonly facts: ImportedFacts;
}

export interface Comparison {
  /** Ordered by provider and model. */
  readonly proposals: readonly Proposal[];
  /** The number of models whose price is equal. */
  readonly unchanged: number;
  /** One sentence for each entry that cannot be read. */
  readonly skipped: readonly string[];
}

export interface ComparisonOptions {
  /** The canonical names of providers; undefined: all. */
  readonly providers: ReadonlySet<string> | undefined;
  readonly newModels: boolean;
  readonly now: Date;
}

/** An entry with the canonical name of its provider. */
interface Entry {
  readonly provider: string;
  readonly imported: ImportedModel;
}

type Result = { readonly proposal: Proposal } | { readonly skipped: string } | 'unchanged' | 'ignored';

/** Compares the price book with the models of a catalogue. Models of unknown providers are ignored. */
export function compare(state: State, imported: readonly ImportedModel[], options: ComparisonOptions): Comparison {
  const proposals: Proposal[] = [];
  const skipped: string[] = [];
  let unchanged = 0;
  for (const entries of byModel(state, imported, options)) {
    const result = compareModel(state, entries, options);
    if (result === 'unchanged') unchanged++;
    else if (result !== 'ignored' && 'skipped' in result) skipped.push(result.skipped);
    else if (result !== 'ignored') proposals.push(result.proposal);
  }
  return { proposals: proposals.sort(byModelName), unchanged, skipped };
}

/** The entries of each model. A file can contain a model both with and without the prefix of its provider. */
function byModel(
  state: State,
  imported: readonly ImportedModel[],
  { providers }: ComparisonOptions,
): Iterable<readonly Entry[]> {
  const models = new Map<string, Entry[]>();
  for (const model of imported) {
    const provider = state.provider(model.provider)?.name;
    if (provider === undefined || (providers && !providers.has(provider))) continue;
    const key = `${provider}/${model.name}`;
    const entries = models.get(key);
    if (entries) entries.push({ provider, imported: model });
    else models.set(key, [{ provider, imported: model }]);
  }
  return models.values();
}

function compareModel(state: State, entries: readonly Entry[], { newModels, now }: ComparisonOptions): Result {
  const [{ provider, imported }, ...others] = entries as readonly [Entry, ...Entry[]];
  const model = state.model(provider, imported.name);
  const problems = entries.flatMap((one) => [...one.imported.problems, ...(model ? [] : one.imported.factProblems)]);
  if (!model && !newModels && imported.problems.length === 0) return 'ignored';
  if (problems.length > 0) return skip(imported, problems.join('; '));
  const other = others.find((one) => !samePrice(one.imported.price, imported.price));
  if (other) return skip(imported, `has another price than ${printable(other.imported.entry, 100)}`);
  if (Object.keys(imported.price.rates).length === 0) return 'ignored';
  const current = model && currentPrice(state.pricesOf(model.id), now);
  return current
    ? compareWith(current, { provider, imported }, model)
    : { proposal: proposalOf({ provider, imported }, ratesOf(asPrice(imported.price)), model, undefined) };
}

const skip = ({ entry }: ImportedModel, why: string) => ({
  skipped: `${printable(entry, 100)}: ${printable(why, 300)}`,
});

const asPrice = ({ rates, tiers }: StatedPrice): Partial<TieredRates> => ({ ...rates, tiers });

const samePrice = (a: StatedPrice, b: StatedPrice): boolean =>
  differences(ratesOf(asPrice(a)), ratesOf(asPrice(b))).length === 0;

function compareWith(current: Price, entry: Entry, model: Model | undefined): Result {
  const { price } = entry.imported;
  const unstated = unstatedPart(current, price);
  if (unstated !== undefined)
    return statesSome(price.rates, current)
      ? 'unchanged'
      : skip(entry.imported, `the current price has ${unstated}, which the file does not state; set the price instead`);
  const proposed = merged(current, price);
  if (differences(current, proposed).length === 0) return 'unchanged';
  return { proposal: proposalOf(entry, proposed, model, current) };
}

/**
 * The part of a price (time windows or context tiers) that a file does not state, so that its rates cannot be compared.
 */
function unstatedPart({ tiers, windows }: Price, price: StatedPrice): string | undefined {
  if (windows.length > 0) return 'time windows';
  return tiers.length > 0 && price.tiers.length === 0 ? 'context tiers' : undefined;
}

/** Whether the rates equal those of the price or of one of its windows, ignoring tiers. */
function statesSome(rates: OtherRates, { tiers: _, windows, ...base }: Price): boolean {
  const known = [base, ...windows.map((window) => ({ ...base, ...window.rates }))];
  return known.some((one) => KINDS.every((kind) => rates[kind] === undefined || rateOf(one, kind) === rates[kind]));
}

/** The current price with the rates and tiers that the file states. */
function merged(current: Price, { rates, tiers }: StatedPrice): TieredRates {
  const currentTier = (threshold: number) =>
    current.tiers.find(({ above_input_tokens }) => above_input_tokens === threshold)?.rates;
  return {
    ...ratesOf(current),
    ...rates,
    tiers: tiers.map(
      (tier): PriceTier => ({
        ...tier,
        rates: { ...currentTier(tier.above_input_tokens), ...tier.rates },
      }),
    ),
  };
}

function proposalOf(
  { provider, imported: { name, facts } }: Entry,
  proposed: TieredRates,
  model: Model | undefined,
  current: Price | undefined,
): Proposal {
  return {
    provider,
    name,
    kind: current ? 'PROPOSAL_KIND_CHANGED' : model ? 'PROPOSAL_KIND_NEW_PRICE' : 'PROPOSAL_KIND_NEW_MODEL',
    proposed,
    current,
    drift: current && driftOf(current, proposed),
    model,
    facts,
  };
}

/** The model of a proposal for a model that the catalogue does not have. */
export function newModelOf({ provider, name, facts }: Proposal): Model {
  const known = Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
  return { ...newModel(), ...known, provider, name };
}

const KINDS: readonly (keyof Rates)[] = [
  'input_micro_usd_per_million',
  'cached_input_micro_usd_per_million',
  'cache_write_micro_usd_per_million',
  'cache_write_long_micro_usd_per_million',
  'output_micro_usd_per_million',
  'reasoning_micro_usd_per_million',
];

/** The effective rate: reasoning without a rate is priced as output. */
const rateOf = (rates: Rates, kind: keyof Rates): number | null =>
  kind === 'reasoning_micro_usd_per_million' ? (rates[kind] ?? rates.output_micro_usd_per_million) : rates[kind];

type Difference = readonly [before: number | null, after: number | null];

const ANY_TIME = new Date(0);

/** The rates that differ, below and above each threshold. The time windows of both prices are the same. */
function differences(before: TieredRates, after: TieredRates): Difference[] {
  const thresholds = [...before.tiers, ...after.tiers].map(({ above_input_tokens }) => above_input_tokens);
  return [0, ...thresholds].flatMap((threshold) => {
    const [a, b] = [before, after].map((price) => ratesAt({ ...price, windows: [] }, ANY_TIME, threshold + 1)) as [
      Rates,
      Rates,
    ];
    return KINDS.map((kind): Difference => [rateOf(a, kind), rateOf(b, kind)]).filter(([x, y]) => x !== y);
  });
}

function driftOf(before: TieredRates, after: TieredRates): number | undefined {
  let drift = 0;
  for (const [from, to] of differences(before, after)) {
    if (!from || !to) return undefined;
    // The product is at most 10^14, so it is exact.
    drift = Math.max(drift, Math.ceil((Math.abs(to - from) * 100) / from));
  }
  return Math.min(drift, limits.maxInt32);
}
