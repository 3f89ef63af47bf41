import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { seedCatalogue } from '../../seeds/catalogue.js';
import { checkConfig, newConfig, patchConfig } from '../../src/domain/config.js';
import type { Config } from '../../src/domain/rows.js';
import { configPatch, configRow, seeded } from './support.js';

const world = seeded(seedCatalogue);
const local = world.provider({
  name: 'local',
  aliases: ['ollama'],
  dialect: 'DIALECT_OPENAI_COMPATIBLE',
  base_url: 'https://llm.example.com/v1',
});
world.provider({ name: 'off', enabled: false, dialect: 'DIALECT_OPENAI', base_url: 'https://off.example.com' });
world.model({
  provider: 'local',
  name: 'picky',
  max_output_tokens: 1000,
  parameter_rules: [
    {
      parameter: 'temperature',
      support: 'PARAMETER_SUPPORT_REJECTED',
      maximum: 1,
      accepted_with_reasoning_effort: ['none'],
    },
    { parameter: 'reasoning_effort', support: 'PARAMETER_SUPPORT_ACCEPTED', allowed_values: ['none', 'high'] },
    { parameter: 'thinking_budget_tokens', support: 'PARAMETER_SUPPORT_IGNORED' },
    { parameter: 'top_p', support: 'PARAMETER_SUPPORT_ACCEPTED', minimum: 0.1, maximum: 0.9 },
  ],
});
const { state } = world;

/** The row that a write of `body` over `before` would store, and its violations. */
function write(before: Config, body: object, mask: readonly string[] = [], allowUnknownModel = false) {
  const patch = configPatch(body, mask);
  const row = patchConfig(state, before, patch);
  const checked = checkConfig(state, row, patch, { at: 'config', allowUnknownModel });
  return { row, violations: [...patch.violations, ...checked] };
}
const create = (body: object, allowUnknownModel = false) => write(newConfig(1, 0), body, [], allowUnknownModel);
const gpt4 = { provider: 'openai', model_name: 'gpt-4' };

describe('a new config', () => {
  it('has the defaults of the original Python system', () => {
    const { row, violations } = create(gpt4);
    expect(violations).toEqual([]);
    expect(row).toEqual({
      ...newConfig(1, 0),
      ...gpt4,
      temperature: 0.7,
      max_tokens: null,
      top_p: null,
      fallback_provider: null,
      fallback_model: null,
      cost_per_1k_input_tokens: 0,
      cost_per_1k_output_tokens: 0,
      price_given: false,
      enabled: true,
      metadata_json: null,
      extra_params: null,
    });
  });

  it('requires a provider and a model', () => {
    expect(create({}).violations).toEqual([
      { field: 'config.provider', description: 'is required' },
      { field: 'config.model_name', description: 'is required' },
    ]);
  });

  it('reports a rejected field once, not also as missing', () => {
    const { violations } = create({ provider: 'a\nb', model_name: '' });
    expect(violations).toEqual([
      { field: 'config.provider', description: 'must not contain control characters' },
      { field: 'config.model_name', description: 'must not be empty' },
    ]);
  });

  it('stores 0 as a value in every field whose range includes 0', () => {
    const zeros = { temperature: 0, top_p: 0, cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0, priority: 0 };
    const { row, violations } = create({ ...gpt4, ...zeros, enabled: false, extra_params: { seed: 0n } });
    expect(violations).toEqual([]);
    expect(row).toMatchObject({ ...zeros, enabled: false, price_given: true, extra_params: { seed: 0 } });
  });

  it('stores negative zero as 0', () => {
    const { row } = create({ ...gpt4, temperature: -0, top_p: -0, cost_per_1k_input_tokens: -0 });
    for (const value of [row.temperature, row.top_p, row.cost_per_1k_input_tokens])
      expect(Object.is(value, 0)).toBe(true);
  });

  it.each([
    ['temperature', 2.01],
    ['temperature', -0.1],
    ['temperature', Number.NaN],
    ['temperature', Infinity],
    ['top_p', 1.01],
    ['max_tokens', 0],
    ['max_tokens', 2_147_483_648],
    ['cost_per_1k_input_tokens', -1],
    ['cost_per_1k_output_tokens', 1_000_001],
    ['priority', 1_000_001],
    ['metadata_json', '[]'],
    ['metadata_json', '{"a":1,"a":2}'],
    ['model_name', 'x'.repeat(101)],
    ['provider', 'x'.repeat(51)],
  ])('is rejected with %s %s', (field, value) => {
    const { violations } = create({ ...gpt4, [field]: value });
    expect(violations.map((violation) => violation.field)).toEqual([`config.${field}`]);
  });

  it.each([
    [{ thinking_budget_tokens: 1_000_001 }, 'thinking_budget_tokens'],
    [{ stop_sequences: [''] }, 'stop_sequences[0]'],
    [{ stop_sequences: Array.from({ length: 17 }, (_, at) => `s${at}`) }, 'stop_sequences'],
    [{ seed: 9_007_199_254_740_992n }, 'seed'],
    [{ request_timeout_ms: 0 }, 'request_timeout_ms'],
    [{ reasoning_effort: 'x'.repeat(21) }, 'reasoning_effort'],
  ])('is rejected with extra parameters %o', (extra_params, field) => {
    const { violations } = create({ provider: 'local', model_name: 'any', extra_params });
    expect(violations.map((violation) => violation.field)).toEqual([`config.extra_params.${field}`]);
  });
});

