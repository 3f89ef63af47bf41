import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { CheckStatus } from '../../../gen/ts/agentllm/v1/check.js';
import { generateKey } from '../../../src/domain/fernet.js';
import { openDatabase } from '../../../src/store/database.js';
import { withLimits } from '../../feed/support.js';
import { type FakeProvider, json, KEY, startFakeProvider, text } from '../../providers/fake_provider.js';
import { useDirectories } from '../../support/command.js';
import { type Clients, connectPatiently, failure, startUntilEnd, unique, useService } from '../../support/service.js';
import { until } from '../../support/until.js';
import { newAgent, newConfig, present, status } from './support.js';

const OTHER_KEY = 'sk-other-0123456789';
const encryption = { ENCRYPTION_KEY: generateKey() };
const local = { ...encryption, PROVIDER_ALLOW_CIDRS: '127.0.0.0/8' };
const directory = useDirectories();

describe.each(['embedded', 'postgres'] as const)('CheckConfigHealth on %s', (backend) => {
  const service = useService(backend, { ...local, PROVIDER_ALLOW_KEY_VARS: 'MINE_API_KEY', MINE_API_KEY: KEY });

  /** A provider row for a fake provider; by default its key is in the environment. */
  async function createProviderFor(fake: FakeProvider, api_key_env_vars: string[] = ['MINE_API_KEY']): Promise<string> {
    const { provider } = await service().providers.createProvider({
      provider: {
        name: unique('mine'),
        dialect: fake.provider.dialect,
        base_url: fake.provider.base_url,
        api_key_env_vars,
      },
    });
    return present(provider).name;
  }
  const check = async (id: number) => present((await service().configs.checkConfigHealth({ id })).health);

  it('returns OK with key source and latency when key and model are valid', async () => {
    const provider = await createProviderFor(await startFakeProvider('openai'));
    const config = await newConfig(service(), { provider, model_name: 'gpt-4o' });
    const health = await check(config.id);
    expect(health).toMatchObject({
      config_id: config.id,
      agent_name: config.agent_name,
      status: 'CHECK_STATUS_OK',
      config_revision: config.revision,
      outdated: false,
      hops: [
        {
          index: 0,
          source: 'HOP_SOURCE_CONFIG',
          provider,
          model_name: 'gpt-4o',
          status: 'CHECK_STATUS_OK',
          key_source: 'KEY_SOURCE_ENVIRONMENT',
          key_name: 'MINE_API_KEY',
        },
      ],
    });
    expect(health.hops[0]?.latency_ms).toBeGreaterThanOrEqual(0);
    expect(Math.abs(Date.now() - Number(health.checked_at))).toBeLessThan(60_000);
  });

  it('distinguishes a wrong key, a missing model, an unreachable provider and a rate limit', async () => {
    const fake = await startFakeProvider('claude');
    const provider = await createProviderFor(fake);
    const statusOf = async (fields: object, api_key?: string): Promise<CheckStatus> => {
      const config = await newConfig(service(), { provider, model_name: 'claude-3-haiku-20240307', ...fields });
      if (api_key) await service().configs.updateConfig({ config: { id: config.id }, api_key });
      return (await check(config.id)).status;
    };
    expect(await statusOf({}, OTHER_KEY)).toBe('CHECK_STATUS_INVALID');
    expect(await statusOf({ model_name: 'claude-of-tomorrow' })).toBe('CHECK_STATUS_MODEL_MISSING');
    const unreachable = await createProviderFor({
      ...fake,
      provider: { ...fake.provider, base_url: 'http://127.0.0.1:1' },
    });
    expect(await statusOf({ provider: unreachable })).toBe('CHECK_STATUS_UNREACHABLE');
    fake.on('*', json(429, { type: 'error', error: { type: 'rate_limit_error' } }, { 'retry-after': '7' }));
    expect(await statusOf({})).toBe('CHECK_STATUS_RATE_LIMITED');
    for (const { method, path } of fake.seen) expect(`${method} ${path}`).toMatch(/^GET \/v1\/models/);
  });

  it('checks each hop with the key that it resolves to: override, credential or environment', async () => {
    const [first, second] = [await startFakeProvider('openai'), await startFakeProvider('claude')];
    const [provider, fallback_provider] = [await createProviderFor(first), await createProviderFor(second)];
    const fallback = { fallback_provider, fallback_model: 'claude-3-haiku-20240307' };
    const config = await newConfig(service(), { provider, model_name: 'gpt-4o', ...fallback });
    await service().configs.updateConfig({ config: { id: config.id }, api_key: OTHER_KEY });
    const withOverride = await check(config.id);
    expect(withOverride.hops.map((hop) => [hop.status, hop.key_source])).toEqual([
      ['CHECK_STATUS_INVALID', 'KEY_SOURCE_CONFIG'],
      ['CHECK_STATUS_OK', 'KEY_SOURCE_ENVIRONMENT'],
    ]);
    expect(first.seen.at(-1)?.headers['authorization']).toBe(`Bearer ${OTHER_KEY}`);
    expect(second.seen.at(-1)?.headers['x-api-key']).toBe(KEY);
    const name = unique('desk');
    await service().credentials.createCredential({ credential: { name, provider }, api_key: KEY });
    const credential_name = name;
    await service().configs.updateConfig({ config: { id: config.id, credential_name }, clear_api_key: true });
    expect((await check(config.id)).hops[0]).toMatchObject({
      status: 'CHECK_STATUS_OK',
      key_source: 'KEY_SOURCE_CREDENTIAL',
      key_name: name,
    });
  });

  it('uses the override for a fallback at the same provider, and sends one request for both hops', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await createProviderFor(fake);
    const fallback = { fallback_provider: provider, fallback_model: 'gpt-4o-mini' };
    const config = await newConfig(service(), { provider, model_name: 'gpt-4o', ...fallback });
    await service().configs.updateConfig({ config: { id: config.id }, api_key: KEY });
    expect((await check(config.id)).hops.map((hop) => [hop.status, hop.key_source])).toEqual([
      ['CHECK_STATUS_OK', 'KEY_SOURCE_CONFIG'],
      ['CHECK_STATUS_OK', 'KEY_SOURCE_CONFIG'],
    ]);
    expect(fake.paths()).toEqual(['GET /v1/models']);
  });

  it('sends no request without a key, and reports a variable that is not allowed', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await createProviderFor(fake, ['NOT_ALLOWED_API_KEY']);
    const { hops } = await check((await newConfig(service(), { provider, model_name: 'gpt-4o' })).id);
    expect(hops[0]).toMatchObject({ status: 'CHECK_STATUS_NO_KEY', key_source: 'KEY_SOURCE_NONE' });
    expect(hops[0]?.latency_ms).toBeUndefined();
    expect(hops[0]?.message).toMatch(/NOT_ALLOWED_API_KEY.*PROVIDER_ALLOW_KEY_VARS/);
    expect(fake.seen).toEqual([]);
  });

  it('responds within the deadline of the call when the provider does not respond', async () => {
    const fake = await startFakeProvider('openai');
    fake.on('*', () => undefined);
    const config = await newConfig(service(), { provider: await createProviderFor(fake), model_name: 'gpt-4o' });
    const patient = connectPatiently(service().port);
    onTestFinished(() => patient.close());
    // A fifth of the time remains for the response. The service would fail the call at the deadline itself.
    const { health } = await patient.configs.checkConfigHealth({ id: config.id }, { deadlineMs: 5_000 });
    expect(health?.status).toBe('CHECK_STATUS_UNREACHABLE');
  });

  it('stores its result without a revision until the next check or the deletion of the config', async () => {
    const fake = await startFakeProvider('openai');
    const config = await newConfig(service(), { provider: await createProviderFor(fake), model_name: 'gpt-4o' });
    const { id } = config;
    const storedHealth = async () => (await service().configs.listConfigHealth({ config_id: id })).health;
    expect(await storedHealth()).toEqual([]);
    const { revision } = await service().configs.getConfig({ id });
    const result = await check(id);
    expect(await storedHealth()).toEqual([result]);
    expect((await service().configs.getConfig({ id })).revision).toBe(revision);
    await service().configs.updateConfig({ config: { id, temperature: 0.1 } });
    expect(await storedHealth()).toEqual([{ ...result, outdated: true }]);
    fake.on('*', text(503, 'no'));
    const again = await check(id);
    expect(again).toMatchObject({ status: 'CHECK_STATUS_PROVIDER_ERROR', outdated: false });
    expect(await storedHealth()).toEqual([again]);
    await service().configs.deleteConfig({ id });
    expect(await storedHealth()).toEqual([]);
  });

  it('stores results that ListConfigHealth filters by agent and status and pages', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await createProviderFor(fake);
    const agent = await newAgent(service());
    const ids: number[] = [];
    for (const model_name of ['gpt-4o', 'gpt-none', 'gpt-4o-mini'])
      ids.push((await newConfig(service(), { provider, model_name }, agent)).id);
    for (const id of ids) await check(id);
    const list = async (more: object) => {
      const { health, next_page_token } = await service().configs.listConfigHealth({
        agent: { name: agent.name },
        ...more,
      });
      return { ids: health.map(({ config_id }) => config_id), next_page_token };
    };
    expect(await list({})).toEqual({ ids, next_page_token: '' });
    const first = await list({ page_size: 2 });
    expect(first.ids).toEqual(ids.slice(0, 2));
    expect((await list({ page_size: 2, page_token: first.next_page_token })).ids).toEqual(ids.slice(2));
    expect((await list({ statuses: ['CHECK_STATUS_MODEL_MISSING'] })).ids).toEqual([ids[1]]);
    expect((await list({ statuses: ['CHECK_STATUS_INVALID', 'CHECK_STATUS_RATE_LIMITED'] })).ids).toEqual([]);
    expect((await list({ config_id: ids[2] })).ids).toEqual([ids[2]]);
    const foreign = await newConfig(service());
    expect((await list({ config_id: foreign.id })).ids).toEqual([]);
    const reused = failure(list({ statuses: ['CHECK_STATUS_OK'], page_token: first.next_page_token }));
    expect((await reused).reason).toBe('INVALID_PAGE_TOKEN');
  });

  it('stores no result when the call is cancelled', async () => {
    const fake = await startFakeProvider('openai');
    const config = await newConfig(service(), { provider: await createProviderFor(fake), model_name: 'gpt-4o' });
    const previous = await check(config.id);
    fake.on('*', () => undefined);
    const caller = new AbortController();
    const call = service().configs.checkConfigHealth({ id: config.id }, { signal: caller.signal });
    await until(() => fake.seen.length > 1);
    caller.abort();
    expect((await failure(call)).code).toBe(status.CANCELLED);
    await sleep(200);
    expect((await service().configs.listConfigHealth({ config_id: config.id })).health).toEqual([previous]);
  });

  it('does not replace the result of a later config revision with that of an earlier one', async () => {
    const fake = await startFakeProvider('openai');
    const { id } = await newConfig(service(), { provider: await createProviderFor(fake), model_name: 'gpt-4o' });
    let respond = () => {};
    fake.on('*', (_, response) => {
      respond = () => response.writeHead(503).end();
    });
    const slow = service().configs.checkConfigHealth({ id });
    await until(() => fake.seen.length === 1);
    const { revision } = await service().configs.updateConfig({ config: { id, model_name: 'gpt-4o-mini' } });
    fake.on('*', json(200, { object: 'list', data: [{ id: 'gpt-4o-mini', object: 'model' }] }));
    const newer = await check(id);
    respond();
    expect(Number((await slow).revision)).toBeLessThan(Number(revision));
    expect((await service().configs.listConfigHealth({ config_id: id })).health).toEqual([newer]);
  });

  it('stores results that ListConfigHealth does not return for forged page tokens', async () => {
    const mark = JSON.parse(Buffer.from(await pageToken(), 'base64url').toString())[0];
    for (const id of ['abc', 1.5, 1e300, -1]) {
      const page_token = Buffer.from(JSON.stringify([mark, id])).toString('base64url');
      expect((await failure(service().configs.listConfigHealth({ page_token }))).reason, String(id)).toBe(
        'INVALID_PAGE_TOKEN',
      );
    }
  });

  /** A page token of the unfiltered list. */
  async function pageToken(): Promise<string> {
    const provider = await createProviderFor(await startFakeProvider('openai'));
    for (const model_name of ['gpt-4o', 'gpt-4o'])
      await check((await newConfig(service(), { provider, model_name })).id);
    return (await service().configs.listConfigHealth({ page_size: 1 })).next_page_token;
  }

  it('returns an error for each invalid field and unknown resource', async () => {
    expect((await failure(service().configs.checkConfigHealth({}))).fields).toEqual(['id']);
    expect((await failure(service().configs.checkConfigHealth({ id: 2_000_000 }))).reason).toBe('CONFIG_NOT_FOUND');
    const invalidList = service().configs.listConfigHealth({
      config_id: -1,
      page_size: -1,
      statuses: ['CHECK_STATUS_UNSPECIFIED'],
    });
    expect((await failure(invalidList)).fields).toEqual(['page_size', 'config_id', 'statuses[0]']);
    const unknownAgent = service().configs.listConfigHealth({ agent: { name: 'nobody' } });
    expect((await failure(unknownAgent)).reason).toBe('AGENT_NOT_FOUND');
  });

  it('returns PROVIDER_DISABLED for a disabled provider without a request to it', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await createProviderFor(fake);
    const config = await newConfig(service(), { provider, model_name: 'gpt-4o' });
    await service().providers.updateProvider({ provider: { name: provider, enabled: false } });
    expect(await check(config.id)).toMatchObject({ status: 'CHECK_STATUS_PROVIDER_DISABLED' });
    expect(fake.seen).toEqual([]);
  });
});

