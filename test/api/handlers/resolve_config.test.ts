import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ModelFacts, type ResolvedConfig, type ResolvedHop } from '../../../gen/ts/agentllm/v1/resolution.js';
import { ciphertextVersion, EncryptionState, keyHolder } from '../../../src/domain/encryption_state.js';
import { generateKey } from '../../../src/domain/fernet.js';
import { Keyring } from '../../../src/domain/keyring.js';
import { unique } from '../../support/service.js';
import { startBackend, type TestBackend } from '../../support/store.js';
import {
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  newModel,
  newProvider,
  notFound,
  precondition,
  present,
  reasonsOf,
  refused,
  revision,
  status,
  withoutShutdowns,
} from './support.js';

const SECRET = 'sk-never-shown-1234567890';
let backend: TestBackend;
beforeAll(async () => {
  backend = await startBackend();
  backend.store.state.encryption = new EncryptionState(Keyring.parse(generateKey()), undefined);
});
afterAll(() => backend.close());

type Request = Parameters<TestBackend['configs']['resolveConfig']>[0];
const resolve = (request: Request) => backend.configs.resolveConfig(request);
async function resolved(request: Request): Promise<ResolvedConfig> {
  return present((await resolve(request)).resolved);
}
const firstOf = async (request: Request): Promise<ResolvedHop> => present((await resolved(request)).hops[0]);
const models = (hops: readonly { provider: string; model_name: string }[]) =>
  hops.map(({ provider, model_name }) => `${provider}/${model_name}`);
const sent = (hop: ResolvedHop) =>
  Object.fromEntries(hop.parameters.map(({ wire_name, value_json }) => [wire_name, JSON.parse(value_json)]));

