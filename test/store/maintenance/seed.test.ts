import { describe, expect, it, onTestFinished } from 'vitest';
import { StartError } from '../../../src/errors.js';
import { seed } from '../../../src/store/maintenance/seed.js';
import type { WrittenModel } from '../../../src/store/maintenance/seed_model.js';
import type { Store } from '../../../src/store/store.js';
import type { Plan } from '../../../src/store/write/planned_write.js';
import { transact } from '../../../src/store/write/transact.js';
import { openStore } from '../../support/store.js';

async function emptyStore(): Promise<Store> {
  const opened = await openStore();
  onTestFinished(() => opened.close());
  return opened.store;
}

const option = (text: string): WrittenModel => ({ text, from: '--model' });

/** The distinct models and parameters of all configs, and the distinct default models of all agents. */
function seededModels({ state }: Store) {
  const configs = [...state.configs.values()].map(
    ({ provider, model_name, temperature, max_tokens }) => `${provider}/${model_name} ${temperature} ${max_tokens}`,
  );
  const agents = [...state.agents.values()].map(({ llm_provider, llm_model }) => `${llm_provider}/${llm_model}`);
  return { configs: [...new Set(configs)], agents: [...new Set(agents)] };
}

/** Writes to a store as an operator does. */
const write = (store: Store, plan: Plan<void>) =>
  transact(store, {
    actor: 'test',
    method: 'test',
    requestId: undefined,
    reason: undefined,
    plan,
    encodeResponse: () => new Uint8Array(),
    body: () => new Uint8Array(),
  });

describe('seed', () => {
  it('creates the default of the original Python system when no model is given', async () => {
    const store = await emptyStore();
    expect(await seed(store, 'missing')).toMatchObject({ agents: 12, default_configs: 12 });
    expect(seededModels(store)).toEqual({ configs: ['openai/gpt-4 0.7 2000'], agents: ['openai/gpt-4o-mini'] });
  });

  it.each([
    ['openai/gpt-6.1-sol', 'openai/gpt-6.1-sol null 2000', 'openai/gpt-6.1-sol'],
    ['claude/claude-haiku-4-5', 'claude/claude-haiku-4-5 0.7 2000', 'claude/claude-haiku-4-5'],
    ['anthropic/claude-sonnet-5-5', 'claude/claude-sonnet-5-5 null 2000', 'claude/claude-sonnet-5-5'],
  ])('gives new agents and configs the model %s, with the parameters that it accepts', async (text, config, agent) => {
    const store = await emptyStore();
    await seed(store, 'missing', { model: option(text) });
    expect(seededModels(store)).toEqual({ configs: [config], agents: [agent] });
  });

  it('keeps existing agents and configs, and gives the model to agents without a config', async () => {
    const store = await emptyStore();
    await seed(store, 'missing');
    await write(store, (state, draft) => {
      const config = state.configs.get(8);
      if (config) draft.remove('config', config);
    });
    const model = option('claude/claude-opus-5-5');
    expect(await seed(store, 'all', { model })).toEqual({ catalogue: 0, agents: 0, default_configs: 1 });
    expect(seededModels(store)).toEqual({
      configs: ['openai/gpt-4 0.7 2000', 'claude/claude-opus-5-5 null 2000'],
      agents: ['openai/gpt-4o-mini'],
    });
  });

  it.each<[WrittenModel, RegExp[]]>([
    [
      option('openai/gpt-99'),
      [
        /^--model openai\/gpt-99: Invalid model "gpt-99" for openai: .*known models: /,
        /^ {2}agentllm models create openai\/gpt-99 adds it to the catalogue$/,
        /^ {2}agentllm providers update openai --allow-unknown-models allows every model of openai$/,
      ],
    ],
    [
      { text: 'openai/gpt-99', from: 'SEED_MODEL' },
      [/^SEED_MODEL openai/, /models create/, /providers update/, /^ {2}Both need a running service: start it without/],
    ],
    [option('opnai/gpt-4'), [/^--model opnai\/gpt-4: Invalid provider "opnai": did you mean "openai"\?/]],
    [option('gpt-4'), [/^--model must be provider\/model, such as openai\/gpt-5\.4$/]],
    [option('openai/'), [/^--model must be provider\/model/]],
  ])('refuses %o with the commands that help, and creates no agents', async (model, lines) => {
    const store = await emptyStore();
    const error = await seed(store, 'missing', { model }).then(String, (reason: unknown) => reason);
    expect(error).toBeInstanceOf(StartError);
    const printed = (error as StartError).message.split('\n');
    expect(printed).toHaveLength(lines.length);
    for (const [at, line] of lines.entries()) expect(printed[at]).toMatch(line);
    expect(store.state.agents.size).toBe(0);
    // The catalogue is there, so that the next attempt finds its models.
    expect(await seed(store, 'missing', { model: option('openai/gpt-6-luna') })).toEqual({
      agents: 12,
      default_configs: 12,
    });
  });

  it('accepts a model that is not in the catalogue when its provider allows unknown models', async () => {
    const store = await emptyStore();
    await seed(store, 'missing');
    await write(store, (state, draft) => {
      const openai = state.provider('openai');
      const config = state.configs.get(1);
      if (openai) draft.update('provider', openai, { ...openai, allow_unknown_models: true, origin: 'operator' });
      if (config) draft.remove('config', config);
    });
    await seed(store, 'all', { model: option('openai/gpt-99') });
    expect(seededModels(store).configs).toContain('openai/gpt-99 null 2000');
  });

  it('does not look for the model when nothing is to be seeded', async () => {
    const store = await emptyStore();
    await seed(store, 'missing');
    expect(await seed(store, 'missing', { model: { text: 'gone/model', from: 'SEED_MODEL' } })).toEqual({});
  });
});