describe('the names of a config', () => {
  it.each([
    ['openai', 'openai'],
    ['OpenAI', 'openai'],
    ['anthropic', 'claude'],
    ['XAI', 'grok'],
    ['x-ai', 'grok'],
    ['Ollama', 'local'],
  ])('are stored in canonical form: %s as %s', (written, stored) => {
    const { row } = create(
      { provider: written, model_name: 'm', fallback_provider: written, fallback_model: 'n' },
      true,
    );
    expect([row.provider, row.fallback_provider]).toEqual([stored, stored]);
  });

  it('are rejected with the known providers and a suggestion when the provider is unknown', () => {
    const { violations } = create({ provider: 'opnai', model_name: 'gpt-4' });
    expect(violations).toEqual([
      {
        field: 'config.provider',
        description:
          'Invalid provider "opnai": did you mean "openai"? known providers: claude, deepseek, grok, local, off, openai',
      },
    ]);
  });

  it('are rejected when the provider is disabled', () => {
    expect(create({ provider: 'off', model_name: 'm' }).violations).toEqual([
      { field: 'config.provider', description: 'Invalid provider "off": it is disabled' },
    ]);
  });

  it('are rejected with the known models and a suggestion when the model is unknown', () => {
    const [violation, ...others] = create({ provider: 'openai', model_name: 'gpt-4p' }).violations;
    expect(others).toEqual([]);
    expect(violation?.field).toBe('config.model_name');
    expect(violation?.description).toMatch(
      /^Invalid model "gpt-4p" for openai: did you mean "gpt-4o?"\? known models: /,
    );
    const known = violation?.description.replace(/.*known models: /, '').split(', ');
    const current = state.modelsOf('openai').filter((model) => model.retires_at === null);
    expect(known).toEqual(current.map(({ name }) => name));
    expect(known).not.toContain('gpt-4');
  });

  it('are rejected with all models when every known model has a successor', () => {
    world.provider({
      name: 'old',
      dialect: 'DIALECT_OPENAI',
      base_url: 'https://old.example.com',
      allow_unknown_models: false,
    });
    world.model({ provider: 'old', name: 'first', replaced_by: 'second' });
    expect(create({ provider: 'old', model_name: 'x' }).violations[0]?.description).toBe(
      'Invalid model "x" for old: known models: first',
    );
  });

  it('are rejected with at most 12 known models and the number of further models', () => {
    const [violation] = create({ provider: 'claude', model_name: 'claude-sonnet-9' }).violations;
    expect(violation?.description).toMatch(/^Invalid model "claude-sonnet-9" for claude: did you mean "claude-sonnet-/);
    const current = state.modelsOf('claude').filter(({ retires_at }) => retires_at === null);
    expect(violation?.description).toContain(` and ${current.length - 12} more`);
  });

  it('are rejected when the model belongs to another provider', () => {
    const fields = create({ provider: 'openai', model_name: 'claude-opus-5' }).violations.map(({ field }) => field);
    expect(fields).toEqual(['config.model_name']);
  });

  it('are accepted with an unknown model when the provider or the request allows it', () => {
    expect(local.allow_unknown_models).toBe(true);
    expect(create({ provider: 'local', model_name: 'never-heard-of' }).violations).toEqual([]);
    expect(create({ provider: 'openai', model_name: 'gpt-99' }, true).violations).toEqual([]);
    const fallback = { fallback_provider: 'openai', fallback_model: 'gpt-99' };
    expect(create({ ...gpt4, ...fallback }, true).violations).toEqual([]);
    expect(create({ ...gpt4, ...fallback }).violations.map(({ field }) => field)).toEqual(['config.fallback_model']);
  });
});

describe('the price of a config', () => {
  const free = { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0, price_given: true };
  const none = { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0, price_given: false };
  const paid = { cost_per_1k_input_tokens: 3, cost_per_1k_output_tokens: 5, price_given: true };
  const costs = ['cost_per_1k_input_tokens', 'cost_per_1k_output_tokens'];

  it.each([
    // stored, sent, mask, stored afterwards
    [none, {}, [], none],
    [none, { cost_per_1k_input_tokens: 0 }, [], free],
    [none, { cost_per_1k_output_tokens: 5 }, [], { ...paid, cost_per_1k_input_tokens: 0 }],
    [none, { price_given: true }, [], free],
    [none, { price_given: false }, [], none],
    [none, { price_given: false, cost_per_1k_input_tokens: 0 }, [], none],
    [paid, {}, [], paid],
    [paid, { temperature: 1 }, [], paid],
    [paid, { price_given: false }, [], none],
    [paid, {}, ['price_given'], none],
    [paid, { price_given: true }, [], paid],
    [paid, {}, ['cost_per_1k_input_tokens'], { ...paid, cost_per_1k_input_tokens: 0 }],
    [paid, {}, costs, none],
    [free, {}, costs, none],
    [paid, { cost_per_1k_input_tokens: 0 }, costs, free],
    [paid, { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0 }, [], free],
  ])('changes from %o with update %o and mask %j to %o', (stored, sent, mask, after) => {
    const { row, violations } = write(configRow(stored), sent, mask);
    expect(violations).toEqual([]);
    expect(row).toMatchObject(after);
  });

  it('is rejected when price_given is false and a cost is set', () => {
    const { violations } = write(configRow(), { price_given: false, cost_per_1k_input_tokens: 1 });
    expect(violations).toEqual([
      { field: 'config.price_given', description: 'must not be false while a cost is given' },
    ]);
  });

  // proto, price_given: "Absent in a request: true as soon as one of the costs is in it."
  it('has price_given true when a cost is sent with a mask that covers price_given', () => {
    for (const mask of [['*'], ['price_given', 'cost_per_1k_input_tokens']]) {
      const { row, violations } = write(configRow(none), { ...gpt4, cost_per_1k_input_tokens: 5 }, mask);
      expect(violations).toEqual([]);
      expect(row).toMatchObject({ cost_per_1k_input_tokens: 5, price_given: true });
    }
  });

  it('has price_given true after any writes when a cost is not 0', () => {
    const cost = fc.constantFrom(0, 1, 5);
    const body = fc.record(
      { cost_per_1k_input_tokens: cost, cost_per_1k_output_tokens: cost, price_given: fc.boolean() },
      { requiredKeys: [] },
    );
    const mask = fc.subarray([...costs, 'price_given']);
    fc.assert(
      fc.property(fc.array(fc.tuple(body, mask), { maxLength: 5 }), (writes) => {
        let row = configRow();
        for (const [sent, named] of writes) {
          const next = write(row, sent, named);
          if (next.violations.length > 0) continue;
          row = next.row;
          const hasCost = row.cost_per_1k_input_tokens !== 0 || row.cost_per_1k_output_tokens !== 0;
          if (hasCost) expect(row.price_given).toBe(true);
        }
      }),
    );
  });
});

describe('the fallback of a config', () => {
  const pair = { fallback_provider: 'deepseek', fallback_model: 'deepseek-chat' };
  const violationWith = (problem: string) => (field: string) => ({ field: `config.${field}`, description: problem });
  const withModel = violationWith('must be set together with fallback_provider');
  const withProvider = violationWith('must be set together with fallback_model');
  const same = violationWith('must differ from the primary: provider and model are the same');

  it.each([
    [{}, pair, [], []],
    [{}, { fallback_provider: 'deepseek' }, [], [withModel('fallback_model')]],
    [{}, { fallback_model: 'deepseek-chat' }, [], [withProvider('fallback_provider')]],
    [pair, {}, ['fallback_provider', 'fallback_model'], []],
    [pair, {}, ['fallback_provider'], [withProvider('fallback_provider')]],
    [pair, {}, ['fallback_model'], [withModel('fallback_model')]],
    [pair, { fallback_model: 'deepseek-coder' }, [], []],
    [{}, { fallback_provider: 'openai', fallback_model: 'gpt-4o' }, [], []],
    [{}, { fallback_provider: 'openai', fallback_model: 'gpt-4' }, [], [same('fallback_model')]],
    [{}, { fallback_provider: 'OPENAI', fallback_model: 'gpt-4' }, [], [same('fallback_model')]],
    [pair, { provider: 'deepseek', model_name: 'deepseek-chat' }, [], [same('fallback_model')]],
  ])('stored as %o and updated with %o and mask %j has violations %o', (stored, sent, mask, violations) => {
    expect(write(configRow(stored), sent, mask).violations).toEqual(violations);
  });

  it.each([
    [{ fallback_provider: 'nope', fallback_model: 'm' }, 'config.fallback_provider', /^Invalid provider "nope"/],
    [{ fallback_provider: 'off', fallback_model: 'm' }, 'config.fallback_provider', /it is disabled$/],
    [{ fallback_provider: 'grok', fallback_model: 'm' }, 'config.fallback_model', /^Invalid model "m" for grok/],
  ])('is rejected with %o: %s %s', (sent, field, description) => {
    expect(create({ ...gpt4, ...sent }).violations).toEqual([
      { field, description: expect.stringMatching(description) },
    ]);
  });
});

describe('an update of a config', () => {
  const stale: Partial<Config> = {
    provider: 'gone',
    model_name: 'lost',
    fallback_provider: 'off',
    fallback_model: 'lost-too',
    temperature: 5,
    max_tokens: 1_000_000,
  };

  it.each([
    [{ priority: 4 }],
    [{ enabled: false }],
    [{ metadata_json: '{}' }],
    [{ cost_per_1k_input_tokens: 1 }],
    [{ top_p: 0.5 }],
    [{ extra_params: { request_timeout_ms: 5 } }],
  ])('is accepted with %o when only unchanged fields are invalid', (sent) => {
    const { row, violations } = write(configRow(stale), sent);
    expect(violations).toEqual([]);
    expect(row).toMatchObject({ ...stale, ...sent });
  });

  it('checks the stored parameters when the model changes', () => {
    const { violations } = write(configRow({ max_tokens: 50_000 }), { model_name: 'gpt-4-turbo' });
    expect(violations).toEqual([
      { field: 'config.max_tokens', description: 'must be at most 4096 for openai/gpt-4-turbo, not 50000' },
    ]);
  });

  // The table of the original Python system allowed half a pair, so imported rows can have one.
  it('accepts another model when the stored fallback is incomplete', () => {
    const incomplete = configRow({ fallback_provider: null, fallback_model: 'gpt-4o' });
    expect(write(incomplete, { model_name: 'gpt-4o-mini' }).violations).toEqual([]);
  });
});

describe('the parameter rules of the model', () => {
  const picky = { provider: 'local', model_name: 'picky' };

  it.each([
    [{ ...gpt4, max_tokens: 4096 }, undefined],
    [{ ...gpt4, max_tokens: 4097 }, 'must be at most 4096 for openai/gpt-4, not 4097'],
    [{ provider: 'claude', model_name: 'claude-opus-4-1', temperature: 1 }, undefined],
    [
      { provider: 'claude', model_name: 'claude-opus-4-1', temperature: 1.2 },
      'must be at most 1 for claude/claude-opus-4-1, not 1.2',
    ],
    // The default temperature of the original Python system must not exclude the newest models.
    [{ provider: 'claude', model_name: 'claude-opus-5', temperature: 0.7 }, undefined],
    [{ provider: 'openai', model_name: 'o4-mini', temperature: 2, top_p: 1 }, undefined],
    [{ provider: 'deepseek', model_name: 'deepseek-reasoner', temperature: 2 }, undefined],
    [{ ...gpt4, extra_params: { reasoning_effort: 'low' } }, 'is not accepted by openai/gpt-4; leave it out'],
    [{ ...gpt4, extra_params: { thinking_budget_tokens: 0 } }, 'is not accepted by openai/gpt-4; leave it out'],
    [
      { provider: 'grok', model_name: 'grok-beta', extra_params: { stop_sequences: ['x'] } },
      'is not accepted by grok/grok-beta; leave it out',
    ],
    [{ provider: 'grok', model_name: 'grok-4.20-non-reasoning', extra_params: { stop_sequences: ['x'] } }, undefined],
    [
      { provider: 'claude', model_name: 'claude-opus-5', extra_params: { seed: 1n } },
      'is not accepted by claude/claude-opus-5; leave it out',
    ],
    [{ ...picky, extra_params: { thinking_budget_tokens: 10 } }, undefined],
    [{ ...picky, extra_params: { reasoning_effort: 'high' } }, undefined],
    [{ ...picky, extra_params: { reasoning_effort: 'low' } }, 'must be one of none, high for local/picky, not "low"'],
    [{ ...picky, top_p: 0.05 }, 'must be at least 0.1 for local/picky, not 0.05'],
    [{ ...picky, max_tokens: 1001 }, 'must be at most 1000 for local/picky, not 1001'],
  ])('applied to %o give the violation %s', (sent, problem) => {
    expect(create(sent).violations.map(({ description }) => description)).toEqual(problem ? [problem] : []);
  });

  it('do not apply to the fallback, whose parameters are adapted', () => {
    const fallback = { fallback_provider: 'claude', fallback_model: 'claude-opus-4-1' };
    expect(create({ ...gpt4, ...fallback, temperature: 2 }).violations).toEqual([]);
  });

  // runtime.md, "Adaptation": "those with a smaller range are refused at write time".
  it('reject a value outside its range when another parameter makes the parameter acceptable', () => {
    const { violations } = create({ ...picky, temperature: 1.5, extra_params: { reasoning_effort: 'none' } });
    expect(violations).toEqual([
      { field: 'config.temperature', description: 'must be at most 1 for local/picky, not 1.5' },
    ]);
  });
});

describe('the extra parameters of a config', () => {
  const stored = { extra_params: { seed: 4, reasoning_effort: 'high' } };
  const onLocal = { provider: 'local', model_name: 'any', ...stored };

  it.each([
    [{}, [], stored.extra_params],
    [{ extra_params: {} }, [], stored.extra_params],
    [{ extra_params: { seed: 0n } }, [], { seed: 0, reasoning_effort: 'high' }],
    [{ extra_params: { stop_sequences: ['a'] } }, [], { ...stored.extra_params, stop_sequences: ['a'] }],
    [{ extra_params: { stop_sequences: ['a'] } }, ['extra_params'], { stop_sequences: ['a'] }],
    [{}, ['extra_params.seed'], { reasoning_effort: 'high' }],
    [{}, ['extra_params'], null],
    [{}, ['extra_params.seed', 'extra_params.reasoning_effort'], null],
  ])('with update %o and mask %j become %o', (sent, mask, after) => {
    const { row, violations } = write(configRow(onLocal), sent, mask);
    expect(violations).toEqual([]);
    expect(row.extra_params).toEqual(after);
  });
});
