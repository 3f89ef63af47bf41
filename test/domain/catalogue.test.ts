import { describe, expect, it } from 'vitest';
import type { Dialect, WireApi } from '../../gen/ts/agentllm/v1/provider.js';
import { seedCatalogue } from '../../seeds/catalogue.js';
import { addressList } from '../../src/domain/addresses.js';
import {
  checkModel,
  checkProvider,
  fixedFields,
  modelOutputOnly,
  newModel,
  newModelFields,
  newProvider,
  newProviderFields,
  patchModel,
  patchProvider,
  providerFields,
  providerOutputOnly,
  usersOf,
} from '../../src/domain/catalogue.js';
import { readPatch } from '../../src/domain/patch.js';
import type { Provider } from '../../src/domain/rows.js';
import { agentRow, configRow, seeded } from './support.js';

const untiered = { tiers: [], windows: [] };
const noRanges = addressList([]);

const { state } = seeded(seedCatalogue);
const provider = { name: 'local', dialect: 'DIALECT_OPENAI_COMPATIBLE', base_url: 'https://llm.example.com/v1' };

function writeProvider(body: object, before = newProvider(), mask: readonly string[] = []) {
  const specs = before.id === 0 ? newProviderFields : providerFields;
  const patch = readPatch({ body, mask, specs, outputOnly: providerOutputOnly, at: 'provider' });
  const row = patchProvider(before, patch);
  return { patch, row, violations: [...patch.violations, ...checkProvider(state, row, patch, noRanges)] };
}

