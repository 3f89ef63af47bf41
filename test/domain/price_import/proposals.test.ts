import { describe, expect, it } from 'vitest';
import { newModel, ratesOf } from '../../../src/domain/catalogue.js';
import type { ImportedModel } from '../../../src/domain/price_import/entry.js';
import { litellmModels } from '../../../src/domain/price_import/litellm.js';
import { modelsDevModels } from '../../../src/domain/price_import/models_dev.js';
import { compare, newModelOf, type Proposal } from '../../../src/domain/price_import/proposals.js';
import type { Price, PriceWindow, TieredRates } from '../../../src/domain/rows.js';
import { NOW, seededCatalogue, type World } from '../support.js';
import { fixture, modelsIn } from './support.js';

const OPTIONS = { providers: undefined, newModels: false, now: NOW };
const BASE = { input_micro_usd_per_million: 2_000_000, output_micro_usd_per_million: 8_000_000 };

/** A catalogue with one model of openai that has this price. */
function worldWith(price?: Partial<TieredRates>, validFrom = NOW): World {
  const world = seededCatalogue();
  world.write((_, draft) => {
    const model = draft.create('model', { ...newModel(), provider: 'openai', name: 'm' });
    const row: Price = {
      ...ratesOf(price ?? {}),
      source: 'a test',
      valid_from: validFrom,
      id: 0,
      model_id: model.id,
      created_at: NOW,
      revision: 0,
    };
    if (price) draft.create('price', row);
  });
  return world;
}

/** An imported entry of the model. */
const entry = (fields: Partial<ImportedModel> = {}): ImportedModel => ({
  provider: 'openai',
  name: 'm',
  entry: 'm',
  price: { rates: BASE, tiers: [] },
  facts: {},
  problems: [],
  factProblems: [],
  ...fields,
});
const rates = (price: Partial<ImportedModel['price']>) => entry({ price: { rates: BASE, tiers: [], ...price } });

/** The kind and drift of each proposal for the price that a file states. */
const outcome = (world: World, ...models: ImportedModel[]) => {
  const { proposals, unchanged, skipped } = compare(world.state, models, OPTIONS);
  return {
    proposals: proposals.map(({ kind, drift }) => [kind.replace('PROPOSAL_KIND_', ''), drift]),
    unchanged,
    skipped,
  };
};
const only = (what: Partial<ReturnType<typeof outcome>>) => ({ proposals: [], unchanged: 0, skipped: [], ...what });