describe('a config whose key cannot be read', () => {
  it('results in KEY_UNREADABLE, and the key of the environment is not used', async () => {
    const DATA_DIR = await directory.started();
    const before = await startUntilEnd({ ...local, DATA_DIR });
    const fake = await startFakeProvider('openai');
    const provider = { name: 'mine', dialect: fake.provider.dialect, base_url: fake.provider.base_url };
    await before.providers.createProvider({ provider: { ...provider, api_key_env_vars: ['MINE_API_KEY'] } });
    const { id } = await newConfig(before, { provider: 'mine', model_name: 'gpt-4o' });
    await before.configs.updateConfig({ config: { id }, api_key: KEY });
    await before.stop();
    const env = { ...local, ENCRYPTION_KEY: generateKey(), PROVIDER_ALLOW_KEY_VARS: 'MINE_API_KEY', MINE_API_KEY: KEY };
    const after = await startUntilEnd({ ...env, DATA_DIR });
    const { health } = await after.configs.checkConfigHealth({ id });
    expect(health?.hops[0]).toMatchObject({
      status: 'CHECK_STATUS_KEY_UNREADABLE',
      key_source: 'KEY_SOURCE_CONFIG',
    });
    expect(fake.seen).toEqual([]);
  });
});

describe('a provider at a host name', () => {
  const service = useService('embedded', { ...local, PROVIDER_ALLOW_KEY_VARS: 'MINE_API_KEY', MINE_API_KEY: KEY });

  it('on the loopback interface is accepted and checked when PROVIDER_ALLOW_CIDRS allows it', async () => {
    const fake = await startFakeProvider('openai');
    const base_url = `http://localhost:${fake.port}/v1/`;
    const name = unique('mine');
    const { dialect } = fake.provider;
    const provider = { name, dialect, base_url, api_key_env_vars: ['MINE_API_KEY'] };
    const created = await service().providers.createProvider({ provider });
    expect(created.provider?.base_url).toBe(`http://localhost:${fake.port}/v1`);
    const { id } = await newConfig(service(), { provider: name, model_name: 'gpt-4o' });
    const { health } = await service().configs.checkConfigHealth({ id });
    expect(health).toMatchObject({ status: 'CHECK_STATUS_OK', hops: [{ key_name: 'MINE_API_KEY' }] });
  });

  it.each([
    'http://vllm:8000/v1',
    'https://vllm/v1',
    'http://llm.internal:8000',
    'http://vllm.models.svc.cluster.local',
  ])('such as %s is accepted when PROVIDER_ALLOW_CIDRS is set', async (base_url) => {
    const provider = { name: unique('mine'), dialect: 'DIALECT_OPENAI_COMPATIBLE', base_url } as const;
    expect((await service().providers.createProvider({ provider })).provider?.base_url).toBe(base_url);
  });
});