describe('a provider', () => {
  it('has the defaults of its table when only required fields are set', () => {
    const { row, violations } = writeProvider(provider);
    expect(violations).toEqual([]);
    expect(row).toMatchObject({
      ...provider,
      wire_api: 'WIRE_API_CHAT_COMPLETIONS',
      display_name: null,
      aliases: [],
      api_key_env_vars: [],
      built_in: false,
      enabled: true,
      allow_unknown_models: true,
      parameter_rules: [],
      origin: 'operator',
    });
  });

  it('requires a name, a dialect and a base URL', () => {
    expect(writeProvider({ dialect: 'DIALECT_UNSPECIFIED', name: '', base_url: '' }).violations).toEqual(
      ['name', 'dialect', 'base_url'].map((field) => ({ field: `provider.${field}`, description: 'is required' })),
    );
  });

  it.each([
    [{ name: 'Local.Box_1-a' }, { name: 'local.box_1-a' }],
    [{ aliases: ['Ollama', 'vllm'] }, { aliases: ['ollama', 'vllm'] }],
    [{ api_key_env_vars: ['LOCAL_API_KEY', 'X_1_API_KEY'] }, { api_key_env_vars: ['LOCAL_API_KEY', 'X_1_API_KEY'] }],
    [
      { enabled: false, allow_unknown_models: false },
      { enabled: false, allow_unknown_models: false },
    ],
    [
      { parameter_rules: [{ ...emptyRule('seed'), minimum: 0, maximum: 0 }] },
      { parameter_rules: [{ parameter: 'seed', support: 'PARAMETER_SUPPORT_ACCEPTED', minimum: 0, maximum: 0 }] },
    ],
  ])('created with %o is stored with %o', (sent, stored) => {
    const { row, violations } = writeProvider({ ...provider, ...sent });
    expect(violations).toEqual([]);
    expect(row).toMatchObject(stored);
    if ('parameter_rules' in stored) expect(row.parameter_rules).toEqual(stored.parameter_rules);
  });

  const rules = (...parameter_rules: object[]) => ({ parameter_rules });
  it.each([
    [{ name: '-local' }, 'name'],
    [{ name: 'lo cal' }, 'name'],
    [{ name: 'löcal' }, 'name'],
    [{ name: 'x'.repeat(51) }, 'name'],
    [{ aliases: ['a', 'A'] }, 'aliases'],
    [{ aliases: ['local'] }, 'aliases'],
    [{ aliases: ['a b'] }, 'aliases[0]'],
    [{ aliases: Array.from({ length: 21 }, (_, at) => `a${at}`) }, 'aliases'],
    [{ dialect: 'DIALECT_FRENCH' }, 'dialect'],
    [{ wire_api: 'WIRE_API_MORSE' }, 'wire_api'],
    [{ wire_api: 'WIRE_API_MESSAGES' }, 'wire_api'],
    [{ dialect: 'DIALECT_ANTHROPIC', wire_api: 'WIRE_API_CHAT_COMPLETIONS' }, 'wire_api'],
    [{ dialect: 'DIALECT_OPENAI_RESPONSES', wire_api: 'WIRE_API_CHAT_COMPLETIONS' }, 'wire_api'],
    [{ base_url: 'http://llm.example.com' }, 'base_url'],
    [{ base_url: 'https://10.0.0.1' }, 'base_url'],
    [{ base_url: `https://llm.example.com/${'x'.repeat(500)}` }, 'base_url'],
    [{ api_key_env_vars: ['OPENAI_API_KEY'] }, 'api_key_env_vars'],
    [{ api_key_env_vars: ['LOCAL_API_KEY', 'XAI_API_KEY'] }, 'api_key_env_vars'],
    [{ api_key_env_vars: ['PATH'] }, 'api_key_env_vars[0]'],
    [{ api_key_env_vars: ['local_API_KEY'] }, 'api_key_env_vars[0]'],
    [{ api_key_env_vars: ['_API_KEY_'] }, 'api_key_env_vars[0]'],
    [{ api_key_env_vars: ['A_API_KEY\n'] }, 'api_key_env_vars[0]'],
    [{ api_key_env_vars: ['A', 'B', 'C', 'D', 'E', 'F'].map((letter) => `${letter}_API_KEY`) }, 'api_key_env_vars'],
    [rules(emptyRule('penalty')), 'parameter_rules[0].parameter'],
    [rules({ ...emptyRule('seed'), support: 'PARAMETER_SUPPORT_UNSPECIFIED' }), 'parameter_rules[0].support'],
    [rules({ ...emptyRule('seed'), minimum: 1e13 }), 'parameter_rules[0].minimum'],
    [rules({ ...emptyRule('seed'), minimum: 2, maximum: 1 }), 'parameter_rules[0]'],
    [rules({ ...emptyRule('seed'), not_with: ['penalty'] }), 'parameter_rules[0].not_with[0]'],
    [rules(emptyRule('seed'), emptyRule('seed')), 'parameter_rules'],
  ])('is rejected with %o: %s', (sent, field) => {
    const { violations } = writeProvider({ ...provider, ...sent });
    expect(violations.map((violation) => violation.field)).toEqual([`provider.${field}`]);
  });

  it('cannot be renamed', () => {
    const before = { ...newProvider(), ...provider, id: 9, dialect: 'DIALECT_OPENAI' as const };
    const { violations } = writeProvider({ name: 'other' }, before, ['name']);
    expect(violations).toEqual([{ field: 'update_mask', description: 'names "name", which cannot be changed' }]);
  });

  it('keeps an invalid stored base URL when the update does not set it', () => {
    const before = {
      ...newProvider(),
      ...provider,
      id: 9,
      dialect: 'DIALECT_OPENAI' as const,
      base_url: 'http://10.0.0.1',
    };
    expect(writeProvider({ display_name: 'Local' }, before).violations).toEqual([]);
    expect(writeProvider({ base_url: 'http://10.0.0.1' }, before).violations).toHaveLength(1);
  });

  it('has fixed fields, which determine the recipient of its key, when it is built in', () => {
    const before = state.provider('openai') ?? newProvider();
    const all = { ...provider, display_name: 'x', aliases: ['oai'], enabled: false, allow_unknown_models: true };
    const fixed = (body: object, mask: readonly string[] = []) => {
      const { patch, row } = writeProvider(body, before, mask);
      return fixedFields(patch, before, row).sort();
    };
    const rules = [emptyRule('seed')];
    const every = { ...all, wire_api: 'WIRE_API_RESPONSES', api_key_env_vars: ['A_API_KEY'], parameter_rules: rules };
    expect(fixed(every)).toEqual(['api_key_env_vars', 'base_url', 'dialect', 'parameter_rules', 'wire_api']);
    expect(fixed({}, ['parameter_rules', 'aliases'])).toEqual(['parameter_rules']);
    expect(fixed({ enabled: false })).toEqual([]);
    // A caller may send back what it has read.
    expect(fixed({ enabled: false, wire_api: before.wire_api, base_url: before.base_url })).toEqual([]);
  });

  const stored = (dialect: Dialect, wire_api: WireApi) => ({ ...newProvider(), ...provider, id: 9, dialect, wire_api });
  const [chat, responses, messages] = ['WIRE_API_CHAT_COMPLETIONS', 'WIRE_API_RESPONSES', 'WIRE_API_MESSAGES'] as const;

  it.each([
    ['DIALECT_OPENAI', chat],
    ['DIALECT_OPENAI_COMPATIBLE', chat],
    ['DIALECT_OPENAI_RESPONSES', responses],
    ['DIALECT_ANTHROPIC', messages],
  ])('has by default, with %s, %s', (dialect, wire_api) => {
    expect(writeProvider({ ...provider, dialect })).toMatchObject({ row: { wire_api }, violations: [] });
    expect(writeProvider({ ...provider, dialect, wire_api: 'WIRE_API_UNSPECIFIED' }).row.wire_api).toBe(wire_api);
  });

  it.each(['DIALECT_OPENAI', 'DIALECT_OPENAI_COMPATIBLE'])('may use Responses with %s', (dialect) => {
    const { row, violations } = writeProvider({ ...provider, dialect, wire_api: responses });
    expect([row.wire_api, violations]).toEqual([responses, []]);
  });

  it('is rejected with the wire APIs that its dialect has', () => {
    const { violations } = writeProvider({ ...provider, wire_api: messages });
    expect(violations).toEqual([
      {
        field: 'provider.wire_api',
        description: `must be ${chat} or ${responses} for DIALECT_OPENAI_COMPATIBLE, not ${messages}`,
      },
    ]);
  });

  it.each<[string, object, string[], Provider, WireApi]>([
    ['the dialect without a wire API', { dialect: 'DIALECT_ANTHROPIC' }, [], stored('DIALECT_OPENAI', chat), messages],
    [
      'to a dialect that permits the stored one',
      { dialect: 'DIALECT_OPENAI' },
      [],
      stored('DIALECT_OPENAI_RESPONSES', responses),
      chat,
    ],
    [
      'both, with the stored wire API',
      { dialect: 'DIALECT_OPENAI', wire_api: responses },
      ['dialect', 'wire_api'],
      stored('DIALECT_OPENAI_COMPATIBLE', responses),
      responses,
    ],
    ['to no wire API', {}, ['wire_api'], stored('DIALECT_OPENAI', responses), chat],
    ['only other fields', { enabled: false }, [], stored('DIALECT_OPENAI', responses), responses],
    ['to the same dialect', { dialect: 'DIALECT_OPENAI' }, [], stored('DIALECT_OPENAI', responses), responses],
  ])('has a valid wire API after a change of %s', (_, body, mask, before, wire_api) => {
    const { row, violations } = writeProvider(body, before, mask);
    expect([violations, row.wire_api]).toEqual([[], wire_api]);
  });

  it('is rejected when a change names a wire API that the new dialect does not have', () => {
    const { violations } = writeProvider(
      { dialect: 'DIALECT_ANTHROPIC', wire_api: chat },
      stored('DIALECT_OPENAI', chat),
    );
    expect(violations.map(({ field }) => field)).toEqual(['provider.wire_api']);
  });

  it('accepts its own aliases and key variables when it is built in', () => {
    const before = state.provider('grok') ?? newProvider();
    expect(writeProvider({ aliases: ['xai', 'x'], api_key_env_vars: ['XAI_API_KEY'] }, before).violations).toEqual([]);
  });
});

