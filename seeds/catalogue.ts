import { newModel, newProvider, ratesOf } from '../src/domain/catalogue.js';
import type { Draft } from '../src/domain/draft.js';
import { currentPrice, startNow } from '../src/domain/price_book.js';
import type { Model, Price, Provider, TieredRates } from '../src/domain/rows.js';
import type { State } from '../src/domain/state.js';
import type { Plan } from '../src/store/write/planned_write.js';
import { readData } from './data.js';

type ProviderData = Partial<Provider> & { readonly name: string };
type PriceData = Partial<TieredRates> & { readonly source: string };
type ModelData = Omit<Partial<Model>, 'as_of' | 'retires_at'> & {
  readonly provider: string;
  readonly name: string;
  readonly as_of?: string;
  readonly retires_at?: string;
  readonly price?: PriceData;
};

/**
 * The four built-in providers and their models. A row that only seeds have written is updated; a row that an operator
 * has changed is not. Prices are immutable: a price that differs from the last one of the seeds is added, valid from now.
 */
export const seedCatalogue: Plan<number> = (state, draft) => {
  for (const data of readData<ProviderData>('providers')) putProvider(state, draft, data);
  for (const data of readData<ModelData>('models')) putModel(state, draft, data);
  return draft.changes.length;
};

const SEEDED = { built_in: true, origin: 'seed' } as const;

function putProvider(state: State, draft: Draft, data: ProviderData): void {
  const before = state.provider(data.name);
  if (!before) draft.create('provider', { ...newProvider(), ...data, ...SEEDED });
  else if (before.origin === 'seed' && differs(before, data)) draft.update('provider', before, { ...before, ...data });
}

function putModel(state: State, draft: Draft, { price, as_of, retires_at, ...data }: ModelData): void {
  const before = state.model(data.provider, data.name);
  const row = {
    ...data,
    ...(as_of && { as_of: new Date(as_of) }),
    ...(retires_at && { retires_at: new Date(retires_at) }),
  };
  const model = before ?? draft.create('model', { ...newModel(), ...row, ...SEEDED });
  if (before?.origin === 'seed' && differs(before, row)) draft.update('model', before, { ...before, ...row });
  const prices = before ? state.pricesOf(before.id) : [];
  const current = currentPrice(prices, draft.now);
  if (price && prices.length === 0) draft.create('price', priceRow(price, model, firstStart(as_of, draft), draft));
  // An operator who adds a price becomes the last writer of the model. A new price never applies to the past.
  else if (price && before?.origin === 'seed' && differs(current ?? {}, ratesOf(price)))
    draft.create('price', priceRow(price, model, startNow(prices, draft.now), draft));
}

/** The first price of a model is valid since the date of its facts, and in any case now. */
const firstStart = (as_of: string | undefined, { now }: Draft): Date =>
  as_of ? new Date(Math.min(new Date(as_of).getTime(), now.getTime())) : now;

function priceRow(price: PriceData, model: Model, valid_from: Date, { now: created_at }: Draft): Price {
  const others = { valid_from, created_at, id: 0, model_id: model.id, revision: 0 };
  return { ...ratesOf(price), source: price.source, ...others };
}

/** Whether a row differs from the data, ignoring the order of keys. */
function differs(row: object, data: object): boolean {
  return Object.entries(data).some(
    ([key, value]) => canonical((row as Record<string, unknown>)[key]) !== canonical(value),
  );
}

const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, inner) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