describe('the key variable of a built-in provider', () => {
  /** A service whose built-in provider row refers to a fake provider, which only SQL can change. */
  async function startWithMovedProvider(fake: FakeProvider, env: Record<string, string>) {
    const DATA_DIR = await directory.started();
    const database = await openDatabase({
      url: undefined,
      dataDir: DATA_DIR,
      poolSize: 1,
      acquireTimeoutMs: 10_000,
      notify: false,
    });
    await database.knex('llm_providers').where({ name: fake.kind }).update({ base_url: fake.provider.base_url });
    await database.close();
    return startUntilEnd({ ...local, ...env, DATA_DIR });
  }

  it('is sent only to the built-in origin, also when the row was changed with SQL', async () => {
    const fake = await startFakeProvider('openai');
    const service = await startWithMovedProvider(fake, { OPENAI_API_KEY: KEY });
    const { id } = await newConfig(service, { provider: 'openai', model_name: 'gpt-4o' });
    const { health } = await service.configs.checkConfigHealth({ id });
    expect(health).toMatchObject({ status: 'CHECK_STATUS_NO_KEY', hops: [{ key_source: 'KEY_SOURCE_NONE' }] });
    expect(fake.seen).toEqual([]);
  });

  it('results in INVALID without a request when its value is not a key', async () => {
    const service = await startUntilEnd({ ...local, OPENAI_API_KEY: 'two words' });
    const { id } = await newConfig(service, { provider: 'openai', model_name: 'gpt-4o' });
    const { health } = await service.configs.checkConfigHealth({ id });
    expect(health).toMatchObject({ status: 'CHECK_STATUS_INVALID', hops: [{ key_name: 'OPENAI_API_KEY' }] });
    expect(health?.hops[0]?.latency_ms).toBeUndefined();
  });
});