describe('a model', () => {
  const model = { provider: 'openai', name: 'gpt-9' };
  const write = (body: object) => {
    const patch = readPatch({ body, mask: [], specs: newModelFields, outputOnly: modelOutputOnly, at: 'model' });
    const row = patchModel(newModel(), patch);
    return { patch, row, violations: [...patch.violations, ...checkModel(row, patch)] };
  };

  it('has null for every capability that was not set', () => {
    const { row, violations } = write(model);
    expect(violations).toEqual([]);
    expect(row).toEqual({ ...newModel(), ...model });
    for (const unknown of ['context_window_tokens', 'max_output_tokens', 'supports_vision', 'as_of', 'retires_at'])
      expect(row).toHaveProperty(unknown, null);
  });

  it('requires a provider and a name', () => {
    expect(write({ provider: '', name: '' }).violations).toEqual([
      { field: 'model.provider', description: 'is required' },
      { field: 'model.name', description: 'is required' },
    ]);
  });

  it('has its price separate from the row, and 0 is a valid price', () => {
    const price = {
      input_micro_usd_per_million: 0n,
      output_micro_usd_per_million: 1_000_000_000_000n,
      source: 'x',
      ...untiered,
    };
    const { patch, row, violations } = write({ ...model, price });
    expect(violations).toEqual([]);
    expect(patch.set['price']).toEqual({
      input_micro_usd_per_million: 0,
      output_micro_usd_per_million: 1_000_000_000_000,
      source: 'x',
      ...untiered,
    });
    expect(row).not.toHaveProperty('price');
  });

  it.each([
    [{ name: 'x'.repeat(101) }, 'name'],
    [{ context_window_tokens: 0 }, 'context_window_tokens'],
    [{ max_output_tokens: -1 }, 'max_output_tokens'],
    [{ replaced_by: ' ' }, 'replaced_by'],
    [{ as_of: new Date(Number.NaN) }, 'as_of'],
    [{ retires_at: new Date('+010000-01-01T00:00:00Z') }, 'retires_at'],
    [{ retires_at: new Date('-000001-01-01T00:00:00Z') }, 'retires_at'],
    [{ price: { input_micro_usd_per_million: -1n, source: '', ...untiered } }, 'price.input_micro_usd_per_million'],
    [
      { price: { output_micro_usd_per_million: 1_000_000_000_001n, source: '', ...untiered } },
      'price.output_micro_usd_per_million',
    ],
    [{ price: { source: 'x'.repeat(201), ...untiered } }, 'price.source'],
  ])('is rejected with %o: %s', (sent, field) => {
    expect(write({ ...model, ...sent }).violations.map((violation) => violation.field)).toEqual([`model.${field}`]);
  });
});

