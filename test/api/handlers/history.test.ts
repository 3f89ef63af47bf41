import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generateKey } from '../../../src/domain/fernet.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { startService, type TestService, unique, useService } from '../../support/service.js';
import {
  GPT4,
  getConfig,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  newModel,
  newProvider,
  notFound,
  present,
  refused,
  revision,
  status,
} from './support.js';

const CANARY = 'sk-CANARY-1f5b9c7d2e';
const json = (value: unknown) => JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? `${inner}` : inner));

describe.each(['embedded', 'postgres'] as const)('the change history on %s', (backend) => {
  const service = useService(backend, { ENCRYPTION_KEY: generateKey() });

  const list = (request: Parameters<ReturnType<typeof service>['configs']['listConfigRevisions']>[0] = {}) =>
    service().configs.listConfigRevisions(request);
  const changesOf = async (config_id: number) =>
    (await list({ config_id })).entries.map(({ changes }) =>
      Object.fromEntries(changes.map((change) => [change.field, [change.before_json, change.after_json]])),
    );

  it('records actor, method, time, reason and changed fields of a write', async () => {
    const { configs } = service();
    const config = await newConfig(service(), { temperature: 0.2 });
    const request_id = crypto.randomUUID();
    const updated = await configs.updateConfig({
      config: { id: config.id, temperature: 0.9, max_tokens: 50 },
      request_id,
      reason: 'the desk asked',
    });
    const { entries, revision } = await list({ config_id: config.id });
    expect(revision).toBe(updated.revision);
    expect(entries).toHaveLength(2);
    expect(entries[0]).toMatchObject({
      revision: updated.revision,
      position: 0,
      kind: 'RESOURCE_KIND_CONFIG',
      id: config.id,
      name: 'openai/gpt-4',
      agent_id: config.agent_id,
      action: 'CHANGE_ACTION_UPDATE',
      actor: 'anonymous',
      method: 'agentllm.v1.AgentLLMConfigService/UpdateConfig',
      request_id,
      reason: 'the desk asked',
      created_at: updated.config?.updated_at,
      changes: [
        { field: 'max_tokens', before_json: '', after_json: '50' },
        { field: 'temperature', before_json: '0.2', after_json: '0.9' },
      ],
    });
    expect(entries[1]).toMatchObject({ action: 'CHANGE_ACTION_CREATE', request_id: '', reason: '' });
    expect(entries[1]?.changes).toContainEqual({ field: 'provider', before_json: '', after_json: '"openai"' });
  });

  it('contains deleted configs and deleted agents by id', async () => {
    const agent = await newAgent(service());
    const config = await newConfig(service(), {}, agent);
    await service().agents.deleteAgent({ agent: { id: agent.id }, cascade: true });
    const { entries } = await list({ agent: { id: agent.id } });
    expect(entries.map(({ kind, action }) => [kind, action])).toEqual([
      ['RESOURCE_KIND_CONFIG', 'CHANGE_ACTION_DELETE'],
      ['RESOURCE_KIND_AGENT', 'CHANGE_ACTION_DELETE'],
      ['RESOURCE_KIND_CONFIG', 'CHANGE_ACTION_CREATE'],
      ['RESOURCE_KIND_AGENT', 'CHANGE_ACTION_CREATE'],
    ]);
    expect(entries[0]?.revision).toBe(entries[1]?.revision);
    expect((await list({ config_id: config.id })).entries).toHaveLength(2);
    expect((await list({ agent: { id: agent.id }, kinds: ['RESOURCE_KIND_AGENT'] })).entries).toHaveLength(2);
    await notFound(list({ agent: { name: agent.name } }), 'AGENT_NOT_FOUND');
    expect((await list({ agent: { id: 2_000_000_000 } })).entries).toEqual([]);
  });

  it('keeps the entries of one write together, in its order', async () => {
    const agents = await Promise.all([1, 2, 3, 4, 5].map(() => newAgent(service())));
    const bulk = await service().configs.bulkAssignConfig({ agents: agents.map(({ id }) => ({ id })), config: GPT4 });
    const { entries, next_page_token } = await list({ page_size: 3 });
    expect(entries.map(({ revision, position }) => [revision, position])).toEqual(
      [0, 1, 2].map((position) => [bulk.revision, position]),
    );
    const rest = await list({ page_size: 3, page_token: next_page_token });
    expect(rest.entries.map(({ revision, position }) => [bulk.revision - revision, position])).toEqual([
      [0n, 3],
      [0n, 4],
      [1n, 0],
    ]);
    expect([...entries, ...rest.entries].slice(0, 5).map(({ agent_id }) => agent_id)).toEqual(
      agents.map(({ id }) => id),
    );
  });

  it('contains changes of the catalogue and of credentials by name', async () => {
    const { providers, credentials } = service();
    const provider = await newProvider(service());
    const model = await newModel(service(), {
      provider: provider.name,
      price: { input_micro_usd_per_million: 5n, source: 'list' },
    });
    const name = unique('desk');
    await credentials.createCredential({ credential: { name, provider: provider.name }, api_key: CANARY });
    await credentials.updateCredential({ credential: { name, description: 'ours' }, api_key: `${CANARY}2` });
    await credentials.deleteCredential({ name });
    await providers.deleteProvider({ name: provider.name });
    const of = async (kind: 'PROVIDER' | 'MODEL' | 'PRICE' | 'CREDENTIAL') => {
      const { entries } = await list({ kinds: [`RESOURCE_KIND_${kind}`], page_size: 5 });
      return entries.filter((entry) => entry.name.includes(provider.name) || entry.name === name);
    };
    const actions = async (kind: Parameters<typeof of>[0]) =>
      (await of(kind)).map((entry) => [entry.name, entry.action.replace('CHANGE_ACTION_', ''), entry.agent_id]);
    const whole = `${provider.name}/${model.name}`;
    expect(await actions('PROVIDER')).toEqual(
      [provider.name, provider.name].map((n, at) => [n, at ? 'CREATE' : 'DELETE', undefined]),
    );
    expect(await actions('MODEL')).toEqual([whole, whole].map((n, at) => [n, at ? 'CREATE' : 'DELETE', undefined]));
    expect(await actions('PRICE')).toEqual([whole, whole].map((n, at) => [n, at ? 'CREATE' : 'DELETE', undefined]));
    const [deleted, updated, created] = await of('CREDENTIAL');
    expect(created?.changes).toContainEqual({ field: 'api_key', before_json: '', after_json: '"set"' });
    expect(updated?.changes).toEqual([
      { field: 'api_key', before_json: '"set"', after_json: '"replaced"' },
      { field: 'description', before_json: '', after_json: '"ours"' },
    ]);
    expect(deleted?.changes).toContainEqual({ field: 'api_key', before_json: '"set"', after_json: '"cleared"' });
  });

  it('shows keys as set, replaced or cleared, credentials by name, and no secret', async () => {
    const { configs, credentials } = service();
    const name = unique('desk');
    await credentials.createCredential({ credential: { name, provider: 'openai' }, api_key: `${CANARY}-shared` });
    const { id } = await newConfig(service());
    await configs.updateConfig({ config: { id }, api_key: `${CANARY}-1` });
    const withKey = await revision(service());
    await configs.updateConfig({ config: { id }, api_key: `${CANARY}-2` });
    await configs.updateConfig({ config: { id, credential_name: name }, clear_api_key: true });
    await configs.updateConfig({ config: { id }, update_mask: ['credential_name'] });
    await credentials.deleteCredential({ name });
    const [unset, named, replaced, set] = await changesOf(id);
    expect(set).toEqual({ api_key: ['', '"set"'] });
    expect(replaced).toEqual({ api_key: ['"set"', '"replaced"'] });
    expect(named).toEqual({ api_key: ['"set"', '"cleared"'], credential_name: ['', JSON.stringify(name)] });
    expect(unset).toEqual({ credential_name: [JSON.stringify(name), ''] });
    const responses = [
      await list({ page_size: 1000 }),
      await configs.getConfigRevision({ id, at_revision: withKey }),
      await configs.getConfigRevision({ id, at_revision: await revision(service()) }),
    ];
    expect(json(responses)).not.toContain('CANARY');
    expect(json(responses)).not.toMatch(/gAAAAA|key_id|key_revision|credential_id/);
  });

  it('is paged without loss or repetition during writes', { timeout: 120_000 }, async () => {
    const { configs } = service();
    const agents = await Promise.all(Array.from({ length: 500 }, () => newAgent(service())));
    const refs = agents.map(({ id }) => ({ id }));
    for (const temperature of [0.1, 0.2, 0.3, 0.4, 0.5])
      await configs.bulkAssignConfig({ agents: refs, config: { ...GPT4, temperature } });
    const other = await newConfig(service());
    const seen: string[] = [];
    let page_token = '';
    do {
      const page = await list({ kinds: ['RESOURCE_KIND_CONFIG'], page_size: 700, page_token });
      seen.push(...page.entries.map((entry) => `${entry.revision}-${entry.position}`));
      page_token = page.next_page_token;
      await configs.updateConfig({ config: { id: other.id, temperature: 0.5 } });
    } while (page_token !== '' && seen.length < 2500);
    expect(seen.length).toBeGreaterThanOrEqual(2500);
    expect(new Set(seen).size).toBe(seen.length);
    const ordered = seen.map((one) => one.split('-').map(Number) as [number, number]);
    for (const [at, [r, p]] of ordered.entries()) {
      const [before, q] = ordered[at - 1] ?? [Number.POSITIVE_INFINITY, 0];
      expect(r < before || (r === before && p === q + 1), `${before}-${q}, ${r}-${p}`).toBe(true);
    }
  });

  it('is not returned for invalid fields and for page tokens of another list', async () => {
    const kinds = ['RESOURCE_KIND_UNSPECIFIED' as const];
    await invalid(
      list({ config_id: 0, kinds, page_size: -1, agent: {} }),
      'config_id',
      'kinds[0]',
      'page_size',
      'agent',
    );
    const { next_page_token: page_token } = await list({ page_size: 1 });
    await refused(list({ page_token, kinds: ['RESOURCE_KIND_AGENT'] }), status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
    const [filterHash] = JSON.parse(Buffer.from(page_token, 'base64url').toString());
    for (const position of [[1], ['1', 0], [1.5, 0], [1, 0, 0], [1e300, 0], [1, 2 ** 31], [1, -(2 ** 40)]]) {
      const forged = Buffer.from(JSON.stringify([filterHash, ...position])).toString('base64url');
      await refused(list({ page_token: forged }), status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
    }
  });

  it('returns a config at a past revision with the entry that wrote it', async () => {
    const { configs, agents } = service();
    const agent = await newAgent(service());
    const first = await newConfig(service(), { extra_params: { seed: 7n, stop_sequences: ['x'] } }, agent);
    await agents.updateAgent({ agent: { id: agent.id, name: unique('renamed') } });
    const second = await configs.updateConfig({ config: { id: first.id, ...HAIKU }, update_mask: ['*'] });
    await configs.deleteConfig({ id: first.id });
    const at = (at_revision: bigint) => configs.getConfigRevision({ id: first.id, at_revision });

    const original = await at(first.revision);
    expect(original.config).toEqual({ ...first, etag: '' });
    expect(original.entry).toMatchObject({ revision: first.revision, action: 'CHANGE_ACTION_CREATE' });
    const renamed = await at(first.revision + 1n);
    expect(renamed.config).toEqual({ ...original.config, agent_name: expect.stringMatching(/^renamed/) });
    expect(renamed.entry).toEqual(original.entry);
    expect((await at(second.revision)).config).toEqual({ ...second.config, etag: '' });
    const deleted = await at(await revision(service()));
    expect(deleted.config).toBeUndefined();
    expect(deleted.entry).toMatchObject({ action: 'CHANGE_ACTION_DELETE', name: 'claude/claude-3-haiku-20240307' });
    expect(deleted.revision).toBe(await revision(service()));
  });

  it('reports whether the key of a past config is still stored', async () => {
    const { configs } = service();
    const { id, revision: bare } = await newConfig(service());
    const { revision: set } = await configs.updateConfig({ config: { id }, api_key: CANARY });
    const { revision: later } = await configs.updateConfig({ config: { id, temperature: 0.1 } });
    const stateAt = async (at_revision: bigint) => {
      const { config } = await configs.getConfigRevision({ id, at_revision });
      return [present(config).has_api_key_override, present(config).api_key_state];
    };
    expect(await stateAt(bare)).toEqual([false, 'API_KEY_STATE_NONE']);
    expect(await stateAt(set)).toEqual([true, 'API_KEY_STATE_SET']);
    expect(await stateAt(later)).toEqual([true, 'API_KEY_STATE_SET']);
    await configs.updateConfig({ config: { id }, api_key: `${CANARY}-2` });
    expect(await stateAt(later)).toEqual([true, 'API_KEY_STATE_UNREADABLE']);
    await configs.deleteConfig({ id });
    expect(await stateAt(set)).toEqual([true, 'API_KEY_STATE_UNREADABLE']);
  });

  it('returns an error for a revision before the config and for a future revision', async () => {
    const { configs } = service();
    const config = await newConfig(service());
    const { id } = config;
    const at = (at_revision: bigint) => configs.getConfigRevision({ id, at_revision });
    await notFound(at(config.revision - 1n), 'CONFIG_REVISION_NOT_FOUND');
    await notFound(configs.getConfigRevision({ id: 2_000_000_000, at_revision: 1n }), 'CONFIG_REVISION_NOT_FOUND');
    const error = await refused(at(1n << 60n), status.OUT_OF_RANGE, 'REVISION_IN_FUTURE');
    expect(error.metadata).toMatchObject({ revision: String(1n << 60n), newest: String(await revision(service())) });
    await invalid(configs.getConfigRevision({ id: 0, at_revision: 0n }), 'id', 'at_revision');
    await invalid(at(-1n), 'at_revision');
    expect((await getConfig(service(), id)).revision).toBe(config.revision);
  });
});

describe('the change history on a replica without notifications and polling', () => {
  let postgres: TestPostgres;
  let writer: TestService;
  let reader: TestService;
  beforeAll(async () => {
    postgres = await startPostgres({ own: true });
    const DATABASE_URL = await postgres.createDatabase('seeded');
    writer = await startService({ DATABASE_URL });
    reader = await startService({ DATABASE_URL, NOTIFY: 'off', POLL_INTERVAL_MS: '60000', DATABASE_WAIT_MS: '500' });
  });
  afterAll(async () => {
    await reader?.stop();
    await writer?.stop();
    await postgres.stop();
  });

  it('contains the revisions of the store and no later ones', async () => {
    const config = await newConfig(writer);
    const { id } = config;
    const found = await reader.configs.getConfigRevision({ id, at_revision: config.revision });
    expect(found.config).toEqual({ ...config, etag: '' });
    const changed = await writer.configs.updateConfig({ config: { id, temperature: 0 } });
    const only = { id, to_revision: changed.revision, validate_only: true };
    expect((await reader.configs.rollbackConfig(only)).revision).toBe(changed.revision);
    const ahead = { id, at_revision: changed.revision + 1n };
    await refused(reader.configs.getConfigRevision(ahead), status.OUT_OF_RANGE, 'REVISION_IN_FUTURE');
    const { revision: min_revision } = await writer.configs.updateConfig({ config: { id, temperature: 1 } });
    const { entries } = await reader.configs.listConfigRevisions({ config_id: id, min_revision });
    expect(entries).toHaveLength(3);
  });

  it('returns DATABASE_UNAVAILABLE without its database, but still validates requests', async () => {
    const { id, revision: at } = await newConfig(writer);
    await postgres.crash();
    const unavailable = (call: Promise<unknown>) => refused(call, status.UNAVAILABLE, 'DATABASE_UNAVAILABLE');
    const { configs, audit } = reader;
    await unavailable(configs.listConfigRevisions({}));
    await unavailable(configs.getConfigRevision({ id, at_revision: 1n }));
    await unavailable(configs.getConfigRevision({ id, at_revision: at + 1000n }));
    await unavailable(configs.rollbackConfig({ id, to_revision: 1n }));
    await unavailable(audit.listAuditEvents({}));
    await invalid(configs.rollbackConfig({ id: 0, to_revision: 1n }), 'id');
    await invalid(configs.listConfigRevisions({ config_id: -1 }), 'config_id');
    await postgres.restart();
  });
});