describe('ResolveConfig', () => {
  it('returns the effective hops and parameters with the provenance of each value', async () => {
    const agent = await newAgent(backend);
    const config = await newConfig(
      backend,
      {
        ...HAIKU,
        temperature: 1,
        max_tokens: 4096,
        top_p: 0.5,
        fallback_provider: 'openai',
        fallback_model: 'gpt-4',
        cost_per_1k_input_tokens: 0.25,
        extra_params: { request_timeout_ms: 900, stop_sequences: ['END'] },
      },
      agent,
    );
    const response = await resolve({ agent: { name: agent.name } });
    expect(response.revision).toBe(await revision(backend));
    const { hops, ...rest } = present(response.resolved);
    expect(rest).toMatchObject({
      agent_id: agent.id,
      agent_name: agent.name,
      skipped: [],
      substitution_policy: 'SUBSTITUTION_POLICY_ANY',
    });
    expect(reasonsOf(withoutShutdowns(rest.findings)).sort()).toEqual(['PARAMETER_CONFLICT', 'PRICE_HALF_GIVEN']);
    expect(hops.map(({ index, source, config_id }) => [index, source, config_id])).toEqual([
      [0, 'HOP_SOURCE_CONFIG', config.id],
      [1, 'HOP_SOURCE_FALLBACK', config.id],
    ]);
    const [first, second] = hops as [ResolvedHop, ResolvedHop];
    expect(first).toMatchObject({
      provider: 'claude',
      dialect: 'DIALECT_ANTHROPIC',
      base_url: expect.stringMatching(/^https:/),
      request_timeout_ms: 900,
      key_source: 'KEY_SOURCE_ENVIRONMENT',
      key_name: 'ANTHROPIC_API_KEY',
      api_key_state: 'API_KEY_STATE_NONE',
      price: {
        source: 'VALUE_SOURCE_CONFIG',
        price: {
          input_micro_usd_per_million: 250_000_000n,
          output_micro_usd_per_million: 0n,
          source: `config ${config.id}`,
        },
      },
    });
    expect(sent(first)).toEqual({ temperature: 1, max_tokens: 4096, stop_sequences: ['END'] });
    expect(sent(second)).toEqual({ temperature: 1, top_p: 0.5, max_tokens: 4096, stop: ['END'] });
    expect(second.price).toMatchObject({
      source: 'VALUE_SOURCE_MODEL',
      price: { input_micro_usd_per_million: 30_000_000n },
    });
    expect(first.provenance).toContainEqual({
      field: 'parameters.temperature',
      source: 'VALUE_SOURCE_CONFIG',
      resource: String(config.id),
      path: 'temperature',
      revision: config.revision,
    });
  });

  it('returns the wire API of the provider and the facts about the model', async () => {
    const { name: provider } = await newProvider(backend, { wire_api: 'WIRE_API_RESPONSES' });
    const facts = {
      context_window_tokens: 1000,
      supports_functions: true,
      supports_vision: false,
      supports_forced_tool_choice: false,
      supports_structured_output: true,
    };
    const { name: model_name } = await newModel(backend, { provider, ...facts });
    const { agent_id, revision: configured } = await newConfig(backend, {
      provider,
      model_name,
      max_tokens: 9,
      fallback_provider: provider,
      fallback_model: 'not-in-the-catalogue',
    });
    const { hops } = await resolved({ agent: { id: agent_id } });
    expect(hops.map(({ wire_api, model }) => [wire_api, model])).toEqual([
      ['WIRE_API_RESPONSES', ModelFacts.fromPartial(facts)],
      ['WIRE_API_RESPONSES', ModelFacts.create()],
    ]);
    expect(sent(present(hops[0]))).toMatchObject({ max_output_tokens: 9 });
    const { provenance } = present(hops[0]);
    expect(provenance).toContainEqual(
      expect.objectContaining({
        field: 'wire_api',
        source: 'VALUE_SOURCE_PROVIDER',
        resource: provider,
        path: 'wire_api',
      }),
    );
    expect(provenance).toContainEqual(
      expect.objectContaining({ field: 'model', source: 'VALUE_SOURCE_MODEL', resource: `${provider}/${model_name}` }),
    );
    await backend.providers.updateProvider({ provider: { name: provider, wire_api: 'WIRE_API_CHAT_COMPLETIONS' } });
    const past = await resolved({ agent: { id: agent_id }, at_revision: configured });
    expect([present(past.hops[0]).wire_api, (await firstOf({ agent: { id: agent_id } })).wire_api]).toEqual([
      'WIRE_API_RESPONSES',
      'WIRE_API_CHAT_COMPLETIONS',
    ]);
  });

  it('resolves at a revision whose log entries an earlier release has written without wire APIs', async () => {
    const { name: provider } = await newProvider(backend, { dialect: 'DIALECT_ANTHROPIC' });
    const { name: model_name } = await newModel(backend, { provider, context_window_tokens: 1000 });
    const { agent_id, revision: at_revision } = await newConfig(backend, { provider, model_name });
    await newProvider(backend);
    await backend.database.knex.raw(
      `update config_revisions set after = after - 'wire_api' - 'supports_prefill'
         where (entity = 'provider' and after ->> 'name' = ?) or (entity = 'model' and after ->> 'name' = ?)`,
      [provider, model_name],
    );
    const { hops } = await resolved({ agent: { id: agent_id }, at_revision });
    expect(hops[0]).toMatchObject({
      wire_api: 'WIRE_API_MESSAGES',
      model: { context_window_tokens: 1000, supports_prefill: undefined },
    });
    expect(sent(present(hops[0]))).toMatchObject({ max_tokens: 4096 });
  });

  it('returns the configured value when the model requires another one', async () => {
    const { agent_id } = await newConfig(backend, {
      model_name: 'gpt-4o',
      temperature: 2,
      max_tokens: 16_384,
      fallback_provider: 'claude',
      fallback_model: 'claude-3-haiku-20240307',
    });
    const { hops } = await resolved({ agent: { id: agent_id } });
    expect(hops[1]?.parameters).toEqual([
      { name: 'temperature', wire_name: 'temperature', value_json: '1', configured_json: '2' },
      { name: 'max_tokens', wire_name: 'max_tokens', value_json: '4096', configured_json: '16384' },
    ]);
  });

  it('uses the default model of the agent when no config is enabled', async () => {
    const agent = await newAgent(backend, { llm_provider: 'openai', llm_model: 'gpt-4' });
    const response = await resolved({ agent: { id: agent.id } });
    expect(response.hops).toMatchObject([{ source: 'HOP_SOURCE_AGENT', model_name: 'gpt-4' }]);
    expect(response.hops[0]?.config_id).toBeUndefined();
    expect(reasonsOf(response.findings)).toContain('NO_ENABLED_CONFIG');
  });

  it('returns neither keys nor ciphertext', async () => {
    const agent = await newAgent(backend);
    const { credential } = await backend.credentials.createCredential({
      credential: { name: unique('desk'), provider: 'openai' },
      api_key: `${SECRET}-shared`,
    });
    const config = { provider: 'openai', model_name: 'gpt-4' };
    await backend.configs.createConfig({ agent: { id: agent.id }, config, api_key: SECRET });
    await newConfig(backend, { credential_name: present(credential).name }, agent);
    const response = await resolved({ agent: { id: agent.id } });
    expect(
      response.hops.map(({ key_source, key_name, api_key_state }) => [key_source, key_name, api_key_state]),
    ).toEqual([
      ['KEY_SOURCE_CONFIG', '', 'API_KEY_STATE_SET'],
      ['KEY_SOURCE_CREDENTIAL', present(credential).name, 'API_KEY_STATE_SET'],
    ]);
    const text = JSON.stringify(response, (_, value) => (typeof value === 'bigint' ? String(value) : value));
    for (const secret of [SECRET, 'gAAAA', 'key_id']) expect(text).not.toContain(secret);
  });

  it('returns a hop whose key cannot be read, with an error finding', async () => {
    const agent = await newAgent(backend);
    const config = { provider: 'openai', model_name: 'gpt-4' };
    const created = await backend.configs.createConfig({ agent: { id: agent.id }, config, api_key: SECRET });
    const { state } = backend.store;
    const before = state.encryption;
    expect((await firstOf({ agent: { id: agent.id } })).api_key_state).toBe('API_KEY_STATE_SET');
    const row = present(state.configs.get(present(created.config).id));
    const lost = new Map([[keyHolder('config', row.id), ciphertextVersion(row)]]);
    state.encryption = new EncryptionState(before.keyring, undefined, lost);
    const { hops, findings } = await resolved({ agent: { id: agent.id } });
    state.encryption = before;
    expect(hops).toMatchObject([{ key_source: 'KEY_SOURCE_CONFIG', api_key_state: 'API_KEY_STATE_UNREADABLE' }]);
    expect(withoutShutdowns(findings)).toMatchObject([
      { reason: 'FINDING_REASON_KEY_UNREADABLE', hop: 0, severity: 'SEVERITY_ERROR' },
    ]);
  });

  it('rejects requests without a valid agent, and inactive agents', async () => {
    await invalid(resolve({}), 'agent');
    await invalid(resolve({ agent: { id: 1, name: 'trader' } }), 'agent');
    await invalid(resolve({ agent: { id: 0 } }), 'agent.id');
    await notFound(resolve({ agent: { id: 2_147_483_647 } }), 'AGENT_NOT_FOUND');
    const error = await notFound(resolve({ agent: { name: 'tradr' } }), 'AGENT_NOT_FOUND');
    expect(error.metadata).toMatchObject({ suggestion: 'trader' });
    const agent = await newAgent(backend, { is_active: false });
    for (const provider_down of [[], ['openai']]) {
      const inactive = await precondition(resolve({ agent: { id: agent.id }, provider_down }), 'AGENT_INACTIVE');
      expect(inactive.metadata).toEqual({ agent: agent.name });
    }
  });

  it('waits for a future min_revision', async () => {
    const { agent_id } = await newConfig(backend);
    const next = (await revision(backend)) + 1n;
    const waiting = resolve({ agent: { id: agent_id }, min_revision: next });
    await newConfig(backend);
    expect((await waiting).revision).toBeGreaterThanOrEqual(next);
  });
});