describe('usersOf', () => {
  it('counts each config once and each agent that uses a provider or model', () => {
    const world = seeded(seedCatalogue);
    world.write((_, draft) => draft.create('agent', agentRow({ llm_provider: 'openai', llm_model: 'gpt-4' })));
    for (const fields of [
      { model_name: 'gpt-4', fallback_provider: 'openai', fallback_model: 'gpt-4o' },
      { provider: 'claude', model_name: 'claude-opus-5', fallback_provider: 'openai', fallback_model: 'gpt-4' },
      { provider: 'grok', model_name: 'gpt-4', enabled: false },
    ])
      world.write((_, draft) => draft.create('config', configRow(fields)));
    const count = (...target: [string, string?]) => usersOf(world.state, ...target);
    expect([count('openai'), count('openai', 'gpt-4'), count('openai', 'gpt-4o'), count('grok')]).toEqual([3, 3, 1, 1]);
    expect([count('claude'), count('deepseek'), count('openai', 'gpt-5')]).toEqual([1, 0, 0]);
  });
});

/** A decoded rule message in which no optional field is set. */
function emptyRule(parameter: string) {
  return {
    parameter,
    support: 'PARAMETER_SUPPORT_ACCEPTED',
    minimum: undefined,
    maximum: undefined,
    allowed_values: [],
    wire_name: '',
    not_with: [],
    accepted_with_reasoning_effort: [],
    required_default: undefined,
  };
}