describe('ValidateApiKey', () => {
  const service = useService('embedded', local);

  async function createProviderFor(clients: Clients, fake: FakeProvider): Promise<string> {
    const name = unique('mine');
    const { dialect, base_url } = fake.provider;
    await clients.providers.createProvider({ provider: { name, dialect, base_url } });
    return name;
  }

  it('returns the status of a valid and a wrong key, and of the model when one is given', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await createProviderFor(service(), fake);
    const validate = async (request: object) =>
      present((await service().providers.validateApiKey({ provider, ...request })).check);
    expect(await validate({ api_key: KEY })).toMatchObject({ status: 'CHECK_STATUS_OK' });
    expect(await validate({ api_key: KEY, model_name: 'gpt-4o' })).toMatchObject({ status: 'CHECK_STATUS_OK' });
    expect(await validate({ api_key: KEY, model_name: 'gpt-40' })).toMatchObject({
      status: 'CHECK_STATUS_MODEL_MISSING',
    });
    const wrong = await validate({ api_key: OTHER_KEY });
    expect(wrong).toMatchObject({ status: 'CHECK_STATUS_INVALID' });
    expect(JSON.stringify(wrong, (_, v) => (typeof v === 'bigint' ? String(v) : v))).not.toContain(OTHER_KEY);
  });

  it('returns a violation for each invalid field without the text of the key', async () => {
    const wrong = await failure(service().providers.validateApiKey({ api_key: 'two words', model_name: ' x' }));
    expect(wrong.fields).toEqual(['provider', 'api_key', 'model_name']);
    expect(wrong.message).not.toContain('two words');
    const unknown = service().providers.validateApiKey({ provider: 'nobody', api_key: KEY });
    expect((await failure(unknown)).reason).toBe('PROVIDER_NOT_FOUND');
  });

  it('rejects calls over its rate limit with a retry delay', async () => {
    withLimits({ keyValidationsPerMinute: 1 });
    const limitedService = await startUntilEnd(local);
    const fake = await startFakeProvider('openai');
    const provider = await createProviderFor(limitedService, fake);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 6 }, () => limitedService.providers.validateApiKey({ provider, api_key: KEY })),
    );
    const rejected = outcomes.filter((one) => one.status === 'rejected').map(({ reason }) => reason);
    expect(rejected).toHaveLength(5);
    for (const error of rejected) expect([error.reason, error.retry !== undefined]).toEqual(['TOO_MANY_CHECKS', true]);
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 60_000);
    onTestFinished(() => void vi.restoreAllMocks());
    await limitedService.providers.validateApiKey({ provider, api_key: KEY });
  });

  it('does not connect to an address that PROVIDER_ALLOW_CIDRS does not allow', async () => {
    const closed = await startUntilEnd(encryption);
    const fake = await startFakeProvider('openai');
    const provider = { name: 'mine', dialect: fake.provider.dialect, base_url: fake.provider.base_url };
    expect((await failure(closed.providers.createProvider({ provider }))).fields).toEqual(['provider.base_url']);
    const named = { ...provider, base_url: `https://localtest.me:${fake.port}/v1` };
    await closed.providers.createProvider({ provider: named });
    const { check } = await closed.providers.validateApiKey({ provider: 'mine', api_key: KEY });
    expect(check?.status).toMatch(/UNREACHABLE|ADDRESS_REFUSED/);
    expect(fake.seen).toEqual([]);
  });
});