describe('ResolveConfig with provider_down', () => {
  const failover = () =>
    newConfig(backend, { fallback_provider: 'claude', fallback_model: 'claude-3-haiku-20240307', max_tokens: 9 });

  it('skips the hops of providers by name or alias', async () => {
    const { agent_id } = await failover();
    const agent = { id: agent_id };
    const { hops, skipped } = await resolved({ agent, provider_down: ['OpenAI'] });
    expect(models(hops)).toEqual(['claude/claude-3-haiku-20240307']);
    expect(hops[0]?.index).toBe(1);
    expect(skipped).toEqual([
      {
        reason: 'SKIP_REASON_PROVIDER_DOWN',
        index: 0,
        source: 'HOP_SOURCE_CONFIG',
        config_id: expect.any(Number),
        provider: 'openai',
        model_name: 'gpt-4',
      },
    ]);
    const none = await resolved({ agent, provider_down: ['openai', 'anthropic'] });
    expect([none.hops, none.skipped.length]).toEqual([[], 2]);
    expect(withoutShutdowns(none.findings)).toMatchObject([
      { reason: 'FINDING_REASON_NO_USABLE_HOP', severity: 'SEVERITY_ERROR' },
    ]);
    expect(models((await resolved({ agent })).hops)).toHaveLength(2);
  });

  it('applies the substitution policy to the remaining hops', async () => {
    const { agent_id } = await failover();
    await backend.agents.updateAgent({ agent: { id: agent_id, substitution_policy: 'SUBSTITUTION_POLICY_NEVER' } });
    const { hops, skipped } = await resolved({ agent: { id: agent_id }, provider_down: ['openai'] });
    expect(hops).toEqual([]);
    expect(skipped.map(({ reason }) => reason)).toEqual(['SKIP_REASON_PROVIDER_DOWN', 'SKIP_REASON_POLICY']);
  });

  it('accepts disabled providers, and returns a violation for each unknown one', async () => {
    const { agent_id } = await failover();
    const agent = { id: agent_id };
    const { name } = await newProvider(backend, { enabled: false });
    expect((await resolved({ agent, provider_down: [name] })).hops).toHaveLength(2);
    const error = await invalid(
      resolve({ agent, provider_down: ['claude', 'opnai', ''] }),
      'provider_down[1]',
      'provider_down[2]',
    );
    expect(error.violations[0]?.description).toContain('did you mean "openai"');
    await invalid(resolve({ provider_down: ['opnai'] }), 'agent', 'provider_down[0]');
  });

  it('accepts at most 100 providers', async () => {
    const agent = { name: 'trader' };
    await resolved({ agent, provider_down: new Array(100).fill('openai') });
    await invalid(resolve({ agent, provider_down: new Array(101).fill('openai') }), 'provider_down');
  });
});