describe('compare', () => {
  it.each([
    ['input rises by a half', { input_micro_usd_per_million: 3_000_000 }, 50],
    ['output falls by an eighth', { output_micro_usd_per_million: 7_000_000 }, 13],
    ['a rate changes by the least amount', { output_micro_usd_per_million: 8_000_001 }, 1],
    [
      'the greater of two changes counts',
      { input_micro_usd_per_million: 1_000_000, output_micro_usd_per_million: 9_000_000 },
      50,
    ],
    ['a rate becomes free', { input_micro_usd_per_million: 0 }, undefined],
    ['a rate is new', { cached_input_micro_usd_per_million: 5 }, undefined],
    ['a rate rises without limit', { input_micro_usd_per_million: 1_000_000_000_000 }, 49_999_900],
  ])('proposes a price with its drift if %s', (_, changed, drift) => {
    const proposed = rates({ rates: { ...BASE, ...changed } });
    expect(outcome(worldWith(BASE), proposed)).toEqual(only({ proposals: [['CHANGED', drift]] }));
  });

  it('proposes nothing for an equal price', () => {
    expect(outcome(worldWith(BASE), entry())).toEqual(only({ unchanged: 1 }));
  });

  it('keeps the rates that the file does not state', () => {
    const current = { ...BASE, cache_write_long_micro_usd_per_million: 7 };
    const [proposal] = compare(
      worldWith(current).state,
      [rates({ rates: { output_micro_usd_per_million: 9 } })],
      OPTIONS,
    ).proposals;
    expect(proposal?.proposed).toEqual(ratesOf({ ...current, output_micro_usd_per_million: 9 }));
  });

  it('treats reasoning at the price of output as equal to an unknown price of reasoning', () => {
    const stated = rates({ rates: { ...BASE, reasoning_micro_usd_per_million: 8_000_000 } });
    expect(outcome(worldWith(BASE), stated)).toEqual(only({ unchanged: 1 }));
  });

  it('compares tiers above their thresholds, and keeps the rates of a tier that the file does not state', () => {
    const tier = (input: number) => ({ above_input_tokens: 200_000, rates: { input_micro_usd_per_million: input } });
    const current = {
      ...BASE,
      tiers: [{ ...tier(4_000_000), rates: { ...tier(4_000_000).rates, cache_write_long_micro_usd_per_million: 9 } }],
    };
    expect(outcome(worldWith(current), rates({ tiers: [tier(4_000_000)] }))).toEqual(only({ unchanged: 1 }));
    const changed = compare(worldWith(current).state, [rates({ tiers: [tier(5_000_000)] })], OPTIONS).proposals[0];
    expect(changed).toMatchObject({
      drift: 25,
      proposed: {
        tiers: [{ rates: { input_micro_usd_per_million: 5_000_000, cache_write_long_micro_usd_per_million: 9 } }],
      },
    });
    // A new tier doubles the price of input above its threshold.
    expect(outcome(worldWith(BASE), rates({ tiers: [tier(4_000_000)] }))).toEqual(
      only({ proposals: [['CHANGED', 100]] }),
    );
  });

  const windows: PriceWindow[] = [
    { start_minute: 60, end_minute: 240, rates: { input_micro_usd_per_million: 4_000_000 }, tiers: [] },
  ];
  const tiers = [{ above_input_tokens: 9, rates: { input_micro_usd_per_million: 7 } }];
  it.each([
    ['time windows', { windows }, [2_000_000, 4_000_000]],
    ['context tiers', { tiers }, [2_000_000]],
  ])('keeps a price with %s that the file does not state, and says so if a rate is another', (what, part, known) => {
    const world = () => worldWith({ ...BASE, ...part });
    const stated = (input: number) => rates({ rates: { ...BASE, input_micro_usd_per_million: input } });
    for (const input of known) expect(outcome(world(), stated(input))).toEqual(only({ unchanged: 1 }));
    expect(outcome(world(), stated(3_000_000))).toEqual(
      only({ skipped: [`m: the current price has ${what}, which the file does not state; set the price instead`] }),
    );
  });

  it('compares with the price that is valid now, not with one that will be', () => {
    expect(outcome(worldWith(BASE, new Date(NOW.getTime() + 60_000)), entry())).toEqual(
      only({ proposals: [['NEW_PRICE', undefined]] }),
    );
  });

  it('proposes a price for a model without one, and for a model that does not exist only on request', () => {
    expect(outcome(worldWith(), entry())).toEqual(only({ proposals: [['NEW_PRICE', undefined]] }));
    const unknown = entry({
      name: 'new',
      entry: 'new',
      facts: { context_window_tokens: 5, supports_vision: undefined },
    });
    expect(outcome(worldWith(), unknown)).toEqual(only({}));
    const [proposal] = compare(worldWith().state, [unknown], { ...OPTIONS, newModels: true }).proposals;
    expect(proposal?.kind).toBe('PROPOSAL_KIND_NEW_MODEL');
    expect(newModelOf(proposal as Proposal)).toMatchObject({
      provider: 'openai',
      name: 'new',
      context_window_tokens: 5,
      supports_vision: null,
      origin: 'operator',
    });
  });

  it('ignores unknown providers, providers that are not requested, and entries without a rate', () => {
    const world = worldWith(BASE);
    const changed = rates({ rates: { input_micro_usd_per_million: 1 } });
    expect(outcome(world, { ...changed, provider: 'nobody' }, rates({ rates: {} }))).toEqual(only({}));
    expect(compare(world.state, [changed], { ...OPTIONS, providers: new Set(['claude']) }).proposals).toEqual([]);
    expect(compare(world.state, [changed], { ...OPTIONS, providers: new Set(['openai']) }).proposals).toHaveLength(1);
  });

  it('skips an entry with a problem, and problems of facts only for a new model', () => {
    const world = worldWith(BASE);
    expect(outcome(world, entry({ problems: ['a is wrong', 'b is wrong'] }))).toEqual(
      only({ skipped: ['m: a is wrong; b is wrong'] }),
    );
    expect(outcome(world, entry({ factProblems: ['c is wrong'] }))).toEqual(only({ unchanged: 1 }));
    const unknown = entry({ name: 'new', entry: 'new', factProblems: ['c is wrong'] });
    expect(compare(world.state, [unknown], { ...OPTIONS, newModels: true }).skipped).toEqual(['new: c is wrong']);
  });

  it('accepts a model twice at the same price, and skips it at different prices', () => {
    const world = worldWith(BASE);
    const other = entry({ entry: 'openai/m' });
    expect(outcome(world, entry(), other)).toEqual(only({ unchanged: 1 }));
    expect(
      outcome(world, entry(), { ...other, price: { rates: { input_micro_usd_per_million: 1 }, tiers: [] } }),
    ).toEqual(only({ skipped: ['m: has another price than openai/m'] }));
  });

  it('makes names of a file harmless in messages', () => {
    const [sentence] = outcome(
      worldWith(BASE),
      entry({ entry: `\u001b[31m${'x'.repeat(500)}`, problems: ['p'] }),
    ).skipped;
    expect(sentence).not.toContain('\u001b');
    expect(sentence?.length).toBeLessThan(200);
  });

  it.each([
    ['litellm', litellmModels, 5],
    ['models_dev', modelsDevModels, 3],
  ] as const)('finds the prices of the seeds unchanged in the excerpt %s', (name, parse, unchanged) => {
    const models = [...modelsIn(parse, fixture(name)).values()];
    const result = compare(seededCatalogue().state, models, { ...OPTIONS, now: new Date('2026-11-29') });
    expect({ ...result, proposals: result.proposals.map((one) => one.name) }).toEqual({
      proposals: [],
      unchanged,
      skipped: [],
    });
  });
});