describe('ListRetiringModels', () => {
  const service = useService('embedded');
  const DAY = 86_400_000;

  it('returns uses by configs, fallbacks and agents of models that are retired, retiring or deprecated', async () => {
    const { providers, configs } = service();
    const provider = unique('mine');
    const base_url = 'https://llm.example.com/v1';
    await providers.createProvider({ provider: { name: provider, dialect: 'DIALECT_OPENAI_COMPATIBLE', base_url } });
    const model = (name: string, days?: number, replaced_by?: string) =>
      providers.createModel({
        model: { provider, name, replaced_by, ...(days && { retires_at: new Date(Date.now() + days * DAY) }) },
      });
    await model('gone', -1, 'new');
    await model('going', 30);
    await model('later', 300);
    await model('old', undefined, 'new');
    await model('new');
    const agent = await newAgent(service(), { llm_provider: provider, llm_model: 'gone' });
    const fallback = { fallback_provider: provider, fallback_model: 'old' };
    const first = await newConfig(service(), { provider, model_name: 'going', ...fallback }, agent);
    const second = await newConfig(service(), { provider, model_name: 'later', enabled: false }, agent);
    await newConfig(service(), { provider, model_name: 'new' }, agent);
    const list = async (more: object = {}) => {
      const { uses, next_page_token } = await configs.listRetiringModels(more);
      const mine = uses.filter((use) => use.agent_id === agent.id);
      return { uses: mine.map((use) => [use.config_id, use.model_name, use.state, use.enabled]), next_page_token };
    };
    const near = [
      [undefined, 'gone', 'RETIREMENT_STATE_RETIRED', true],
      [first.id, 'going', 'RETIREMENT_STATE_RETIRING', true],
      [first.id, 'old', 'RETIREMENT_STATE_DEPRECATED', true],
    ];
    expect((await list()).uses).toEqual(near);
    expect((await list({ within_days: 365 })).uses).toEqual([
      ...near,
      [second.id, 'later', 'RETIREMENT_STATE_RETIRING', false],
    ]);
    expect((await list({ within_days: 1 })).uses.map(([, name]) => name)).toEqual(['gone', 'old']);
    const pages = [];
    for (let page_token = ''; ; ) {
      const page = await list({ page_size: 1, page_token });
      pages.push(...page.uses);
      page_token = page.next_page_token;
      if (page_token === '') break;
    }
    expect(pages).toEqual(near);
    for (const within_days of [0, -1, 3651])
      expect((await failure(configs.listRetiringModels({ within_days }))).fields).toEqual(['within_days']);
  });
});