describe('a cached resolution', () => {
  it.each<[string, (id: number, agentId: number, provider: string, model: string) => Promise<unknown>]>([
    [
      'the agent',
      (_, id) => backend.agents.updateAgent({ agent: { id, substitution_policy: 'SUBSTITUTION_POLICY_NEVER' } }),
    ],
    ['the name of the agent', (_, id) => backend.agents.updateAgent({ agent: { id, name: unique('renamed') } })],
    ['the config', (id) => backend.configs.updateConfig({ config: { id, temperature: 0 } })],
    ['another config', (_, id) => newConfig(backend, { ...HAIKU, max_tokens: 5 }, { id })],
    ['the order', (id) => backend.configs.updateConfig({ config: { id, priority: 9 } })],
    [
      'the enabled state of a provider',
      (_, __, name) => backend.providers.updateProvider({ provider: { name, enabled: false } }),
    ],
    [
      'a rule of the model',
      (_, __, provider, name) =>
        backend.providers.updateModel({
          model: {
            provider,
            name,
            parameter_rules: [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_REJECTED' }],
          },
        }),
    ],
    [
      'a price',
      (_, __, provider, name) =>
        backend.providers.updateModel({ model: { provider, name, price: { input_micro_usd_per_million: 3n } } }),
    ],
    ['the key', (id) => backend.configs.updateConfig({ config: { id }, api_key: SECRET })],
  ])('is replaced when %s changes', async (_, change) => {
    const { name: provider } = await newProvider(backend, { api_key_env_vars: ['SOME_API_KEY'] });
    const { name: model_name } = await newModel(backend, { provider });
    const agent = await newAgent(backend);
    const config = await newConfig(backend, { provider, model_name }, agent);
    await newConfig(backend, { priority: 5 }, agent);
    const before = await resolved({ agent: { id: agent.id } });
    expect(await resolved({ agent: { id: agent.id } })).toEqual(before);
    await change(config.id, agent.id, provider, model_name);
    const after = await resolve({ agent: { id: agent.id } });
    expect(after.resolved).not.toEqual(before);
    expect(after.revision).toBe(await revision(backend));
    // provider_down bypasses the cache; this provider is not in the chain, so the result is the same.
    expect(await resolve({ agent: { id: agent.id }, provider_down: ['grok'] })).toEqual(after);
  });

  it('is replaced when the key of the credential is replaced', async () => {
    const name = unique('desk');
    await backend.credentials.createCredential({ credential: { name, provider: 'openai' }, api_key: SECRET });
    const { agent_id } = await newConfig(backend, { credential_name: name });
    const source = async () =>
      (await firstOf({ agent: { id: agent_id } })).provenance.find(({ field }) => field === 'key_source')?.revision;
    const before = await source();
    const { revision: written } = await backend.credentials.updateCredential({ credential: { name }, api_key: 'sk-2' });
    expect([await source(), written > (before ?? 0n)]).toEqual([written, true]);
  });

  it('is reused at a later revision after an unrelated write', async () => {
    const { agent_id } = await newConfig(backend);
    const before = await resolve({ agent: { id: agent_id } });
    await newConfig(backend);
    const after = await resolve({ agent: { id: agent_id } });
    expect(after.resolved).toEqual(before.resolved);
    expect(after.revision).toBeGreaterThan(before.revision);
  });
});

describe('ResolveConfig at a past revision', () => {
  it('returns what was in effect for configs, agent and catalogue', async () => {
    const { name: provider } = await newProvider(backend);
    const { name: model_name } = await newModel(backend, { provider });
    const agent = await newAgent(backend);
    const bare = await revision(backend);
    const config = await newConfig(backend, { provider, model_name, temperature: 1.5 }, agent);
    const seen = [];
    for (const change of [
      () => backend.configs.updateConfig({ config: { id: config.id, temperature: 0.5 } }),
      () =>
        backend.providers.updateModel({
          model: {
            provider,
            name: model_name,
            parameter_rules: [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_ACCEPTED', wire_name: 'heat' }],
          },
        }),
      () =>
        backend.providers.updateProvider({ provider: { name: provider, base_url: 'https://other.example.com/v1' } }),
      () => backend.providers.updateProvider({ provider: { name: provider, enabled: false } }),
      () => backend.agents.updateAgent({ agent: { id: agent.id, substitution_policy: 'SUBSTITUTION_POLICY_NEVER' } }),
      () => backend.configs.deleteConfig({ id: config.id }),
    ]) {
      seen.push(await resolve({ agent: { id: agent.id } }));
      await change();
    }
    for (const response of seen)
      for (const ref of [{ id: agent.id }, { name: agent.name }])
        expect(await resolve({ agent: ref, at_revision: response.revision })).toEqual(response);
    expect((await firstOf({ agent: { id: agent.id }, at_revision: bare })).source).toBe('HOP_SOURCE_AGENT');
    const newest = await resolve({ agent: { id: agent.id } });
    expect(await resolve({ agent: { id: agent.id }, at_revision: newest.revision })).toEqual(newest);
  });

  it('accepts in provider_down the providers of that revision', async () => {
    const { name } = await newProvider(backend);
    const { agent_id, revision: at_revision } = await newConfig(backend, { provider: name, model_name: 'm' });
    const agent = { id: agent_id };
    const { name: later } = await newProvider(backend);
    expect((await resolved({ agent, at_revision, provider_down: [name] })).hops).toEqual([]);
    await invalid(resolve({ agent, at_revision, provider_down: [later] }), 'provider_down[0]');
  });

  it('finds deleted agents, and agents by the name that they had then', async () => {
    const name = unique('passed_on');
    const first = await newAgent(backend, { name, llm_model: 'gpt-4' });
    const originalRevision = await revision(backend);
    await backend.agents.updateAgent({ agent: { id: first.id, name: unique('renamed') } });
    const between = await revision(backend);
    const second = await newAgent(backend, { name, llm_model: 'gpt-4o' });
    const now = await revision(backend);
    await backend.agents.deleteAgent({ agent: { id: first.id } });
    await backend.agents.deleteAgent({ agent: { id: second.id } });
    const idAt = async (at_revision: bigint) => (await resolved({ agent: { name }, at_revision })).agent_id;
    expect([await idAt(originalRevision), await idAt(now)]).toEqual([first.id, second.id]);
    await notFound(resolve({ agent: { name }, at_revision: between }), 'AGENT_NOT_FOUND');
    await notFound(resolve({ agent: { name } }), 'AGENT_NOT_FOUND');
    expect((await resolved({ agent: { id: first.id }, at_revision: between })).agent_name).toContain('renamed');
    await notFound(resolve({ agent: { id: first.id }, at_revision: await revision(backend) }), 'AGENT_NOT_FOUND');
    await notFound(resolve({ agent: { id: second.id }, at_revision: originalRevision }), 'AGENT_NOT_FOUND');
  });

  it('rejects agents that were inactive at that revision', async () => {
    const agent = await newAgent(backend, { is_active: false });
    const at_revision = await revision(backend);
    await backend.agents.updateAgent({ agent: { id: agent.id, is_active: true } });
    await precondition(resolve({ agent: { id: agent.id }, at_revision }), 'AGENT_INACTIVE');
    await resolved({ agent: { id: agent.id } });
  });

  it('returns the current state of a key that is still stored, and SET for a replaced key', async () => {
    const { id } = await newAgent(backend);
    const config = { provider: 'openai', model_name: 'gpt-4' };
    const created = await backend.configs.createConfig({ agent: { id }, config, api_key: SECRET });
    await newConfig(backend);
    const { state } = backend.store;
    const before = state.encryption;
    const row = present(state.configs.get(present(created.config).id));
    state.encryption = new EncryptionState(
      before.keyring,
      undefined,
      new Map([[keyHolder('config', row.id), ciphertextVersion(row)]]),
    );
    const keyStateThen = async () => (await firstOf({ agent: { id }, at_revision: created.revision })).api_key_state;
    expect(await keyStateThen()).toBe('API_KEY_STATE_UNREADABLE');
    await backend.configs.updateConfig({ config: { id: row.id }, clear_api_key: true });
    expect(await keyStateThen()).toBe('API_KEY_STATE_SET');
    state.encryption = before;
  });

  it('rejects future and compacted revisions', async () => {
    const agent = { name: 'trader' };
    for (const at_revision of [0n, -1n]) await invalid(resolve({ agent, at_revision }), 'at_revision');
    const newest = await revision(backend);
    const future = await refused(
      resolve({ agent, at_revision: newest + 1n }),
      status.OUT_OF_RANGE,
      'REVISION_IN_FUTURE',
    );
    expect(future.metadata).toEqual({ revision: String(newest + 1n), newest: String(newest) });
    await refused(resolve({ agent, at_revision: 2n ** 62n }), status.OUT_OF_RANGE, 'REVISION_IN_FUTURE');
    const { knex } = backend.database;
    await knex('store_state').update({ history_from: 5 });
    const gone = await refused(resolve({ agent, at_revision: 4n }), status.OUT_OF_RANGE, 'REVISION_COMPACTED');
    expect(gone.metadata).toEqual({ revision: '4', oldest: '5' });
    await refused(
      resolve({ agent: { id: 2_147_483_647 }, at_revision: 4n }),
      status.OUT_OF_RANGE,
      'REVISION_COMPACTED',
    );
    await resolved({ agent, at_revision: 5n });
    await knex('store_state').update({ history_from: 0 });
  });

  it('returns DATABASE_UNAVAILABLE without the database, except for the newest revision', async () => {
    const agent = { name: 'trader' };
    const newest = await revision(backend);
    const { knex } = backend.database;
    const failQuery = () => {
      throw Object.assign(new Error('terminating connection'), { code: '57P01' });
    };
    Object.assign(backend.database, { knex: Object.assign(failQuery, { select: failQuery, raw: failQuery }) });
    try {
      for (const at_revision of [newest - 1n, newest + 1n])
        await refused(resolve({ agent, at_revision }), status.UNAVAILABLE, 'DATABASE_UNAVAILABLE');
      expect((await resolve({ agent, at_revision: newest })).revision).toBe(newest);
      expect((await resolve({ agent })).revision).toBe(newest);
    } finally {
      Object.assign(backend.database, { knex });
    }
  });
});

describe('parameters on the wire', () => {
  it('have the names and the form of the dialect', async () => {
    const { name } = await newProvider(backend, { dialect: 'DIALECT_ANTHROPIC' });
    const config = { provider: name, model_name: 'm', extra_params: { thinking_budget_tokens: 2048 } };
    const { agent_id } = await newConfig(backend, config);
    const { resolved } = await backend.configs.resolveConfig({ agent: { id: agent_id } });
    const sent = resolved?.hops[0]?.parameters.map(({ wire_name, value_json }) => [wire_name, value_json]);
    expect(sent).toEqual([
      ['max_tokens', '6144'],
      ['thinking', '{"type":"enabled","budget_tokens":2048}'],
    ]);
    const provenance = resolved?.hops[0]?.provenance.find(({ field }) => field === 'parameters.max_tokens');
    expect(provenance).toMatchObject({ source: 'VALUE_SOURCE_PROVIDER', resource: name, path: 'dialect' });
  });

  it.each([
    [{ dialect: 'DIALECT_ANTHROPIC' }, { reasoning_effort: 'none' }],
    [{ dialect: 'DIALECT_ANTHROPIC' }, { seed: 1n }],
    [{ dialect: 'DIALECT_OPENAI_COMPATIBLE' }, { thinking_budget_tokens: 2048 }],
    [{ dialect: 'DIALECT_OPENAI' }, { reasoning_effort: 'banana' }],
    [{ dialect: 'DIALECT_OPENAI_RESPONSES' }, { stop_sequences: ['x'] }],
  ] as const)(
    'are rejected in a write when a provider of %o does not accept them: %o',
    async (fields, extra_params) => {
      const { name } = await newProvider(backend, fields);
      const { id } = await newAgent(backend);
      const [parameter] = Object.keys(extra_params);
      const params = { ...extra_params, ...('stop_sequences' in extra_params && { stop_sequences: ['x'] }) };
      const config = { provider: name, model_name: 'm', extra_params: params as object };
      await invalid(backend.configs.createConfig({ agent: { id }, config }), `config.extra_params.${parameter}`);
    },
  );

  it('are omitted with a finding when the provider of a fallback does not accept them', async () => {
    const { name } = await newProvider(backend, { dialect: 'DIALECT_OPENAI_COMPATIBLE' });
    const { agent_id } = await newConfig(backend, {
      provider: name,
      model_name: 'm',
      extra_params: { reasoning_effort: 'none', seed: 3n },
      fallback_provider: 'deepseek',
      fallback_model: 'deepseek-chat',
    });
    const { resolved } = await backend.configs.resolveConfig({ agent: { id: agent_id } });
    expect(resolved?.hops.map(({ parameters }) => parameters.map((one) => one.wire_name))).toEqual([
      ['temperature', 'reasoning_effort', 'seed'],
      ['temperature', 'seed'],
    ]);
    expect(resolved?.findings.map(({ message }) => message)).toContain(
      'reasoning_effort is left out for deepseek/deepseek-chat: the model rejects it',
    );
  });
});
