import {
  ListPricesResponse,
  type PricedModel,
  type ProviderServiceService,
  type SetPriceRequest,
} from '../../../gen/ts/agentllm/v1/provider_service.js';
import { ratesOf } from '../../domain/catalogue.js';
import { priceAt } from '../../domain/cost.js';
import type { Draft } from '../../domain/draft.js';
import { time } from '../../domain/fields.js';
import { readPatch } from '../../domain/patch.js';
import { endOf, hasRate, startNow } from '../../domain/price_book.js';
import { priceSchema } from '../../domain/price_fields.js';
import type { Model, Price } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { Problems } from '../../problems.js';
import type { Handlers } from '../dispatch/method.js';
import { priceMessage } from '../messages/entities.js';
import { checkPage, compareKeys, pageFrom, pageResponse } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { addPrice, type SentPrice } from './models.js';
import { read, write } from './read_write.js';
import { modelOf, providerOf } from './requests.js';

type PriceMethods = 'listPrices' | 'setPrice';

/** A price with its model and the end of its validity. */
interface BookedPrice {
  readonly model: Model;
  readonly price: Price;
  readonly until: Date | undefined;
}

/** The handlers of ProviderService for the price book. */
export function priceHandlers(backend: Backend): Pick<Handlers<typeof ProviderServiceService>, PriceMethods> {
  return {
    listPrices: (call) =>
      read(backend, call, (state) => {
        const { provider, model_name, at } = call.request;
        const problems = new Problems();
        checkPage(problems, call.request);
        if (model_name !== '' && provider === '') problems.add('provider', 'is required with model_name');
        problems.add('at', timeProblem(at));
        problems.throwIfAny();
        const owner = provider === '' ? undefined : providerOf(state, provider).name;
        const model = owner === undefined || model_name === '' ? undefined : modelOf(state, owner, model_name);
        const start = pageFrom(call.request, ['prices', owner, model?.name, at?.getTime()]);
        const listed = pricesAfter(state, { owner, model, at }, start.last);
        return pageResponse(start, take(listed, start.size + 1), {
          type: ListPricesResponse,
          revision: state.revision,
          keyOf,
          rowOf: (row) => ({ prices: [pricedModel(row)] }),
        });
      }),

    setPrice: (call) =>
      write(backend, call, {
        plan(state, draft, problems): BookedPrice {
          const { provider, model_name, valid_from } = call.request;
          if (provider === '') problems.add('provider', 'is required');
          if (model_name === '') problems.add('model_name', 'is required');
          const price = readPrice(call.request, problems);
          problems.add('valid_from', timeProblem(valid_from));
          problems.throwIfAny();
          const model = modelOf(state, provider, model_name);
          const prices = state.pricesOf(model.id);
          const start = valid_from ?? startNow(prices, draft.now);
          refuseTaken(model, prices, start);
          markChangedByOperator(draft, model);
          const added = addPrice(draft, model, { ...ratesOf(price), source: price.source }, start);
          return { model, price: added, until: endOf(prices, start) };
        },
        respond: (row, revision) => ({ price: pricedModel(row), revision }),
      }),
  };
}

const timeProblem = (value: Date | undefined): string | undefined =>
  value && time.safeParse(value).error?.issues[0]?.message;

const priceSpecs = { price: { schema: priceSchema } };

/** Reads the price of a request. If it has a problem, the result has no rate. */
function readPrice(request: SetPriceRequest, problems: Problems): SentPrice {
  const nothing = { source: '' };
  if (!request.price) {
    problems.add('price', 'is required');
    return nothing;
  }
  const { set, violations } = readPatch({ body: request, mask: [], specs: priceSpecs, outputOnly: [], at: '' });
  // The path of the body is empty, so the paths of its fields begin with a dot.
  problems.addAll(violations.map(({ field, description }) => ({ field: field.slice(1), description })));
  const price = (set['price'] ?? nothing) as SentPrice;
  if (violations.length === 0 && !hasRate(ratesOf(price))) problems.add('price', 'must have at least one rate');
  return price;
}

function refuseTaken(model: Model, prices: readonly Price[], start: Date): void {
  if (prices.every(({ valid_from }) => valid_from.getTime() !== start.getTime())) return;
  const shown = `${model.provider}/${model.name}`;
  throw ServiceError.of(
    'PRICE_EXISTS',
    { model: shown, at: start.toISOString() },
    { resources: [{ type: 'model', name: shown }] },
  );
}

/** Marks a model as changed by an operator, so that seeds do not replace the operator's price. */
export function markChangedByOperator(draft: Draft, model: Model): void {
  if (model.origin === 'seed') draft.update('model', model, { ...model, origin: 'operator' });
}

const keyOf = ({ model, price }: BookedPrice) => [model.provider, model.name, -price.valid_from.getTime()];

interface Filter {
  /** The name of a provider. */
  readonly owner: string | undefined;
  readonly model: Model | undefined;
  readonly at: Date | undefined;
}

/** The prices after a page key, ordered by model and then newest first. */
function* pricesAfter(
  state: State,
  { owner, model: only, at }: Filter,
  last: readonly (string | number)[] | undefined,
): Generator<BookedPrice> {
  const from = last?.slice(0, 2);
  const isBefore = (model: Model) => from && compareKeys([model.provider, model.name], from) < 0;
  const models = only ? [only] : state.modelsInOrder.after(from && ((model) => (isBefore(model) ? -1 : 1)));
  for (const model of models) {
    if (owner !== undefined && model.provider !== owner) continue;
    const prices = state.pricesOf(model.id);
    const wanted = at ? [priceAt(prices, at)] : prices.toReversed();
    for (const price of wanted) {
      if (!price) continue;
      const row = { model, price, until: endOf(prices, price.valid_from) };
      if (!last || compareKeys(keyOf(row), last) > 0) yield row;
    }
  }
}

function take<T>(items: Iterable<T>, count: number): T[] {
  const taken: T[] = [];
  for (const item of items) {
    taken.push(item);
    if (taken.length === count) break;
  }
  return taken;
}

const pricedModel = ({ model, price, until }: BookedPrice): PricedModel => ({
  provider: model.provider,
  model_name: model.name,
  price: priceMessage(price),
  valid_until: until,
});