describe('a seed of a catalogue that an earlier release has written', () => {
  /** A store in which the seeds have written other facts about a model, at an earlier time. */
  async function earlierStore(): Promise<Store> {
    const store = await emptyStore();
    await seed(store, 'missing');
    await write(store, (state, draft) => {
      for (const name of ['gpt-4o', 'gpt-4.1', 'gpt-5.4']) {
        const model = state.model('openai', name);
        if (!model) throw new Error(`no ${name}`);
        const earlier = { ...model, context_window_tokens: 1, retires_at: null, replaced_by: null };
        // The operator has changed the second model, and the third one is new in this release.
        if (name === 'gpt-5.4') {
          for (const price of state.pricesOf(model.id)) draft.remove('price', price);
          draft.remove('model', model);
        } else draft.update('model', model, name === 'gpt-4.1' ? { ...earlier, origin: 'operator' } : earlier);
        if (name === 'gpt-5.4') continue;
        for (const price of state.pricesOf(model.id))
          draft.update('price', price, { ...price, cached_input_micro_usd_per_million: null });
      }
    });
    return store;
  }
  const facts = ({ state }: Store, name: string) => {
    const model = state.model('openai', name);
    return [model?.context_window_tokens, model?.retires_at?.toISOString().slice(0, 10), model?.replaced_by];
  };
  const cachedRates = ({ state }: Store, name: string) =>
    state.pricesOf(state.model('openai', name)?.id ?? 0).map((price) => price.cached_input_micro_usd_per_million);

  it('updates rows of the seeds, adds new models, and keeps rows that an operator has changed', async () => {
    const store = await earlierStore();
    await seed(store, 'all');
    expect(facts(store, 'gpt-4o')).toEqual([128_000, '2027-01-14', 'gpt-6-luna']);
    expect(facts(store, 'gpt-4.1')).toEqual([1, undefined, null]);
    expect(facts(store, 'gpt-5.4')).toEqual([1_050_000, undefined, null]);
  });

  it('adds a changed price as a new row, valid from now, only for models that no operator has changed', async () => {
    const store = await earlierStore();
    const before = Date.now();
    await seed(store, 'all');
    expect(cachedRates(store, 'gpt-4o')).toEqual([null, 1_250_000]);
    expect(cachedRates(store, 'gpt-4.1')).toEqual([null]);
    const added = store.state.pricesOf(store.state.model('openai', 'gpt-4o')?.id ?? 0).at(-1);
    expect(added?.valid_from.getTime()).toBeGreaterThanOrEqual(before - 1_000);
    expect(await seed(store, 'all')).toEqual({ catalogue: 0, agents: 0, default_configs: 0 });
    expect(cachedRates(store, 'gpt-4o')).toEqual([null, 1_250_000]);
  });
});
