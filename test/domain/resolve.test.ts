import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ratesOf } from '../../src/domain/catalogue.js';
import { inChainOrder } from '../../src/domain/chain.js';
import { newCredential } from '../../src/domain/credential.js';
import { type ResolvedHop, type ResolveOptions, resolve } from '../../src/domain/resolve.js';
import type { Agent, Config, Rates } from '../../src/domain/rows.js';
import { packageFile } from '../../src/package.js';
import { agentRow, configRow, NOW, seededCatalogue } from './support.js';

const world = seededCatalogue();
const { state } = world;
world.provider({
  name: 'mine',
  aliases: ['own'],
  dialect: 'DIALECT_OPENAI_COMPATIBLE',
  base_url: 'https://llm.example.com/v1',
  api_key_env_vars: ['MINE_API_KEY', 'OPENAI_API_KEY', 'OTHER_API_KEY'],
  parameter_rules: [{ parameter: 'top_p', support: 'PARAMETER_SUPPORT_ACCEPTED', maximum: 0.5 }],
});
world.provider({ name: 'off', enabled: false, dialect: 'DIALECT_OPENAI', base_url: 'https://off.example.com' });
world.provider({ name: 'keyless', dialect: 'DIALECT_OPENAI', base_url: 'https://keyless.example.com' });
world.model({
  provider: 'mine',
  name: 'small',
  max_output_tokens: 100,
  supports_vision: false,
  supports_prefill: true,
  parameter_rules: [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_ACCEPTED', maximum: 1, wire_name: 'heat' }],
});
const priced = world.model({ provider: 'mine', name: 'priced' });
/** The facts about a model that is not in the catalogue. */
const NO_FACTS = {
  context_window_tokens: undefined,
  max_output_tokens: undefined,
  supports_functions: undefined,
  supports_vision: undefined,
  supports_reasoning: undefined,
  supports_forced_tool_choice: undefined,
  supports_prefill: undefined,
  supports_structured_output: undefined,
};
const priceOf = (rates: Partial<Rates>, valid_from: Date) =>
  world.write((_, draft) =>
    draft.create('price', {
      ...ratesOf(rates),
      source: 'the list',
      valid_from,
      id: 0,
      model_id: priced.id,
      created_at: NOW,
      revision: 0,
    }),
  );
priceOf({ input_micro_usd_per_million: 1 }, new Date(0));
const newest = priceOf({ input_micro_usd_per_million: 5, output_micro_usd_per_million: 7 }, NOW);
const desk = world.write((_, draft) =>
  draft.create('credential', { ...newCredential(), name: 'desk', provider: 'openai', key_id: 'k', key_revision: 1 }),
);

const run = (configs: readonly Config[], agent: Partial<Agent> = {}, options: ResolveOptions = {}) =>
  resolve(state, agentRow({ revision: 3, ...agent }), configs, NOW, options);
const small = (fields: Partial<Config> = {}) =>
  configRow({ id: 7, revision: 4, provider: 'mine', model_name: 'small', temperature: null, ...fields });
function only(configs: readonly Config[], agent: Partial<Agent> = {}): ResolvedHop {
  const { hops } = run(configs, agent);
  expect(hops).toHaveLength(1);
  return hops[0] as ResolvedHop;
}
const summaryOf = ({ hops, skipped }: ReturnType<typeof run>) => [
  hops.map(({ index, provider, model_name }) => `${index} ${provider}/${model_name}`),
  skipped.map(({ index, provider, reason }) => `${index} ${provider} ${reason.replace('SKIP_REASON_', '')}`),
];
const reasons = ({ findings }: ReturnType<typeof run>) =>
  findings.map(({ reason }) => reason.replace('FINDING_REASON_', ''));

describe('the hops', () => {
  it('contain every value that a call needs', () => {
    const { hops, skipped, findings } = run([
      small({ max_tokens: 50, extra_params: { request_timeout_ms: 900 }, price_given: true }),
    ]);
    expect([skipped, findings]).toEqual([[], []]);
    const { provenance, ...hop } = hops[0] as ResolvedHop;
    expect(hop).toEqual({
      index: 0,
      source: 'HOP_SOURCE_CONFIG',
      config_id: 7,
      provider: 'mine',
      dialect: 'DIALECT_OPENAI_COMPATIBLE',
      wire_api: 'WIRE_API_CHAT_COMPLETIONS',
      base_url: 'https://llm.example.com/v1',
      model_name: 'small',
      model: { ...NO_FACTS, max_output_tokens: 100, supports_vision: false, supports_prefill: true },
      parameters: [{ name: 'max_tokens', wire_name: 'max_tokens', value: 50 }],
      request_timeout_ms: 900,
      key: {
        source: 'KEY_SOURCE_ENVIRONMENT',
        name: '',
        variables: ['MINE_API_KEY', 'OTHER_API_KEY'],
        state: 'API_KEY_STATE_NONE',
      },
      price: {
        price: {
          ...ratesOf({ input_micro_usd_per_million: 0, output_micro_usd_per_million: 0 }),
          source: 'config 7',
          valid_from: undefined,
          revision: 4,
        },
        source: 'VALUE_SOURCE_CONFIG',
      },
    });
    expect(provenance.length).toBeGreaterThan(0);
  });

  it('use the wire API of the provider and its parameter rules', () => {
    world.provider({
      name: 'gateway',
      dialect: 'DIALECT_OPENAI',
      wire_api: 'WIRE_API_RESPONSES',
      base_url: 'https://gateway.example.com/v1',
    });
    const hop = only([small({ provider: 'gateway', model_name: 'any', max_tokens: 100 })]);
    expect(hop).toMatchObject({
      dialect: 'DIALECT_OPENAI',
      wire_api: 'WIRE_API_RESPONSES',
      model: NO_FACTS,
      parameters: [{ name: 'max_tokens', wire_name: 'max_output_tokens', value: 100 }],
    });
  });

  it('are the default model of the agent when no config is enabled', () => {
    const hop = only([small({ enabled: false })], {
      llm_provider: 'own',
      llm_model: 'small',
      temperature: 0,
      max_tokens: 9,
    });
    expect(hop).toMatchObject({
      source: 'HOP_SOURCE_AGENT',
      config_id: undefined,
      provider: 'mine',
      parameters: [{ wire_name: 'heat', value: 0 }, { value: 9 }],
    });
  });

  const openai = { fallback_provider: 'openai', fallback_model: 'gpt-4' };
  const chain = [
    small({ id: 1, ...openai }),
    small({ id: 2, model_name: 'priced', fallback_provider: 'off', fallback_model: 'm' }),
    small({ id: 3, provider: 'gone', fallback_provider: 'mine', fallback_model: 'small' }),
  ];
  it.each<[string, Partial<Agent>, string[], string[], string[]]>([
    [
      'no provider is down',
      {},
      [],
      ['0 mine/small', '1 openai/gpt-4', '2 mine/priced'],
      ['3 off PROVIDER_DISABLED', '4 gone PROVIDER_UNKNOWN', '5 mine DUPLICATE'],
    ],
    [
      'the first provider is down, named by its alias',
      {},
      ['OWN'],
      ['1 openai/gpt-4'],
      [
        '0 mine PROVIDER_DOWN',
        '2 mine PROVIDER_DOWN',
        '3 off PROVIDER_DISABLED',
        '4 gone PROVIDER_UNKNOWN',
        '5 mine DUPLICATE',
      ],
    ],
    [
      'the policy allows no substitute',
      { substitution_policy: 'SUBSTITUTION_POLICY_NEVER' },
      [],
      ['0 mine/small'],
      ['1 openai POLICY', '2 mine POLICY', '3 off POLICY', '4 gone POLICY', '5 mine DUPLICATE'],
    ],
    [
      'the policy allows no substitute and the first provider is down',
      { substitution_policy: 'SUBSTITUTION_POLICY_NEVER' },
      ['mine'],
      [],
      ['0 mine PROVIDER_DOWN', '1 openai POLICY', '2 mine POLICY', '3 off POLICY', '4 gone POLICY', '5 mine DUPLICATE'],
    ],
    [
      'the policy allows one provider',
      { substitution_policy: 'SUBSTITUTION_POLICY_SAME_PROVIDER' },
      ['openai'],
      ['0 mine/small', '2 mine/priced'],
      ['1 openai POLICY', '3 off POLICY', '4 gone POLICY', '5 mine DUPLICATE'],
    ],
    [
      'the providers that are down are disabled, unknown or not in the chain',
      {},
      ['off', 'gone', 'nobody'],
      ['0 mine/small', '1 openai/gpt-4', '2 mine/priced'],
      ['3 off PROVIDER_DISABLED', '4 gone PROVIDER_UNKNOWN', '5 mine DUPLICATE'],
    ],
  ])('keep their indices when %s', (_, agent, down, tried, skipped) => {
    const resolution = run(chain, agent, { down });
    expect(summaryOf(resolution)).toEqual([tried, skipped]);
    expect(reasons(resolution).includes('NO_USABLE_HOP')).toBe(tried.length === 0);
    expect(reasons(resolution).filter((reason) => reason !== 'NO_USABLE_HOP')).toEqual(reasons(run(chain, agent)));
  });

  it('are referenced by findings with an index that includes skipped hops', () => {
    const { findings } = run([small({ id: 1 }), small({ id: 2 }), small({ id: 3, model_name: 'unheard-of' })]);
    const unknown = findings.find(({ reason }) => reason === 'FINDING_REASON_UNKNOWN_MODEL');
    expect(unknown?.hop).toBe(2);
  });
});

describe('the key of a hop', () => {
  const keyed = { key_id: 'k', key_revision: 4 };
  const openai: Partial<Config> = { provider: 'openai', model_name: 'gpt-4' };
  const key = (fields: Partial<Config>) => only([small(fields)]).key;

  it.each<[string, Partial<Config>, object]>([
    ['from the config', { ...openai, ...keyed }, { source: 'KEY_SOURCE_CONFIG', name: '', variables: [] }],
    ['from its credential', { ...openai, credential_id: desk.id }, { source: 'KEY_SOURCE_CREDENTIAL', name: 'desk' }],
    ['from the environment', openai, { source: 'KEY_SOURCE_ENVIRONMENT', variables: ['OPENAI_API_KEY'] }],
    [
      'absent when the provider has no variable',
      { provider: 'keyless' },
      { source: 'KEY_SOURCE_NONE', name: '', variables: [] },
    ],
    [
      'from the environment when the credential is for another provider',
      { credential_id: desk.id },
      { source: 'KEY_SOURCE_ENVIRONMENT' },
    ],
  ])('is %s', (_, fields, expected) => {
    expect(key(fields)).toMatchObject(expected);
  });

  it('is used for a fallback only when the provider is the same', () => {
    const fallbackKeySource = (fallback_provider: string) =>
      run([small({ ...openai, ...keyed, fallback_provider, fallback_model: 'x' })]).hops[1]?.key.source;
    expect([fallbackKeySource('openai'), fallbackKeySource('mine')]).toEqual([
      'KEY_SOURCE_CONFIG',
      'KEY_SOURCE_ENVIRONMENT',
    ]);
  });

  it('causes an error finding, and the hop stays, when it is unreadable', () => {
    const { hops, findings } = run([
      small({ ...openai, ...keyed, fallback_provider: 'mine', fallback_model: 'priced' }),
    ]);
    expect(hops.map((hop) => hop.key.state)).toEqual(['API_KEY_STATE_UNREADABLE', 'API_KEY_STATE_NONE']);
    expect(findings).toMatchObject([{ reason: 'FINDING_REASON_KEY_UNREADABLE', hop: 0, severity: 'SEVERITY_ERROR' }]);
  });

  it('has the state that the encryption state reports', () => {
    const encryption = { stateOf: () => 'API_KEY_STATE_SET' as const };
    const view = {
      provider: (name: string) => state.provider(name),
      model: (provider: string, name: string) => state.model(provider, name),
      modelsOf: (provider: string) => state.modelsOf(provider),
      pricesOf: (id: number) => state.pricesOf(id),
      credentials: state.credentials,
      encryption,
    };
    const { hops, findings } = resolve(view, agentRow(), [small({ ...openai, ...keyed })], NOW);
    expect([hops[0]?.key.state, findings]).toEqual(['API_KEY_STATE_SET', []]);
  });
});

describe('the price of a hop', () => {
  it.each([
    [0.03, 0.06, 30_000_000, 60_000_000],
    [0, 0.000_15, 0, 150_000],
    [0.1 + 0.2, 1_000_000, 300_000_000, 1e15],
    [1e-9, 1.000_000_001, 1, 1_000_000_001],
  ])(
    'is converted from %d and %d USD per thousand of the config to %d and %d micro-USD per million',
    (input, output, ...rates) => {
      const costs = { cost_per_1k_input_tokens: input, cost_per_1k_output_tokens: output, price_given: true };
      const price = only([small(costs)]).price?.price;
      expect([price?.input_micro_usd_per_million, price?.output_micro_usd_per_million]).toEqual(rates);
      expect(price?.reasoning_micro_usd_per_million).toBeNull();
    },
  );

  it('is the newest entry of the price book, independent of the local clock, when the config has none', () => {
    const priceAt = (now: Date) => resolve(state, agentRow(), [small({ model_name: 'priced' })], now).hops[0]?.price;
    for (const now of [NOW, new Date(NOW.getTime() - 5)])
      expect(priceAt(now)).toMatchObject({
        price: { input_micro_usd_per_million: 5, output_micro_usd_per_million: 7, source: 'the list', valid_from: NOW },
        source: 'VALUE_SOURCE_MODEL',
      });
  });

  it('is not that of the config when the hop is its fallback', () => {
    const price = { price_given: true, cost_per_1k_input_tokens: 1 };
    const { hops } = run([small({ ...price, fallback_provider: 'mine', fallback_model: 'priced' })]);
    expect(hops.map((hop) => hop.price?.source)).toEqual(['VALUE_SOURCE_CONFIG', 'VALUE_SOURCE_MODEL']);
  });

  it('is absent with a finding when no price is known', () => {
    const resolution = run([small()]);
    expect(resolution.hops[0]?.price).toBeUndefined();
    expect(reasons(resolution)).toEqual(['PRICE_UNKNOWN']);
  });
});

describe('the parameters of a hop', () => {
  it('are adapted and include the configured value', () => {
    const hop = only([small({ temperature: 1.5, top_p: 0.9, max_tokens: 500, extra_params: { seed: 0 } })]);
    expect(hop.parameters).toEqual([
      { name: 'temperature', wire_name: 'heat', value: 1, configured: 1.5 },
      { name: 'top_p', wire_name: 'top_p', value: 0.5, configured: 0.9 },
      { name: 'max_tokens', wire_name: 'max_tokens', value: 100, configured: 500 },
      { name: 'seed', wire_name: 'seed', value: 0 },
    ]);
  });

  it('have no configured value when the model requires a parameter that the config lacks', () => {
    const hop = only([configRow({ provider: 'claude', model_name: 'claude-opus-4-1', temperature: null })]);
    expect(hop.parameters).toEqual([{ name: 'max_tokens', wire_name: 'max_tokens', value: 4096 }]);
  });
});

describe('the provenance of a hop', () => {
  const provenanceOf = (hop: ResolvedHop | undefined) =>
    Object.fromEntries(
      (hop?.provenance ?? []).map(({ field, source, resource, path, revision }) => [
        field,
        [source.replace('VALUE_SOURCE_', ''), resource, path, revision].join(' '),
      ]),
    );
  const rowOf = (name: string) => state.model('mine', name)?.revision;
  const providerRevision = state.provider('mine')?.revision;

  it('names the source of each value', () => {
    const extra_params = { seed: 1, request_timeout_ms: 5 };
    const config = small({ temperature: 1.5, top_p: 0.9, max_tokens: 500, extra_params, price_given: true });
    expect(provenanceOf(only([config]))).toEqual({
      provider: 'CONFIG 7 provider 4',
      dialect: `PROVIDER mine dialect ${providerRevision}`,
      wire_api: `PROVIDER mine wire_api ${providerRevision}`,
      base_url: `PROVIDER mine base_url ${providerRevision}`,
      model_name: 'CONFIG 7 model_name 4',
      model: `MODEL mine/small  ${rowOf('small')}`,
      'parameters.temperature': `MODEL mine/small parameter_rules ${rowOf('small')}`,
      'parameters.top_p': `PROVIDER mine parameter_rules ${providerRevision}`,
      'parameters.max_tokens': `MODEL mine/small max_output_tokens ${rowOf('small')}`,
      'parameters.seed': 'CONFIG 7 extra_params.seed 4',
      request_timeout_ms: 'CONFIG 7 extra_params.request_timeout_ms 4',
      key_source: `PROVIDER mine api_key_env_vars ${providerRevision}`,
      price: 'CONFIG 7 cost_per_1k_input_tokens 4',
    });
  });

  it('names the fallback fields and the price book entry', () => {
    const config = small({ temperature: 0, fallback_provider: 'mine', fallback_model: 'priced' });
    expect(provenanceOf(run([config]).hops[1])).toMatchObject({
      provider: 'CONFIG 7 fallback_provider 4',
      model_name: 'CONFIG 7 fallback_model 4',
      'parameters.temperature': 'CONFIG 7 temperature 4',
      price: `MODEL mine/priced price ${newest.revision}`,
    });
  });

  it('names the fields of the agent when its default model is used', () => {
    expect(provenanceOf(only([], { llm_provider: 'mine', llm_model: 'priced', max_tokens: 3 }))).toMatchObject({
      provider: 'AGENT trader llm_provider 3',
      model_name: 'AGENT trader llm_model 3',
      'parameters.max_tokens': 'AGENT trader max_tokens 3',
    });
  });

  it('names the row of the API key', () => {
    const openai = { provider: 'openai', model_name: 'gpt-4' };
    expect(provenanceOf(only([small({ ...openai, key_id: 'k' })]))['key_source']).toBe('CONFIG 7 api_key 4');
    expect(provenanceOf(only([small({ ...openai, credential_id: desk.id })]))['key_source']).toBe(
      `CREDENTIAL desk api_key ${desk.revision}`,
    );
  });

  it('names the dialect when a rule supplies a required value', () => {
    const claude = configRow({
      id: 7,
      revision: 4,
      provider: 'claude',
      model_name: 'claude-opus-4-1',
      temperature: null,
    });
    const provider = state.provider('claude')?.revision;
    expect(provenanceOf(only([claude]))['parameters.max_tokens']).toBe(`PROVIDER claude dialect ${provider}`);
  });
});

/** Any chain that an operator can have stored and a replica can have in memory. */
const name = fc.constantFrom('mine', 'own', 'off', 'gone', 'openai', 'claude');
const modelName = fc.constantFrom('small', 'priced', 'gpt-4', 'claude-opus-4-1', 'x');
const config = fc
  .record({
    priority: fc.integer({ min: -1, max: 1 }),
    enabled: fc.boolean(),
    provider: name,
    model_name: modelName,
    temperature: fc.constantFrom(null, 0, 1.5),
    max_tokens: fc.constantFrom(null, 1, 100_000),
    price_given: fc.boolean(),
    key_id: fc.constantFrom(null, 'k'),
    credential_id: fc.constantFrom(null, desk.id, 99),
    fallback: fc.option(fc.tuple(name, modelName)),
  })
  .map(
    ({ fallback, ...fields }): Partial<Config> => ({
      ...fields,
      fallback_provider: fallback?.[0] ?? null,
      fallback_model: fallback?.[1] ?? null,
    }),
  );
const configs = fc
  .array(config, { maxLength: 5 })
  .map((rows) => rows.map((fields, at) => configRow({ id: at + 1, ...fields })).sort(inChainOrder));
const agent = fc
  .constantFrom<Agent['substitution_policy'][]>(
    'SUBSTITUTION_POLICY_NEVER',
    'SUBSTITUTION_POLICY_SAME_MODEL',
    'SUBSTITUTION_POLICY_SAME_PROVIDER',
    'SUBSTITUTION_POLICY_ANY',
  )
  .map((substitution_policy): Partial<Agent> => ({ substitution_policy, llm_provider: 'mine', llm_model: 'small' }));

describe('a resolution of any chain', () => {
  const checkAll = (check: (rows: readonly Config[], owner: Partial<Agent>, down: string[]) => void) =>
    fc.assert(fc.property(configs, agent, fc.subarray(['mine', 'openai', 'off', 'nobody']), check), { numRuns: 300 });

  it('contains each planned hop once, as a hop or as skipped, at its index', () => {
    checkAll((rows, owner, down) => {
      const { hops, skipped } = run(rows, owner, { down });
      const planned = rows
        .filter(({ enabled }) => enabled)
        .flatMap(({ fallback_model }) => (fallback_model ? [1, 1] : [1]));
      const count = planned.length || 1;
      const indices = [...hops, ...skipped].map(({ index }) => index).sort((a, b) => a - b);
      expect(indices).toEqual(Array.from({ length: count }, (_, at) => at));
      for (const list of [hops, skipped])
        expect(list.map(({ index }) => index)).toEqual(list.map(({ index }) => index).sort((a, b) => a - b));
    });
  });

  it('is deterministic and does not mutate its input', () => {
    checkAll((rows, owner, down) => {
      const before = structuredClone(rows);
      const frozen = rows.map((row) => Object.freeze(row));
      expect(run(frozen, owner, { down })).toEqual(run(frozen, owner, { down }));
      expect(rows).toEqual(before);
    });
  });

  it('contains no hop that is down, disabled or unknown, and provenance for every value', () => {
    checkAll((rows, owner, down) => {
      for (const hop of run(rows, owner, { down }).hops) {
        expect(down).not.toContain(hop.provider);
        expect(state.provider(hop.provider)).toMatchObject({ name: hop.provider, enabled: true });
        const fields = hop.provenance.map(({ field }) => field);
        expect(new Set(fields).size).toBe(fields.length);
        for (const { name } of hop.parameters) expect(fields).toContain(`parameters.${name}`);
        expect(fields.includes('price')).toBe(hop.price !== undefined);
        expect(fields.includes('model')).toBe(state.model(hop.provider, hop.model_name) !== undefined);
        for (const field of ['provider', 'dialect', 'wire_api', 'base_url', 'model_name', 'key_source'])
          expect(fields).toContain(field);
      }
    });
  });

  it('contains NO_USABLE_HOP exactly when it has no hops and no provider is down', () => {
    checkAll((rows, owner) => {
      const resolution = run(rows, owner);
      expect(reasons(resolution).includes('NO_USABLE_HOP')).toBe(resolution.hops.length === 0);
    });
  });
});

describe('src/domain/resolve.ts', () => {
  it('imports no package, because agent processes load it', () => {
    const visited = new Set<string>();
    const packages = new Set<string>();
    const visit = (path: string): void => {
      if (visited.has(path)) return;
      visited.add(path);
      const text = readFileSync(packageFile(path), 'utf8');
      for (const [, target = ''] of text.matchAll(/^(?:import|export)\s+(?!type\b)[^;]*?from\s+'([^']+)'/gm))
        if (target.startsWith('.')) visit(join(dirname(path), target).replace(/\.js$/, '.ts'));
        else if (!target.startsWith('node:')) packages.add(target);
    };
    visit('src/domain/resolve.ts');
    expect(visited.size).toBeGreaterThan(8);
    expect([...packages]).toEqual([]);
  });
});
