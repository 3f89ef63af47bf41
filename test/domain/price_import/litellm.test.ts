import { describe, expect, it } from 'vitest';
import { litellmModels } from '../../../src/domain/price_import/litellm.js';
import { fixture, modelsIn, readJson } from './support.js';

const read = (entries: object) => modelsIn(litellmModels, JSON.stringify(entries));
/** The entry of one model, with more fields or others. */
const one = (fields: object) =>
  read({ m: { litellm_provider: 'openai', mode: 'chat', input_cost_per_token: 1e-6, ...fields } }).get('m');

describe('litellmModels', () => {
  it('reads rates, tiers and facts of the models that use tokens', () => {
    const models = modelsIn(litellmModels, fixture('litellm'));
    expect([...models.keys()]).toEqual([
      'gpt-6.1-sol',
      'claude-opus-5',
      'claude-haiku-5-5',
      'xai/grok-4.7',
      'deepseek/deepseek-v4-pro',
      'azure/gpt-6.1-sol',
    ]);
    expect(models.get('gpt-6.1-sol')).toEqual({
      provider: 'openai',
      name: 'gpt-6.1-sol',
      entry: 'gpt-6.1-sol',
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

  it('reads long cache writes, also of a tier, and removes the prefix of the provider', () => {
    const models = modelsIn(litellmModels, fixture('litellm'));
    const haiku = models.get('claude-haiku-5-5')?.price;
    expect(haiku?.rates.cache_write_long_micro_usd_per_million).toBe(200_000);
    expect(haiku?.tiers).toEqual([
      {
        above_input_tokens: 100_000,
        rates: {
          input_micro_usd_per_million: 500_000,
          cached_input_micro_usd_per_million: 50_000,
          cache_write_micro_usd_per_million: 625_000,
          cache_write_long_micro_usd_per_million: 1_000_000,
          output_micro_usd_per_million: 2_500_000,
        },
      },
    ]);
    expect(models.get('xai/grok-4.7')).toMatchObject({ provider: 'xai', name: 'grok-4.7' });
    expect(models.get('deepseek/deepseek-v4-pro')?.price.rates).toMatchObject({ cache_write_micro_usd_per_million: 0 });
  });

  it('orders several tiers by their thresholds', () => {
    const tiers = one({ input_cost_per_token_above_272k_tokens: 3e-6, input_cost_per_token_above_128k_tokens: 2e-6 });
    expect(tiers?.price.tiers.map(({ above_input_tokens }) => above_input_tokens)).toEqual([128_000, 272_000]);
  });

  it.each([
    [{ output_cost_per_token: '1e-6' }, 'output_cost_per_token must be a number'],
    [{ output_cost_per_token: [1] }, 'output_cost_per_token must be a number'],
    [{ output_cost_per_token: -1e-6 }, 'output_cost_per_token must not be negative: -0.000001'],
    [
      { output_cost_per_token: 1.5000000000000002e-6 },
      'output_cost_per_token is not a whole number of micro-USD per million tokens: 0.0000015000000000000002',
    ],
    [{ output_cost_per_token: 2 }, 'output_cost_per_token must be at most 1 USD per token, not 2'],
    [{ output_cost_per_token: 1e300 }, 'output_cost_per_token must be at most 1 USD per token, not 1e+300'],
    [{ mode: 7 }, 'mode must be a text'],
    [{ tiered_pricing: [] }, 'tiered_pricing is not supported'],
    [{ input_cost_per_token_off_peak: 1e-7 }, 'input_cost_per_token_off_peak is not supported'],
    [{ input_cost_per_token_above_0k_tokens: 1e-6 }, 'the price has a context tier above 0 tokens'],
    [
      Object.fromEntries([1, 2, 3, 4, 5, 6, 7, 8, 9].map((k) => [`input_cost_per_token_above_${k}k_tokens`, 1e-6])),
      'the price has more than 8 context tiers',
    ],
  ])('reports %j as a problem of the entry', (fields, problem) => {
    expect(one(fields)?.problems).toEqual([problem]);
  });

  it.each([
    [{ max_input_tokens: 'many' }, 'max_input_tokens must be a number'],
    [{ max_input_tokens: -5 }, 'max_input_tokens must be a whole number of tokens, not -5'],
    [{ max_output_tokens: 1e12 }, 'max_output_tokens must be a whole number of tokens, not 1000000000000'],
    [{ supports_vision: 'yes' }, 'supports_vision must be true or false'],
    [{ deprecation_date: 'soon' }, 'deprecation_date must be a date'],
    [{ deprecation_date: '2026-13-45' }, 'deprecation_date must be a date'],
  ])('reports %j as a problem of the facts, and reads the price', (fields, problem) => {
    expect(one(fields)).toMatchObject({
      price: { rates: { input_micro_usd_per_million: 1_000_000 } },
      problems: [],
      factProblems: [problem],
    });
  });

  it('reads null, an empty text and 0 tokens as unknown', () => {
    expect(one({ output_cost_per_token: null, max_input_tokens: 0, deprecation_date: '' })).toMatchObject({
      price: { rates: { input_micro_usd_per_million: 1_000_000 }, tiers: [] },
      facts: {},
      problems: [],
      factProblems: [],
    });
  });

  it('reports a field and an entry that occur twice', () => {
    const text =
      '{"m": {"litellm_provider": "openai", "max_tokens": 1, "max_tokens": 2}, "n": {}, "n": {"litellm_provider": "x"}}';
    const models = modelsIn(litellmModels, text);
    expect(models.get('m')?.problems).toEqual(['max_tokens occurs twice']);
    expect(models.get('n')?.problems).toEqual(['the entry occurs twice']);
  });

  it('reports at most 5 problems of an entry', () => {
    const fields = Object.fromEntries(
      Array.from({ length: 20 }, (_, k) => [`input_cost_per_token_above_${k + 1}k_tokens`, 'x']),
    );
    expect(one(fields)?.problems).toHaveLength(5);
  });

  it('reads no model from another file', () => {
    for (const text of ['[]', '1', 'null', '{"a": 1, "b": {"models": {}}}', fixture('models_dev')])
      expect([...litellmModels(readJson(text))].filter((model) => model !== undefined)).toEqual([]);
  });
});
