import { beforeAll, describe, expect, it } from 'vitest';
import type { ModelPrice } from '../../../gen/ts/agentllm/v1/provider.js';
import type { PricedModel } from '../../../gen/ts/agentllm/v1/provider_service.js';
import { unique, useService } from '../../support/service.js';
import {
  alreadyExists,
  invalid,
  newModel,
  newProvider,
  notFound,
  present,
  refused,
  revision,
  status,
} from './support.js';

const INPUT = { input_micro_usd_per_million: 5n, source: 'a test' };
const DAY = 86_400_000;
const day = (days: number) => new Date(Date.now() + days * DAY);

describe.each(['embedded', 'postgres'] as const)('the price book on %s', (backend) => {
  const service = useService(backend);
  let providers: ReturnType<typeof service>['providers'];
  beforeAll(() => {
    providers = service().providers;
  });

  /** A new model without a price. */
  async function freshModel() {
    const provider = present(await newProvider(service())).name;
    const { name } = await newModel(service(), { provider });
    return { provider, model_name: name };
  }
  const set = (model: { provider: string; model_name: string }, price: Partial<ModelPrice>, valid_from?: Date) =>
    providers.setPrice({ ...model, price: { ...INPUT, ...price }, ...(valid_from && { valid_from }) });
  const rateOf = (priced: PricedModel) => Number(priced.price?.input_micro_usd_per_million);
  const listed = async (request: Parameters<typeof providers.listPrices>[0]) =>
    (await providers.listPrices(request)).prices;
  const currentRate = async ({ provider, model_name }: { provider: string; model_name: string }) =>
    (await providers.getModel({ provider, name: model_name })).model?.price?.input_micro_usd_per_million;

  it('stores a price with tiers and windows, valid from now, and returns it with its revision', async () => {
    const model = await freshModel();
    const rates = { output_micro_usd_per_million: 7n };
    const sent = {
      ...INPUT,
      cache_write_long_micro_usd_per_million: 9n,
      tiers: [{ above_input_tokens: 200_000, rates }],
      windows: [
        { start_minute: 60, end_minute: 240, rates, tiers: [{ above_input_tokens: 1, rates }], weekdays: [5, 1] },
      ],
    };
    const { price, revision: written } = await providers.setPrice({ ...model, price: sent });
    expect(price).toMatchObject({ ...model, price: { ...INPUT, revision: written }, valid_until: undefined });
    expect(Math.abs(present(price?.price?.valid_from).getTime() - Date.now())).toBeLessThan(60_000);
    const [stored] = await listed(model);
    expect(stored).toEqual(price);
    expect(stored?.price).toMatchObject({
      cache_write_long_micro_usd_per_million: 9n,
      tiers: sent.tiers,
      windows: [{ ...sent.windows[0], weekdays: [1, 5] }],
    });
    expect((await providers.getModel({ provider: model.provider, name: model.model_name })).model?.price).toEqual(
      stored?.price,
    );
  });

  it('keeps every earlier price unchanged, and ends it where the next one begins', async () => {
    const model = await freshModel();
    const first = present((await set(model, {})).price);
    const second = present((await set(model, { input_micro_usd_per_million: 6n })).price);
    const [newest, oldest] = await listed(model);
    expect(newest).toEqual(second);
    expect(oldest).toEqual({ ...first, valid_until: second.price?.valid_from });
  });

  it('makes a price of a later date current only from then on, and a price of an earlier date not at all', async () => {
    const model = await freshModel();
    await set(model, { input_micro_usd_per_million: 1n });
    await set(model, { input_micro_usd_per_million: 2n }, day(2));
    const past = present((await set(model, { input_micro_usd_per_million: 3n }, day(-2))).price);
    expect(await currentRate(model)).toBe(1n);
    expect((await listed(model)).map(rateOf)).toEqual([2, 1, 3]);
    expect(past.valid_until).toEqual((await listed(model))[1]?.price?.valid_from);
    const at = async (days: number) => (await listed({ ...model, at: day(days) })).map(rateOf);
    expect([await at(-3), await at(-1), await at(1), await at(3)]).toEqual([[], [3], [1], [2]]);
    // A price from now is before the price of the later date.
    await providers.updateModel({
      model: {
        provider: model.provider,
        name: model.model_name,
        price: { input_micro_usd_per_million: 4n, source: 's' },
      },
    });
    expect(await currentRate(model)).toBe(4n);
    expect((await listed(model)).map(rateOf)).toEqual([2, 4, 1, 3]);
  });

  it('refuses a second price from exactly the same time, and names the model', async () => {
    const model = await freshModel();
    const start = new Date('2026-01-01T00:00:00.000Z');
    await set(model, {}, start);
    const before = await revision(service());
    const error = await alreadyExists(set(model, { input_micro_usd_per_million: 1n }, start), 'PRICE_EXISTS');
    expect(error.message).toContain('2026-01-01T00:00:00.000Z');
    expect(await revision(service())).toBe(before);
  });

  it('reports all problems of a request at once and writes nothing', async () => {
    const before = await revision(service());
    await invalid(
      providers.setPrice({
        price: {
          input_micro_usd_per_million: -1n,
          tiers: [{ above_input_tokens: 0, rates: {} }],
          source: 'x'.repeat(201),
        },
        request_id: 'x',
        valid_from: new Date(Date.UTC(1900, 0)),
      }),
      'provider',
      'model_name',
      'price.input_micro_usd_per_million',
      'price.tiers[0].above_input_tokens',
      'price.tiers[0].rates',
      'price.source',
      'request_id',
      'valid_from',
    );
    const model = await freshModel();
    const written = await revision(service());
    await invalid(providers.setPrice(model), 'price');
    await invalid(providers.setPrice({ ...model, price: { source: 'no rate' } }), 'price');
    await notFound(providers.setPrice({ ...model, provider: 'nobody', price: INPUT }), 'PROVIDER_NOT_FOUND');
    await notFound(providers.setPrice({ ...model, model_name: 'none', price: INPUT }), 'MODEL_NOT_FOUND');
    expect(await revision(service())).toBe(written);
    expect(written).toBe(before + 2n);
  });

  it('checks without writing, and applies a repeated request once', async () => {
    const model = await freshModel();
    const before = await revision(service());
    const dry = await providers.setPrice({ ...model, price: INPUT, validate_only: true });
    expect(dry.price).toMatchObject({ ...model, price: INPUT });
    expect(await listed(model)).toEqual([]);
    expect(await revision(service())).toBe(before);
    const request = { ...model, price: INPUT, request_id: '0a4d7bd0-6c6b-4a53-9d0c-0d7d2d4b8f10' };
    const first = await providers.setPrice(request);
    expect(await providers.setPrice(request)).toEqual(first);
    expect(await listed(model)).toHaveLength(1);
  });

  it('records a price in the history with its reason', async () => {
    const model = await freshModel();
    const { revision: written } = await providers.setPrice({ ...model, price: INPUT, reason: 'a new contract' });
    const { entries } = await service().configs.listConfigRevisions({ page_size: 1 });
    expect(entries[0]).toMatchObject({
      revision: written,
      kind: 'RESOURCE_KIND_PRICE',
      action: 'CHANGE_ACTION_CREATE',
      name: `${model.provider}/${model.model_name}`,
      reason: 'a new contract',
    });
  });

  it('lists all prices in pages, by model and then newest first', async () => {
    const model = await freshModel();
    for (let rate = 1n; rate <= 5n; rate++) await set(model, { input_micro_usd_per_million: rate });
    const other = await newModel(service(), { provider: model.provider, name: 'zz' });
    await set({ ...model, model_name: other.name }, { input_micro_usd_per_million: 9n });
    const request = { provider: model.provider, page_size: 2 };
    const rates: number[] = [];
    let page_token = '';
    do {
      const page = await providers.listPrices({ ...request, page_token });
      expect(page.prices.length).toBeLessThanOrEqual(2);
      rates.push(...page.prices.map(rateOf));
      page_token = page.next_page_token;
    } while (page_token !== '');
    expect(rates).toEqual([5, 4, 3, 2, 1, 9]);
    const all = await listed({ page_size: 1000 });
    expect(all.length).toBeGreaterThan(50);
    const keys = all.map(({ provider, model_name }) => `${provider}/${model_name}`);
    expect(keys).toEqual([...keys].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0)));
    const first = await providers.listPrices(request);
    await refused(
      providers.listPrices({ page_size: 2, page_token: first.next_page_token }),
      status.INVALID_ARGUMENT,
      'INVALID_PAGE_TOKEN',
    );
  });

  it('names an unknown provider or model and a model without a provider', async () => {
    await notFound(providers.listPrices({ provider: 'nobody' }), 'PROVIDER_NOT_FOUND');
    await notFound(providers.listPrices({ provider: 'openai', model_name: 'none' }), 'MODEL_NOT_FOUND');
    await invalid(providers.listPrices({ model_name: 'gpt-4', page_size: -1 }), 'provider', 'page_size');
  });

  it('gives the resolution of an agent the price that is valid, with its tiers', async () => {
    const model = await freshModel();
    const { agent } = await service().agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
    const id = present(agent).id;
    await service().configs.createConfig({ agent: { id }, config: model });
    const tiers = [{ above_input_tokens: 10, rates: { input_micro_usd_per_million: 8n } }];
    await set(model, { tiers });
    await set(model, { input_micro_usd_per_million: 99n }, day(1));
    const { resolved } = await service().configs.resolveConfig({ agent: { id } });
    expect(resolved?.hops[0]?.price?.price).toMatchObject({ input_micro_usd_per_million: 5n, tiers });
  });
});
