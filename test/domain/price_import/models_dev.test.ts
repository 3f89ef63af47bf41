import { describe, expect, it } from 'vitest';
import { modelsDevModels } from '../../../src/domain/price_import/models_dev.js';
import { fixture, modelsIn, readJson } from './support.js';

const one = (model: unknown) =>
  modelsIn(modelsDevModels, JSON.stringify({ openai: { models: { m: model } } })).get('openai/m');

describe('modelsDevModels', () => {
  it('reads rates, tiers and facts of the models that return text', () => {
    const models = modelsIn(modelsDevModels, fixture('models_dev'));
    expect([...models.keys()]).toEqual(['anthropic/claude-opus-5', 'openai/gpt-6.1-sol', 'xai/grok-4.7']);
    expect(models.get('openai/gpt-6.1-sol')).toEqual({
      provider: 'openai',
      name: 'gpt-6.1-sol',
      entry: 'openai/gpt-6.1-sol',
      price: {
        rates: {
          input_micro_usd_per_million: 2_000_000,
          cached_input_micro_usd_per_million: 100_000,
          cache_write_micro_usd_per_million: 2_500_000,
          output_micro_usd_per_million: 10_000_000,
        },
        tiers: [
          {
            above_input_tokens: 272_000,
            rates: {
              input_micro_usd_per_million: 4_000_000,
              cached_input_micro_usd_per_million: 200_000,
              cache_write_micro_usd_per_million: 5_000_000,
              output_micro_usd_per_million: 15_000_000,
            },
          },
        ],
      },
      facts: {
        display_name: 'GPT-6.1 Sol',
        context_window_tokens: 922_000,
        max_output_tokens: 128_000,
        supports_functions: true,
        supports_vision: true,
        supports_reasoning: true,
        supports_structured_output: true,
      },
      problems: [],
      factProblems: [],
    });
  });

  it('reads the tier in context_over_200k if there is no list of tiers', () => {
    const { price, facts } = modelsIn(modelsDevModels, fixture('models_dev')).get('xai/grok-4.7') ?? {};
    expect(price?.tiers).toEqual([
      {
        above_input_tokens: 200_000,
        rates: {
          input_micro_usd_per_million: 4_000_000,
          cached_input_micro_usd_per_million: 1_000_000,
          output_micro_usd_per_million: 12_000_000,
        },
      },
    ]);
    expect(facts).toMatchObject({ supports_vision: false });
  });

  it.each([
    [null, 'the entry must be an object'],
    [{ cost: 5 }, 'cost must be an object'],
    [{ cost: { input: '5' } }, 'cost.input must be a number'],
    [{ cost: { input: -1 } }, 'cost.input must not be negative: -1'],
    [{ cost: { output: 0.1234567 } }, 'cost.output is not a whole number of micro-USD per million tokens: 0.1234567'],
    [{ cost: { output: 1_000_001 } }, 'cost.output must be at most 1000000 USD per million tokens, not 1000001'],
    [{ cost: { input: 1, tiers: 7 } }, 'cost.tiers must be a list'],
    [{ cost: { input: 1, tiers: [7] } }, 'cost.tiers[0] is not a context tier'],
    [
      { cost: { input: 1, tiers: [{ input: 2, tier: { type: 'hour', size: 3 } }] } },
      'cost.tiers[0] is not a context tier',
    ],
    [
      { cost: { input: 1, tiers: [{ input: 'x', tier: { type: 'context', size: 9 } }] } },
      'cost.tiers[0].input must be a number',
    ],
  ])('reports %j as a problem of the entry', (model, problem) => {
    expect(one(model)?.problems).toEqual([problem]);
  });

  it('reports a value that is nested too deep, and reads the other models', () => {
    const deep = `${'['.repeat(100)}${']'.repeat(100)}`;
    const text = `{"openai": {"models": {"a": {"cost": {"input": ${deep}}}, "b": {"cost": {"input": 1}}}}}`;
    const models = modelsIn(modelsDevModels, text);
    expect(models.get('openai/a')?.problems).toEqual(['cost.input must be a number']);
    expect(models.get('openai/b')).toMatchObject({
      problems: [],
      price: { rates: { input_micro_usd_per_million: 1_000_000 } },
    });
  });

  it('reports facts of another type without rejecting the price', () => {
    expect(one({ cost: { input: 1 }, limit: { context: 'x' }, tool_call: 1, name: 5 })).toMatchObject({
      problems: [],
      factProblems: ['name must be a text', 'limit.context must be a number', 'tool_call must be true or false'],
    });
  });

  it('reads no model from another file', () => {
    for (const text of ['[]', '"x"', '{"a": 1, "b": {"models": []}}', fixture('litellm')])
      expect([...modelsDevModels(readJson(text))].filter((model) => model !== undefined)).toEqual([]);
  });
});
