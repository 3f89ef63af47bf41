import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { generateKey } from '../../../src/domain/fernet.js';
import { openEncryption } from '../../../src/store/keys/encryption.js';
import { KEY, startFakeProvider } from '../../providers/fake_provider.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { unique, useService } from '../../support/service.js';
import { startBackend, type TestBackend } from '../../support/store.js';
import { until } from '../../support/until.js';
import {
  type ConfigFields,
  configsOf,
  GPT4,
  getAgent,
  getConfig,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  newModel,
  newProvider,
  notFound,
  precondition,
  present,
  refused,
  revision,
  stale,
  status,
} from './support.js';

const CANARY = 'sk-CANARY-7a0c41e9d3';
const ENCRYPTION_KEY = generateKey();
const json = (value: unknown) => JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? `${inner}` : inner));

describe.each(['embedded', 'postgres'] as const)('RollbackConfig on %s', (backend) => {
  const service = useService(backend, { ENCRYPTION_KEY, PROVIDER_ALLOW_CIDRS: '127.0.0.0/8' });
  type Request = Parameters<ReturnType<typeof service>['configs']['rollbackConfig']>[0];

  const rollback = (request: Request) => service().configs.rollbackConfig(request);
  const update = async (id: number, config: ConfigFields, more: object = {}) =>
    present((await service().configs.updateConfig({ config: { id, ...config }, ...more })).config);
  const remove = async (id: number) => (await service().configs.deleteConfig({ id })).revision;
  const newest = async (config_id: number) =>
    present((await service().configs.listConfigRevisions({ config_id, page_size: 1 })).entries[0]);
  const keyOf = ({ has_api_key_override, api_key_state }: { has_api_key_override: boolean; api_key_state: string }) =>
    has_api_key_override ? api_key_state.replace('API_KEY_STATE_', '') : 'NONE';
  /** The provider's check of the key that the config uses: proves that the key is intact, and which key it is. */
  const check = async (id: number) => (await service().configs.checkConfigHealth({ id })).health?.status;

  /** A provider row for a fake provider that accepts only KEY. */
  async function createFakeProvider(): Promise<string> {
    const { dialect, base_url } = (await startFakeProvider('openai')).provider;
    return (await newProvider(service(), { dialect, base_url })).name;
  }

  describe('to earlier fields', () => {
    it('sets every field to its earlier value in a normal write', async () => {
      const agent = await newAgent(service());
      const first = await newConfig(
        service(),
        {
          temperature: 0.3,
          max_tokens: 100,
          top_p: 0.9,
          fallback_provider: 'claude',
          fallback_model: 'claude-3-haiku-20240307',
          cost_per_1k_input_tokens: 0.5,
          metadata_json: '{"a":1}',
          priority: 5,
          enabled: false,
          extra_params: { seed: 7n, stop_sequences: ['END'], request_timeout_ms: 1000 },
        },
        agent,
      );
      const second = await update(
        first.id,
        { ...HAIKU, enabled: true, priority: 9, temperature: 1, extra_params: { request_timeout_ms: 5 } },
        { update_mask: ['*'] },
      );
      expect(second).not.toMatchObject({ max_tokens: 100 });
      const chain = (await getAgent(service(), agent.id)).chain_etag;
      const {
        config,
        revision: at,
        findings,
      } = await rollback({
        id: first.id,
        to_revision: first.revision,
        etag: second.etag,
        reason: 'it was better before',
      });
      expect(config).toEqual({
        ...first,
        revision: second.revision + 1n,
        updated_at: present(config).updated_at,
        etag: present(config).etag,
      });
      expect(at).toBe(second.revision + 1n);
      expect(findings).toEqual(expect.any(Array));
      expect(await getConfig(service(), first.id)).toEqual(config);
      expect((await getAgent(service(), agent.id)).chain_etag).not.toBe(chain);
      const entry = await newest(first.id);
      expect(entry).toMatchObject({
        action: 'CHANGE_ACTION_UPDATE',
        method: 'agentllm.v1.AgentLLMConfigService/RollbackConfig',
        reason: 'it was better before',
        revision: at,
      });
      expect(entry.changes).toContainEqual({ field: 'extra_params.seed', before_json: '', after_json: '7' });
    });

    it('removes a price that was set later, and sets one that was removed later', async () => {
      const free = await newConfig(service(), { price_given: true });
      const unset = await update(free.id, { price_given: false });
      const priced = await update(free.id, { cost_per_1k_output_tokens: 2 });
      const to = async (to_revision: bigint) => (await rollback({ id: free.id, to_revision })).config;
      expect(await to(unset.revision)).toMatchObject({ price_given: false, cost_per_1k_output_tokens: 0 });
      expect(await to(free.revision)).toMatchObject({ price_given: true, cost_per_1k_output_tokens: 0 });
      expect(await to(priced.revision)).toMatchObject({ price_given: true, cost_per_1k_output_tokens: 2 });
    });

    it('creates a revision even if nothing changes, and can itself be rolled back', async () => {
      const config = await newConfig(service());
      const same = present((await rollback({ id: config.id, to_revision: config.revision })).config);
      expect(same.revision).toBe(config.revision + 1n);
      expect((await newest(config.id)).changes).toEqual([]);
      const changed = await update(config.id, { temperature: 0 });
      await rollback({ id: config.id, to_revision: same.revision });
      const again = await rollback({ id: config.id, to_revision: changed.revision });
      expect(again.config).toMatchObject({ temperature: 0 });
    });

    it('rejects a stale etag, and an etag of a deleted config', async () => {
      const config = await newConfig(service());
      const changed = await update(config.id, { temperature: 0 });
      await stale(rollback({ id: config.id, to_revision: config.revision, etag: config.etag }));
      const deletedAt = await remove(config.id);
      await stale(rollback({ id: config.id, to_revision: config.revision, etag: changed.etag }));
      expect(await revision(service())).toBe(deletedAt);
    });

    it('validates everything and writes nothing with validate_only', async () => {
      const config = await newConfig(service());
      const changed = await update(config.id, { temperature: 0 });
      const only = { id: config.id, to_revision: config.revision, validate_only: true };
      const { config: preview, revision: at } = await rollback(only);
      expect(preview).toMatchObject({ id: config.id, temperature: 0.7, revision: 0n });
      expect(at).toBe(changed.revision);
      await remove(config.id);
      expect((await rollback(only)).config).toMatchObject({ id: config.id, temperature: 0.7 });
      expect(await newest(config.id)).toMatchObject({ action: 'CHANGE_ACTION_DELETE' });
      await stale(rollback({ ...only, etag: config.etag }));
    });
  });

  describe('for any request', () => {
    it('returns a violation for every invalid field before it reads the history', async () => {
      const invalidRequest = {
        id: 0,
        to_revision: 0n,
        api_key: 'with space',
        without_key: true,
        request_id: 'x',
        reason: '\0',
      };
      const error = await invalid(
        rollback(invalidRequest),
        ...['id', 'to_revision', 'api_key', 'without_key', 'request_id', 'reason'],
      );
      expect(json(error)).not.toContain('with space');
      await invalid(rollback({ id: 2_000_000_000, to_revision: 1n, request_id: 'x' }), 'request_id');
      await invalid(rollback({ id: 2_000_000_000, to_revision: 1n, reason: 'x'.repeat(501) }), 'reason');
    });

    it('returns CONFIG_REVISION_NOT_FOUND for a revision at which the config did not exist', async () => {
      const config = await newConfig(service());
      const deletedAt = await remove(config.id);
      const to = (to_revision: bigint) => rollback({ id: config.id, to_revision });
      await notFound(to(config.revision - 1n), 'CONFIG_REVISION_NOT_FOUND');
      await notFound(to(deletedAt), 'CONFIG_REVISION_NOT_FOUND');
      await notFound(rollback({ id: 2_000_000_000, to_revision: 1n }), 'CONFIG_REVISION_NOT_FOUND');
      await refused(to(deletedAt + 1000n), status.OUT_OF_RANGE, 'REVISION_IN_FUTURE');
    });

    it('returns the stored response for a repeated request_id, regardless of later changes', async () => {
      const agent = await newAgent(service());
      const config = await newConfig(service(), {}, agent);
      const changed = await update(config.id, { temperature: 0 });
      const request = { id: config.id, to_revision: config.revision, etag: changed.etag, request_id: randomUUID() };
      const first = await rollback(request);
      expect(await rollback(request)).toEqual(first);
      await service().agents.deleteAgent({ agent: { id: agent.id }, cascade: true });
      const after = await revision(service());
      expect(await rollback(request)).toEqual(first);
      expect(await revision(service())).toBe(after);
      await refused(rollback({ ...request, etag: '' }), status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
      const unfound = { ...request, to_revision: config.revision - 1n };
      await refused(rollback(unfound), status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
      await notFound(rollback({ ...request, request_id: '', etag: '' }), 'AGENT_NOT_FOUND');
    });
  });

  describe('with an API key', () => {
    it('keeps the key when provider and origin are those of the earlier state', async () => {
      const provider = await createFakeProvider();
      const config = await newConfig(service(), { provider, model_name: 'gpt-4o' });
      const keyed = await update(config.id, { temperature: 0 }, { api_key: KEY });
      expect(await check(config.id)).toBe('CHECK_STATUS_OK');
      for (const to_revision of [config.revision, keyed.revision]) {
        const { config: rolled } = await rollback({ id: config.id, to_revision });
        expect(keyOf(present(rolled))).toBe('SET');
        expect(await check(config.id)).toBe('CHECK_STATUS_OK');
      }
      expect((await newest(config.id)).changes.map(({ field }) => field)).not.toContain('api_key');
    });

    it('clears the key when the earlier state has another provider', async () => {
      const config = await newConfig(service(), HAIKU);
      await update(config.id, GPT4, { api_key: CANARY });
      const { config: rolled } = await rollback({ id: config.id, to_revision: config.revision });
      expect(rolled).toMatchObject({ provider: 'claude', has_api_key_override: false });
      expect((await newest(config.id)).changes).toContainEqual({
        field: 'api_key',
        before_json: '"set"',
        after_json: '"cleared"',
      });
    });

    it('returns KEY_NOT_RESTORABLE when the earlier key is lost, unless a key or without_key is sent', async () => {
      const provider = await createFakeProvider();
      const config = await newConfig(service(), { provider, model_name: 'gpt-4o' });
      const keyed = await update(config.id, {}, { api_key: `${CANARY}-mine` });
      await update(config.id, GPT4, { api_key: `${CANARY}-openai` });
      const request = { id: config.id, to_revision: keyed.revision };
      const before = await revision(service());
      const error = await precondition(rollback(request), 'KEY_NOT_RESTORABLE');
      expect(error.metadata).toMatchObject({ id: `${config.id}`, provider, revision: `${keyed.revision}` });
      await precondition(rollback({ ...request, validate_only: true }), 'KEY_NOT_RESTORABLE');
      expect(await revision(service())).toBe(before);
      const without = await rollback({ ...request, without_key: true });
      expect(keyOf(present(without.config))).toBe('NONE');
      await precondition(rollback(request), 'KEY_NOT_RESTORABLE');
      const brought = await rollback({ ...request, api_key: KEY });
      expect(keyOf(present(brought.config))).toBe('SET');
      expect(await check(config.id)).toBe('CHECK_STATUS_OK');
      expect(keyOf(present((await rollback({ ...request, without_key: true })).config))).toBe('NONE');
      expect(json([error, without, brought])).not.toMatch(/CANARY|planted/);
    });

    it('never binds the key to an origin that the earlier state did not have', async () => {
      const { name } = await newProvider(service());
      const bare = await newConfig(service(), { provider: name, model_name: 'm' });
      const keyed = await update(bare.id, {}, { api_key: CANARY });
      const move = (base_url: string) => service().providers.updateProvider({ provider: { name, base_url } });
      await move('https://llm.example.com/v2');
      const kept = await rollback({ id: bare.id, to_revision: keyed.revision });
      expect(keyOf(present(kept.config))).toBe('SET');
      await update(bare.id, {}, { clear_api_key: true });
      await move('https://elsewhere.example.com/v1');
      const moved = await update(bare.id, {}, { api_key: `${CANARY}-elsewhere` });
      await precondition(rollback({ id: bare.id, to_revision: keyed.revision }), 'KEY_NOT_RESTORABLE');
      const since = await rollback({ id: bare.id, to_revision: moved.revision });
      expect(keyOf(present(since.config))).toBe('SET');
      const { config } = await rollback({ id: bare.id, to_revision: bare.revision });
      expect(keyOf(present(config))).toBe('NONE');
    });

    it('replaces the key with the credential of the earlier state', async () => {
      const name = unique('desk');
      await service().credentials.createCredential({ credential: { name, provider: 'openai' }, api_key: CANARY });
      const shared = await newConfig(service(), { credential_name: name });
      const override = await update(shared.id, {}, { api_key: CANARY, update_mask: ['credential_name'] });
      expect([keyOf(override), override.credential_name]).toEqual(['SET', undefined]);
      const request = { id: shared.id, to_revision: shared.revision };
      await invalid(rollback({ ...request, api_key: CANARY }), 'api_key');
      const { config } = await rollback(request);
      expect([keyOf(present(config)), config?.credential_name]).toEqual(['NONE', name]);
      await precondition(rollback({ id: shared.id, to_revision: override.revision }), 'KEY_NOT_RESTORABLE');
      const back = await rollback({ id: shared.id, to_revision: override.revision, api_key: CANARY });
      expect([keyOf(present(back.config)), back.config?.credential_name]).toEqual(['SET', undefined]);
    });

    it('requires that the credential of the earlier state exists for its provider', async () => {
      const { credentials } = service();
      const name = unique('desk');
      await credentials.createCredential({ credential: { name, provider: 'openai' }, api_key: CANARY });
      const shared = await newConfig(service(), { credential_name: name });
      await update(shared.id, {}, { update_mask: ['credential_name'] });
      await credentials.deleteCredential({ name });
      const request = { id: shared.id, to_revision: shared.revision };
      const gone = await invalid(rollback(request), 'config.credential_name');
      expect(gone.message).toContain(name);
      await credentials.createCredential({ credential: { name, provider: 'claude' }, api_key: CANARY });
      await invalid(rollback(request), 'config.credential_name');
      await credentials.deleteCredential({ name });
      await credentials.createCredential({ credential: { name, provider: 'openai' }, api_key: CANARY });
      expect((await rollback(request)).config).toMatchObject({ credential_name: name });
    });
  });

  describe('of a deleted config', () => {
    it('creates it with its old id and priority', async () => {
      const agent = await newAgent(service());
      const first = await newConfig(service(), { temperature: 0.1 }, agent);
      const other = await newConfig(service(), HAIKU, agent);
      const deleted = await remove(first.id);
      const request = { id: first.id, to_revision: deleted - 1n, reason: 'not that one' };
      const { config, revision: at } = await rollback(request);
      expect(config).toEqual({
        ...first,
        revision: deleted + 1n,
        updated_at: present(config).updated_at,
        etag: present(config).etag,
      });
      expect(present(config).updated_at).not.toEqual(first.updated_at);
      expect((await configsOf(service(), agent.id)).map(({ id }) => id)).toEqual([first.id, other.id]);
      expect((await service().configs.getPrimaryConfig({ agent: { id: agent.id } })).config?.id).toBe(first.id);
      expect(await newest(first.id)).toMatchObject({
        action: 'CHANGE_ACTION_CREATE',
        reason: 'not that one',
        revision: at,
      });
      // The row can be checked, changed and followed by new configs as any other row.
      expect(await check(first.id)).toBe('CHECK_STATUS_NO_KEY');
      const later = await update(first.id, { temperature: 0.5 });
      expect((await newConfig(service(), {}, agent)).id).toBeGreaterThan(other.id);
      await stale(rollback({ ...request, etag: first.etag }));
      expect((await rollback({ ...request, etag: later.etag })).config).toMatchObject({ temperature: 0.1 });
    });

    it('requires a key or without_key, because the key was deleted', async () => {
      const provider = await createFakeProvider();
      const config = await newConfig(service(), { provider, model_name: 'gpt-4o' });
      const keyed = await update(config.id, {}, { api_key: KEY });
      await remove(config.id);
      const request = { id: config.id, to_revision: keyed.revision };
      await precondition(rollback(request), 'KEY_NOT_RESTORABLE');
      const without = await rollback({ ...request, without_key: true });
      expect(keyOf(present(without.config))).toBe('NONE');
      expect(await check(config.id)).toBe('CHECK_STATUS_NO_KEY');
      await remove(config.id);
      const brought = await rollback({ ...request, api_key: KEY });
      expect(keyOf(present(brought.config))).toBe('SET');
      expect(await check(config.id)).toBe('CHECK_STATUS_OK');
      await remove(config.id);
      expect(keyOf(present((await rollback({ id: config.id, to_revision: config.revision })).config))).toBe('NONE');
    });

    it('returns AGENT_NOT_FOUND when its agent is deleted', async () => {
      const agent = await newAgent(service());
      const config = await newConfig(service(), {}, agent);
      await service().agents.deleteAgent({ agent: { id: agent.id }, cascade: true });
      const again = await newAgent(service(), { name: agent.name });
      const error = await notFound(rollback({ id: config.id, to_revision: config.revision }), 'AGENT_NOT_FOUND');
      expect(error.message).toContain(String(agent.id));
      expect(await configsOf(service(), again.id)).toEqual([]);
    });
  });

  describe('to a state that the catalogue no longer allows', () => {
    it('returns a violation for every invalid field', async () => {
      const { providers } = service();
      const [primary, other] = [await newProvider(service()), await newProvider(service())];
      const fallback = { fallback_provider: other.name, fallback_model: 'm' };
      const config = await newConfig(service(), { provider: primary.name, model_name: 'm', ...fallback });
      await update(config.id, GPT4, { update_mask: ['provider', 'model_name', ...Object.keys(fallback)] });
      const back = () => rollback({ id: config.id, to_revision: config.revision });
      await providers.updateProvider({ provider: { name: primary.name, enabled: false } });
      const off = await invalid(back(), 'config.provider');
      expect(off.message).toContain('disabled');
      await providers.deleteProvider({ name: primary.name });
      await providers.updateProvider({ provider: { name: other.name, allow_unknown_models: false } });
      await invalid(back(), 'config.provider', 'config.fallback_model');
      await remove(config.id);
      await invalid(back(), 'config.provider', 'config.fallback_model');
    });

    it('validates the parameters against the current limits of the model', async () => {
      const { name: provider } = await newProvider(service());
      const { name: model_name } = await newModel(service(), { provider, max_output_tokens: 1000 });
      const config = await newConfig(service(), { provider, model_name, max_tokens: 1000 });
      await update(config.id, { max_tokens: 10 });
      await service().providers.updateModel({ model: { provider, name: model_name, max_output_tokens: 500 } });
      await invalid(rollback({ id: config.id, to_revision: config.revision }), 'config.max_tokens');
    });

    it('accepts an unchanged provider, and a model that was unknown when it was allowed', async () => {
      const strict = await newProvider(service(), { allow_unknown_models: false });
      const place = { provider: strict.name, model_name: 'of tomorrow' };
      const unknown = await newConfig(service(), place, undefined, true);
      await update(unknown.id, { temperature: 0 });
      await service().providers.updateProvider({ provider: { name: strict.name, enabled: false } });
      expect((await rollback({ id: unknown.id, to_revision: unknown.revision })).config).toMatchObject(place);
      await service().providers.updateProvider({ provider: { name: strict.name, enabled: true } });
      await update(unknown.id, GPT4);
      expect((await rollback({ id: unknown.id, to_revision: unknown.revision })).config).toMatchObject(place);
    });
  });
});

describe('a deletion and a rollback that are committed together', () => {
  let postgres: TestPostgres;
  let backend: TestBackend;
  beforeAll(async () => {
    postgres = await startPostgres();
    backend = await startBackend({ url: await postgres.createDatabase('seeded') });
    await openEncryption(backend.store, ENCRYPTION_KEY);
  });
  afterAll(async () => {
    await backend?.close();
    await postgres.stop();
  });

  it('delete the key', async () => {
    const { configs, store } = backend;
    const { knex } = backend.database;
    const { id, revision: bare } = await newConfig(backend);
    await configs.updateConfig({ config: { id }, api_key: CANARY });
    const other = await newConfig(backend);
    // While the counter row is locked, the first write waits for it, and the next two wait in the queue.
    const holder = await knex.transaction();
    await holder('store_state').forUpdate();
    const queued = vi.spyOn(store.writeQueue, 'add');
    const first = configs.updateConfig({ config: { id: other.id, temperature: 0 } });
    await until(() => queued.mock.calls.length === 1);
    const deletion = configs.deleteConfig({ id });
    await until(() => queued.mock.calls.length === 2);
    const rolling = configs.rollbackConfig({ id, to_revision: bare });
    await until(() => queued.mock.calls.length === 3);
    await holder.rollback();
    const [, deleted, rolled] = await Promise.all([first, deletion, rolling]);
    const log = knex('config_revisions').whereIn('revision', [deleted.revision, rolled.revision].map(Number));
    expect(new Set(await log.pluck('created_at').then((times) => times.map(Number))).size).toBe(1);
    expect(rolled.config).toMatchObject({ id, has_api_key_override: false });
    const [row] = await knex('agent_llm_configs').where({ id });
    expect(row).toMatchObject({ api_key_encrypted: null, key_id: null, key_revision: null });
  });
});
