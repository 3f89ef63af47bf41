import { describe, expect, it } from 'vitest';
import { isOverridden, withOverrides } from '../../../src/domain/experiments/variant_config.js';
import { configRow, seededCatalogue } from '../support.js';

const { state } = seededCatalogue();
const base = configRow({
  temperature: 0.3,
  max_tokens: 100,
  extra_params: { seed: 3, request_timeout_ms: 900 },
  price_given: true,
  cost_per_1k_input_tokens: 1,
  cost_per_1k_output_tokens: 2,
  key_id: 'k',
  key_revision: 4,
  credential_id: 7,
});

describe('withOverrides', () => {
  it('replaces only the settings that the variant has', () => {
    const overrides = { temperature: 0, extra_params: { seed: 5, stop_sequences: ['x'] } };
    expect(withOverrides(state, base, overrides)).toEqual({
      ...base,
      temperature: 0,
      extra_params: { seed: 5, stop_sequences: ['x'], request_timeout_ms: 900 },
    });
    expect(withOverrides(state, base, {})).toEqual(base);
  });

  it('drops the price of the config for another model, and keeps its key', () => {
    const { price_given, cost_per_1k_input_tokens, key_id, credential_id } = withOverrides(state, base, {
      provider: 'OpenAI',
      model_name: 'gpt-4o',
    });
    expect([price_given, cost_per_1k_input_tokens, key_id, credential_id]).toEqual([false, 0, 'k', 7]);
  });

  it('drops the key and the credential of the config for another provider', () => {
    const overridden = withOverrides(state, base, { provider: 'claude', model_name: base.model_name });
    const { key_id, key_revision, credential_id, price_given } = overridden;
    expect([key_id, key_revision, credential_id, price_given]).toEqual([null, null, null, false]);
  });

  it('drops the fallback of the config only if it has the model of the variant', () => {
    const withFallback = { ...base, fallback_provider: 'openai', fallback_model: 'gpt-4o' };
    const fallbackOf = (provider: string, model_name: string) => {
      const { fallback_provider, fallback_model } = withOverrides(state, withFallback, { provider, model_name });
      return [fallback_provider, fallback_model];
    };
    expect(fallbackOf('OpenAI', 'gpt-4o')).toEqual([null, null]);
    expect(fallbackOf('openai', 'gpt-4')).toEqual(['openai', 'gpt-4o']);
    expect(fallbackOf('claude', 'gpt-4o')).toEqual(['openai', 'gpt-4o']);
  });
});

describe('isOverridden', () => {
  it('states whether a variant sets a field of a config', () => {
    const variant = { overrides: { temperature: 0, extra_params: { seed: 0 } } };
    const paths = [
      'temperature',
      'extra_params.seed',
      'max_tokens',
      'extra_params.reasoning_effort',
      'priority',
      'seed',
    ];
    expect(paths.filter((path) => isOverridden(variant, path))).toEqual(['temperature', 'extra_params.seed']);
  });
});
