import { newModel, newProvider, ratesOf } from '../src/domain/catalogue.js';
import type { Draft } from '../src/domain/draft.js';
import type { Model, Price, Provider, Rates } from '../src/domain/rows.js';
import type { State } from '../src/domain/state.js';
import type { Plan } from '../src/store/write/planned_write.js';
import { readData } from './data.js';

type ProviderData = Partial<Provider> & { readonly name: string };
type PriceData = Partial<Rates> & { readonly source: string };
type ModelData = Omit<Partial<Model>, 'as_of' | 'retires_at'> & {
  readonly provider: string;
  readonly name: string;
  readonly as_of?: string;
  readonly retires_at?: string;
  readonly price?: PriceData;
};

/**
 * The four built-in providers and their models. A row that only the seeds have
 * written is updated; a row that an operator has changed is not. Prices are never
 * changed: a model without a price gets one.
 */
export const seedCatalogue: Plan<number> = (state, draft) => {
  for (const data of readData<ProviderData>('providers')) putProvider(state, draft, data);
  for (const data of readData<ModelData>('models')) putModel(state, draft, data);
  return draft.changes.length;
};

const OURS = { built_in: true, origin: 'seed' } as const;

function putProvider(state: State, draft: Draft, data: ProviderData): void {
  const before = state.provider(data.name);
  if (!before) draft.create('provider', { ...newProvider(), ...data, ...OURS });
  else if (before.origin === 'seed' && differs(before, data)) draft.update('provider', before, { ...before, ...data });
}

function putModel(state: State, draft: Draft, { price, as_of, retires_at, ...data }: ModelData): void {
  const before = state.model(data.provider, data.name);
  const row = {
    ...data,
    ...(as_of && { as_of: new Date(as_of) }),
    ...(retires_at && { retires_at: new Date(retires_at) }),
  };
  const model = before ?? draft.create('model', { ...newModel(), ...row, ...OURS });
  if (before?.origin === 'seed' && differs(before, row)) draft.update('model', before, { ...before, ...row });
  const known = before ? state.pricesOf(before.id) : [];
  if (price && known.length === 0) draft.create('price', priceRow(price, model, as_of, draft));
}

function priceRow(price: PriceData, model: Model, asOf: string | undefined, draft: Draft): Price {
  const times = { valid_from: asOf ? new Date(asOf) : draft.now, created_at: draft.now };
  return { ...ratesOf(price), source: price.source, ...times, id: 0, model_id: model.id, revision: 0 };
}

/** Whether a row differs from the data. The order of keys does not matter. */
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
