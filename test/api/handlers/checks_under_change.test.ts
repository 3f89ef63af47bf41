import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { limits } from '../../../src/limits.js';
import { withLimits } from '../../feed/support.js';
import { type FakeProvider, json, KEY, text as plain, startFakeProvider, wire } from '../../providers/fake_provider.js';
import {
  checked,
  configAt,
  ending,
  environment,
  gate,
  OWN_KEY,
  provide,
  short,
} from '../../support/checked_provider.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { type Clients, failure, startService, type TestService, unique, useService } from '../../support/service.js';
import { connectPg } from '../../support/sql.js';
import { until } from '../../support/until.js';
import { newAgent, newConfig, present } from './support.js';

const MANY = 200;

/** Delays the response to the next request until `release` is called; later requests get a response at once. */
function delayNextResponse(fake: FakeProvider) {
  const [received, release] = [gate(), gate()];
  let first = true;
  fake.on('/v1/models', (request, response) => {
    if (!first) return wire.openai.list(request, response);
    first = false;
    received.open();
    void release.opened.then(() => wire.openai.list(request, response));
  });
  return { received: received.opened, release: release.open };
}

const rows = async (clients: Clients, config_id: number) =>
  (await clients.configs.listConfigHealth({ config_id })).health;

describe.each(['embedded', 'postgres'] as const)('CheckConfigHealth under concurrent changes on %s', (backend) => {
  const service = useService(backend, environment);

  it('stores one of the results when one config is checked 200 times at once', async () => {
    const provider = await provide(service(), await startFakeProvider('openai'));
    const { id } = await configAt(service(), provider);
    const endings = await Promise.allSettled(
      Array.from({ length: MANY }, () => service().configs.checkConfigHealth({ id }, { deadlineMs: 30_000 })),
    );
    const reasons = endings.flatMap((one) => (one.status === 'rejected' ? [one.reason.reason] : []));
    expect(reasons.filter((reason) => reason !== 'TOO_MANY_CHECKS')).toEqual([]);
    const results = endings.flatMap((one) => (one.status === 'fulfilled' ? [present(one.value.health)] : []));
    expect(results.length).toBeGreaterThan(0);
    for (const { status } of results) expect(status).toBe('CHECK_STATUS_OK');
    const kept = await rows(service(), id);
    expect(kept).toHaveLength(1);
    expect(results).toContainEqual(kept[0]);
    expect(Number(kept[0]?.checked_at)).toBe(Math.max(...results.map((one) => Number(one.checked_at))));
  });

  it('does not block writes, reads and lists while 200 checks wait for a hanging provider', async () => {
    const slow = await startFakeProvider('openai');
    slow.on('*', () => undefined);
    const provider = await provide(service(), slow);
    const agent = await newAgent(service());
    const ids = await Promise.all(
      Array.from(
        { length: 50 },
        async () => (await newConfig(service(), { provider, model_name: 'gpt-4o' }, agent)).id,
      ),
    );
    const calls = Array.from({ length: MANY }, (_, i) =>
      ending(service().configs.checkConfigHealth({ id: present(ids[i % ids.length]) }, { deadlineMs: 20_000 })),
    );
    await until(() => slow.seen.length > 0);
    let settled = false;
    const all = Promise.all(calls).finally(() => {
      settled = true;
    });
    // While the checks wait, they hold no connection to the database.
    let done = 0;
    while (!settled && done < 20) {
      const created = await service().agents.createAgent(
        { agent: { name: unique('meanwhile'), agent_type: 'analyst' } },
        { deadlineMs: 20_000 },
      );
      await service().configs.listConfigHealth({ page_size: 1 });
      await service().agents.getAgent({ agent: { id: present(created.agent).id } });
      done += 1;
    }
    expect(done).toBeGreaterThan(0);
    for (const one of await all) expect(one).toMatch(/^OK$|TOO_MANY_CHECKS$/);
    expect(await ending(service().configs.getConfig({ id: present(ids[0]) }))).toBe('OK');
  });

  it('returns an outdated result of the revision that it read when the config changes meanwhile', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const config = await configAt(service(), provider);
    const delayed = delayNextResponse(fake);
    const check = service().configs.checkConfigHealth({ id: config.id });
    await delayed.received;
    await service().configs.updateConfig({ config: { id: config.id, model_name: 'gpt-none' } });
    delayed.release();
    const health = present((await check).health);
    expect(health.config_revision).toBe(config.revision);
    expect(health.hops[0]?.model_name).toBe('gpt-4o');
    expect(health.outdated).toBe(true);
    expect(await rows(service(), config.id)).toEqual([health]);
  });

  it('does not replace the result of a newer revision with a delayed result of an older one', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const config = await configAt(service(), provider);
    const delayed = delayNextResponse(fake);
    const old = service().configs.checkConfigHealth({ id: config.id });
    await delayed.received;
    await service().configs.updateConfig({ config: { id: config.id, model_name: 'gpt-none' } });
    const newer = await checked(service(), config.id);
    expect(short(newer.status)).toBe('MODEL_MISSING');
    delayed.release();
    await old;
    expect(await rows(service(), config.id)).toEqual([newer]);
  });

  it('leaves no row when the config is deleted meanwhile', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const config = await configAt(service(), provider);
    const delayed = delayNextResponse(fake);
    const check = ending(service().configs.checkConfigHealth({ id: config.id }));
    await delayed.received;
    await service().configs.deleteConfig({ id: config.id });
    delayed.release();
    expect(await check).toMatch(/^OK$|^5 CONFIG_NOT_FOUND$/);
    expect(await rows(service(), config.id)).toEqual([]);
  });

  it('leaves no row when the agent and the provider are deleted meanwhile', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const config = await configAt(service(), provider);
    const delayed = delayNextResponse(fake);
    const check = ending(service().configs.checkConfigHealth({ id: config.id }));
    await delayed.received;
    await service().agents.deleteAgent({ agent: { id: config.agent_id }, cascade: true });
    await service().providers.deleteProvider({ name: provider });
    delayed.release();
    expect(await check).toMatch(/^OK$|^5 CONFIG_NOT_FOUND$/);
    expect((await service().configs.listConfigHealth({})).health.map((one) => one.config_id)).not.toContain(config.id);
    const again = await failure(service().configs.checkConfigHealth({ id: config.id }));
    expect(again.reason).toBe('CONFIG_NOT_FOUND');
  });

  it('stores a result that is listed with the new name after the agent is renamed', async () => {
    const provider = await provide(service(), await startFakeProvider('openai'));
    const config = await configAt(service(), provider);
    const health = await checked(service(), config.id);
    const name = unique('renamed');
    await service().agents.updateAgent({ agent: { id: config.agent_id, name } });
    expect(await rows(service(), config.id)).toEqual([{ ...health, agent_name: name }]);
  });

  it('never sends a stored key to another origin after the base URL changes', async () => {
    const [old, other] = [await startFakeProvider('openai'), await startFakeProvider('openai')];
    const provider = await provide(service(), old, []);
    const withOverride = await configAt(service(), provider, 'gpt-4o', OWN_KEY);
    const name = unique('desk');
    await service().credentials.createCredential({ credential: { name, provider }, api_key: OWN_KEY });
    const named = await newConfig(service(), { provider, model_name: 'gpt-4o', credential_name: name });
    await ending(
      service().providers.updateProvider({ provider: { name: provider, base_url: other.provider.base_url } }),
    );
    const states = [await checked(service(), withOverride.id), await checked(service(), named.id)].map((one) =>
      short(one.status),
    );
    expect(JSON.stringify(other.seen)).not.toContain('CANARY');
    for (const state of states) expect(state).toMatch(/KEY_UNREADABLE|INVALID/);
  });

  it('completes the request to the old base URL when the base URL changes meanwhile', async () => {
    const [old, other] = [await startFakeProvider('openai'), await startFakeProvider('openai')];
    const provider = await provide(service(), old);
    const { id } = await configAt(service(), provider);
    const delayed = delayNextResponse(old);
    const check = service().configs.checkConfigHealth({ id });
    await delayed.received;
    await service().providers.updateProvider({ provider: { name: provider, base_url: other.provider.base_url } });
    delayed.release();
    expect(short(present((await check).health).status)).toBe('OK');
    expect(other.seen).toEqual([]);
    expect(short((await checked(service(), id)).status)).toBe('OK');
    expect(other.seen.length).toBeGreaterThan(0);
  });

  it('returns the revision at which it read the config or the provider', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const config = await configAt(service(), provider);
    const { revision: before } = await service().agents.listAgents({ page_size: 1 });
    for (const call of [
      () => service().configs.checkConfigHealth({ id: config.id }),
      () => service().providers.validateApiKey({ provider, api_key: KEY }),
    ]) {
      const delayed = delayNextResponse(fake);
      const pending = call();
      await delayed.received;
      const { revision: meanwhile } = await service().configs.updateConfig({
        config: { id: config.id, temperature: 0.2 },
      });
      delayed.release();
      const { revision } = await pending;
      expect(revision).toBeGreaterThanOrEqual(before);
      expect(revision).toBeLessThan(meanwhile);
    }
  });

  it('creates no revision and does not change the config', async () => {
    const provider = await provide(service(), await startFakeProvider('openai'));
    const config = await configAt(service(), provider);
    const before = (await service().agents.listAgents({ page_size: 1 })).revision;
    await checked(service(), config.id);
    await service().providers.validateApiKey({ provider, api_key: KEY });
    expect((await service().agents.listAgents({ page_size: 1 })).revision).toBe(before);
    expect((await service().configs.getConfig({ id: config.id })).config).toEqual(config);
  });

  it('waits for min_revision, and returns UNAVAILABLE without a request when it is not reached', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const { id } = await configAt(service(), provider);
    const { revision } = await service().agents.listAgents({ page_size: 1 });
    const min_revision = revision + 1n;
    const calls = () => [
      service().configs.checkConfigHealth({ id, min_revision }),
      service().configs.listConfigHealth({ min_revision }),
      service().configs.listRetiringModels({ min_revision }),
      service().providers.validateApiKey({ provider, api_key: KEY, min_revision }),
    ];
    const { maxCallMs } = limits;
    withLimits({ maxCallMs: 1_000 });
    expect(await Promise.all(calls().map(ending))).toEqual(Array(4).fill('14 REVISION_NOT_REACHED'));
    expect(fake.seen).toEqual([]);
    withLimits({ maxCallMs });
    const waiting = Promise.all(calls());
    await newAgent(service());
    for (const response of await waiting) expect(response.revision).toBeGreaterThanOrEqual(min_revision);
  });
});

describe('CheckConfigHealth on PostgreSQL', () => {
  let postgres: TestPostgres;
  const running: TestService[] = [];
  beforeAll(async () => {
    postgres = await startPostgres({ own: true });
  });
  afterAll(async () => {
    await Promise.all(running.map((one) => one.stop()));
    await postgres.stop();
  });
  async function replica(DATABASE_URL: string, env: Record<string, string> = {}): Promise<TestService> {
    const one = await startService({ ...environment, DATABASE_URL, HTTP_ADDRESS: 'off', ...env });
    running.push(one);
    return one;
  }

  it('stores results that other replicas list, with outdated up to date', async () => {
    const url = await postgres.createDatabase('seeded');
    const [a, b] = [await replica(url), await replica(url)];
    const fake = await startFakeProvider('openai');
    const provider = await provide(a, fake);
    const config = await configAt(a, provider);
    const result = await checked(a, config.id);
    const seen = await b.configs.listConfigHealth({ config_id: config.id, min_revision: config.revision });
    expect(seen.health).toEqual([result]);
    const { revision } = await b.configs.updateConfig({ config: { id: config.id, temperature: 0.3 } });
    const after = await a.configs.listConfigHealth({ config_id: config.id, min_revision: revision });
    expect(after.health).toEqual([{ ...result, outdated: true }]);
    fake.on('*', plain(500, ''));
    const { health } = await b.configs.checkConfigHealth({ id: config.id });
    expect((await a.configs.listConfigHealth({ config_id: config.id })).health).toEqual([health]);
    expect(short(present(health).status)).toBe('PROVIDER_ERROR');
    const deleted = await a.configs.deleteConfig({ id: config.id });
    expect((await b.configs.listConfigHealth({ min_revision: deleted.revision })).health).toEqual([]);
  });

  it('leaves no row for a config that another replica has deleted but this one still has', async () => {
    const url = await postgres.createDatabase('seeded');
    const a = await replica(url);
    const b = await replica(url, { POLL_INTERVAL_MS: '5000', NOTIFY: 'off' });
    const provider = await provide(a, await startFakeProvider('openai'));
    const config = await configAt(a, provider);
    await b.configs.getConfig({ id: config.id, min_revision: config.revision });
    await a.configs.deleteConfig({ id: config.id });
    expect(await ending(b.configs.checkConfigHealth({ id: config.id }))).toMatch(/^OK$|^5 CONFIG_NOT_FOUND$/);
    expect((await a.configs.listConfigHealth({})).health).toEqual([]);
    expect((await b.configs.listConfigHealth({})).health).toEqual([]);
  });

  it('stores a result that a lagging replica omits or returns completely', async () => {
    const url = await postgres.createDatabase('seeded');
    const a = await replica(url);
    const provider = await provide(a, await startFakeProvider('openai'));
    const known = await configAt(a, provider);
    const b = await replica(url, { POLL_INTERVAL_MS: '30000', NOTIFY: 'off' });
    await checked(a, known.id);
    const config = await configAt(a, provider);
    await checked(a, config.id);
    for (const request of [{}, { config_id: config.id }, { statuses: ['CHECK_STATUS_OK' as const] }]) {
      const { health } = await b.configs.listConfigHealth(request);
      if (!('config_id' in request)) expect(health.map(({ config_id }) => config_id)).toContain(known.id);
      for (const one of health) {
        expect(one.agent_id).toBeGreaterThan(0);
        expect(one.agent_name).not.toBe('');
      }
    }
  });

  it('stores a result of a newer revision that a lagging replica does not return as outdated', async () => {
    const url = await postgres.createDatabase('seeded');
    const a = await replica(url);
    const provider = await provide(a, await startFakeProvider('openai'));
    const known = await configAt(a, provider);
    const b = await replica(url, { POLL_INTERVAL_MS: '30000', NOTIFY: 'off' });
    const change = await a.configs.updateConfig({ config: { id: known.id, temperature: 0.4 } });
    await checked(a, known.id);
    const { health, revision } = await b.configs.listConfigHealth({ config_id: known.id });
    expect(revision).toBeLessThan(change.revision);
    expect(health.map((one) => one.outdated)).toEqual([false]);
  });

  it('completes 200 checks and concurrent writes with a pool of two connections', async () => {
    const url = await postgres.createDatabase('seeded');
    const one = await replica(url, { DATABASE_POOL_SIZE: '2' });
    const fake = await startFakeProvider('openai');
    fake.on('/v1/models', (request, response) => void setTimeout(() => wire.openai.list(request, response), 300));
    const provider = await provide(one, fake);
    const { id } = await configAt(one, provider);
    const calls = Array.from({ length: MANY }, () =>
      ending(one.configs.checkConfigHealth({ id }, { deadlineMs: 30_000 })),
    );
    const writes = Array.from({ length: 20 }, () => ending(newAgent(one)));
    for (const call of await Promise.all(calls)) expect(call).toMatch(/^OK$|TOO_MANY_CHECKS$/);
    expect(await Promise.all(writes)).toEqual(Array(20).fill('OK'));
  });

  it('returns DATABASE_UNAVAILABLE while the database is unavailable, and recovers afterwards', async () => {
    const url = await postgres.createDatabase('seeded');
    const one = await replica(url);
    const fake = await startFakeProvider('openai');
    const provider = await provide(one, fake);
    const { id } = await configAt(one, provider);
    await checked(one, id);
    const delayed = delayNextResponse(fake);
    const meanwhile = ending(one.configs.checkConfigHealth({ id }));
    await delayed.received;
    await postgres.crash();
    try {
      delayed.release();
      expect(await meanwhile).toBe('14 DATABASE_UNAVAILABLE');
      const error = await failure(one.configs.checkConfigHealth({ id }));
      expect([error.reason, error.retry !== undefined]).toEqual(['DATABASE_UNAVAILABLE', true]);
      expect(error.message).not.toMatch(/ECONN|127\.0\.0\.1|select|insert|password/i);
      const list = await failure(one.configs.listConfigHealth({}));
      expect([list.reason, list.retry !== undefined]).toEqual(['DATABASE_UNAVAILABLE', true]);
      // Errors of the request are reported with or without a database.
      expect(await ending(one.configs.checkConfigHealth({ id: 1_000_000 }))).toBe('5 CONFIG_NOT_FOUND');
      expect(await ending(one.configs.listConfigHealth({ page_size: -1 }))).toBe('3 INVALID_FIELDS');
      expect(await ending(one.configs.listRetiringModels({}))).toBe('OK');
      fake.on('/v1/models', wire.openai.list);
      expect(await ending(one.providers.validateApiKey({ provider, api_key: KEY }))).toBe('OK');
    } finally {
      await postgres.restart();
    }
    await until(async () => (await ending(one.configs.checkConfigHealth({ id }))) === 'OK', 'a check succeeds');
    expect(short((await checked(one, id)).status)).toBe('OK');
    expect(await rows(one, id)).toHaveLength(1);
  });

  it('waits a limited time for a locked table', async () => {
    const url = await postgres.createDatabase('seeded');
    const one = await replica(url);
    const fake = await startFakeProvider('openai');
    const provider = await provide(one, fake);
    const { id } = await configAt(one, provider);
    await checked(one, id);
    const session = await connectPg(url);
    try {
      await session.query('begin');
      await session.query('lock table config_health in access exclusive mode');
      const started = performance.now();
      const [check, list] = await Promise.all([
        ending(one.configs.checkConfigHealth({ id }, { deadlineMs: 15_000 })),
        ending(one.configs.listConfigHealth({}, { deadlineMs: 15_000 })),
      ]);
      expect(performance.now() - started).toBeLessThan(20_000);
      for (const each of [check, list]) expect(each).toMatch(/^14 DATABASE_UNAVAILABLE$|^4 |^10 /);
      // Other calls continue with the remaining connections of the pool.
      expect(await ending(newAgent(one))).toBe('OK');
    } finally {
      await session.query('rollback');
      await session.end();
    }
    expect(short((await checked(one, id)).status)).toBe('OK');
    fake.on('*', json(200, {}));
  });
});
