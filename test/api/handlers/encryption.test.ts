import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { UNBOUND } from '../../../src/domain/encryption_state.js';
import { FernetKey, generateKey } from '../../../src/domain/fernet.js';
import { openEncryption, openKey } from '../../../src/store/keys/encryption.js';
import { type BackendOptions, engines, startWatchBackend, type WatchBackend } from '../../feed/backend.js';
import { withLimits } from '../../feed/support.js';
import { ending } from '../../support/checked_provider.js';
import { startPostgres, type TestPostgres } from '../../support/postgres.js';
import { type Link, startProxy } from '../../support/proxy.js';
import { keysUnder, rotate } from '../../support/rotation.js';
import { type CallError, failure, unique } from '../../support/service.js';
import { until } from '../../support/until.js';
import { newAgent, newConfig, newProvider, precondition, present } from './support.js';

vi.setConfig({ testTimeout: 120_000 });

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startPostgres();
});
afterAll(() => postgres.stop());

async function start(options: BackendOptions): Promise<WatchBackend> {
  const backend = await startWatchBackend(options);
  onTestFinished(() => backend.stop());
  return backend;
}

const freshOn = async (engine: (typeof engines)[number], encryptionKey: string) =>
  start({ encryptionKey, ...(engine === 'postgres' && { url: await postgres.createDatabase('seeded') }) });

const twoKeys = () => [generateKey(), generateKey()] as const;
const idOf = (key: string) => present(FernetKey.parse(key)).id;

/** Stores keys in configs of ten agents and in credentials. Returns the keys by holder, such as `config 7`. */
async function storeKeys(backend: WatchBackend, count: number): Promise<Map<string, string>> {
  const keys = new Map<string, string>();
  const agents = await Promise.all(Array.from({ length: 10 }, () => newAgent(backend)));
  const config = { provider: 'openai', model_name: 'gpt-4' };
  const store = async (_: unknown, at: number) => {
    const api_key = `sk-${randomUUID()}`;
    if (at % 10 === 0) {
      const name = unique('desk');
      await backend.credentials.createCredential({ credential: { name, provider: 'openai' }, api_key });
      keys.set(`credential ${present(backend.store.state.credentialNamed(name)).id}`, api_key);
    } else {
      const agent = { id: present(agents[at % agents.length]).id };
      const created = await backend.configs.createConfig({ agent, config, api_key });
      keys.set(`config ${present(created.config).id}`, api_key);
    }
  };
  await Promise.all(Array.from({ length: count }, store));
  return keys;
}

const status = (backend: WatchBackend) => backend.credentials.getEncryptionStatus({});

/** The ciphertexts in the tables, and the newest revision. */
async function stored({ database: { knex } }: WatchBackend) {
  const configs = await knex('agent_llm_configs')
    .select('id', 'api_key_encrypted', 'key_id', 'updated_at')
    .orderBy('id');
  const credentials = await knex('llm_credentials').select('id', 'api_key_encrypted', 'key_id').orderBy('id');
  const [head] = await knex('store_state').select('revision');
  return { configs, credentials, head };
}

async function logOf({
  database: { knex },
}: WatchBackend): Promise<{ revision: number; method: string; before: unknown }[]> {
  return knex('config_revisions').select('revision', 'method', 'before').orderBy(['revision', 'position']);
}

const ROTATION = 'agentllm.v1.CredentialService/RotateEncryptionKey';

describe.each(engines)('RotateEncryptionKey on %s', (engine) => {
  it('re-encrypts 1 000 keys during reads and writes without loss, errors or delivered changes', async () => {
    const [old, next] = twoKeys();
    const backend = await freshOn(engine, old);
    const { configs, credentials, store } = backend;
    const expected: Map<string, string | undefined> = new Map(await storeKeys(backend, 1000));
    await openEncryption(store, `${next},${old}`);
    const watch = backend.watch({ all_agents: true });
    await watch.until(({ reached }) => reached > 0);

    let running = true;
    const ids = [...expected.keys()].filter((name) => name.startsWith('config ')).map((name) => Number(name.slice(7)));
    const names = [...store.state.credentials.values()];
    const errors: CallError[] = [];
    const iterations: number[] = [];
    const least = () => Math.min(...iterations);
    /** Each writer uses separate rows, so that only a rotation could make an etag stale. */
    const startWriter = (iteration: (at: number) => Promise<void>) => {
      const writer = iterations.push(0) - 1;
      return async () => {
        for (let at = 0; running; iterations[writer] = ++at)
          await iteration(at).catch((error) => void errors.push(error));
      };
    };
    const pick = (from: number, at: number) => ids[(from + at * 4) % ids.length] as number;
    const etags = new Map<number, string>();
    const parameterWriter = startWriter(async (at) => {
      const id = pick(0, at);
      const etag = etags.get(id) ?? present((await configs.getConfig({ id })).config).etag;
      const updated = await configs.updateConfig({ config: { id, etag, temperature: (at % 20) / 10 } });
      etags.set(id, present(updated.config).etag);
    });
    const keyReplacer = startWriter(async (at) => {
      const id = pick(1, at);
      const api_key = `sk-new-${randomUUID()}`;
      await configs.updateConfig({ config: { id }, api_key });
      expected.set(`config ${id}`, api_key);
    });
    const keyClearer = startWriter(async (at) => {
      const id = pick(2, at);
      if (at % 2 === 0) {
        await configs.updateConfig({ config: { id }, clear_api_key: true });
        expected.delete(`config ${id}`);
      } else {
        const { name, id: credential } = present(names[at % names.length]);
        const api_key = `sk-cred-${randomUUID()}`;
        await credentials.updateCredential({ credential: { name }, api_key });
        expected.set(`credential ${credential}`, api_key);
      }
    });
    const configCreator = startWriter(async (at) => {
      const id = pick(3, at);
      const api_key = `sk-made-${randomUUID()}`;
      const agent = { id: present(store.state.configs.get(id)).agent_id };
      const created = await configs.createConfig({
        agent,
        config: { provider: 'openai', model_name: 'gpt-4' },
        api_key,
      });
      expected.set(`config ${present(created.config).id}`, api_key);
      await configs.deleteConfig({ id });
      expected.delete(`config ${id}`);
      ids.splice(ids.indexOf(id), 1, present(created.config).id);
    });
    const reader = startWriter(async (at) => {
      const row = store.state.configs.get(pick(0, at * 7));
      if (row?.key_id) expect(await openKey(store, 'config', row)).toMatch(/^sk-/);
      const { configs: page } = await configs.listConfigs({ page_size: 50 });
      expect(page.filter(({ api_key_state }) => api_key_state === 'API_KEY_STATE_UNREADABLE')).toEqual([]);
      await sleep(5);
    });
    const load = [parameterWriter(), keyReplacer(), keyClearer(), configCreator(), reader()];
    await until(() => least() > 0, 'every writer has written');
    const messages = await rotate(backend.port);
    await until(() => least() > 3, 'every writer has written four times');
    running = false;
    await Promise.all(load);

    expect(errors).toEqual([]);
    const last = present(messages.at(-1));
    expect(messages[0]).toMatchObject({ finished: false, done: 0, key_id: idOf(next) });
    expect(last).toMatchObject({ finished: true, done: last.total, unreadable: 0, key_id: idOf(next) });
    expect(messages.filter(({ finished }) => finished)).toHaveLength(1);
    expect(Object.fromEntries(await keysUnder(store, next))).toEqual(Object.fromEntries(expected));
    expect(await status(backend)).toMatchObject({ ready: true, outdated_count: 0, unreadable_count: 0 });

    const log = await logOf(backend);
    const revisions = [...new Set(log.map(({ revision }) => revision))];
    expect(revisions).toEqual(revisions.map((_, at) => (revisions[0] as number) + at));
    const rotationRevisions = new Set(log.filter(({ method }) => method === ROTATION).map(({ revision }) => revision));
    expect(rotationRevisions.size).toBeGreaterThan(5);
    await watch.until(({ reached }) => reached >= store.state.revision, 'the end');
    expect(watch.revisions.filter((revision) => rotationRevisions.has(revision))).toEqual([]);
    await backend.check([watch.history()]);

    const before = await stored(backend);
    const again = await rotate(backend.port);
    expect(again).toMatchObject([
      { total: 0, done: 0, finished: false },
      { total: 0, done: 0, finished: true },
    ]);
    expect(await stored(backend)).toEqual(before);
  });

  it('changes no visible field, time or revision of configs, credentials and agents', async () => {
    const [old, next] = twoKeys();
    const backend = await freshOn(engine, old);
    const { configs, credentials, store } = backend;
    const provider = await newProvider(backend, { base_url: 'https://llm.invalid/v1' });
    const { id, agent_id } = await newConfig(backend, { provider: provider.name, model_name: 'm' }, undefined, true);
    const first = await configs.updateConfig({ config: { id, temperature: 0.3 }, api_key: 'sk-own' });
    const name = unique('desk');
    await credentials.createCredential({ credential: { name, provider: 'openai' }, api_key: 'sk-shared' });
    await backend.database
      .knex('agent_llm_configs')
      .where({ id })
      .update({
        updated_at: backend.database.knex.raw(`updated_at + interval '7 microseconds'`),
      });
    await openEncryption(store, `${next},${old}`);
    const visible = async () => ({
      config: (await configs.getConfig({ id })).config,
      credential: (await credentials.getCredential({ name })).credential,
      health: (await configs.listConfigHealth({ config_id: id })).health,
      agent: (await backend.agents.getAgent({ agent: { id: agent_id } })).agent,
      time: (
        await backend.database
          .knex('agent_llm_configs')
          .where({ id })
          .select(backend.database.knex.raw('updated_at::text as at, revision, key_revision'))
      )[0],
    });
    await configs.checkConfigHealth({ id });
    const before = await visible();
    expect(before.health).toMatchObject([{ status: 'CHECK_STATUS_UNREACHABLE', outdated: false }]);
    const watch = backend.watch({ agents: [{ id: agent_id }] });
    await watch.until(({ reached }) => reached > 0);
    const messages = await rotate(backend.port);
    expect(messages.at(-1)).toMatchObject({ done: 2, total: 2, finished: true });
    expect(await visible()).toEqual(before);
    expect(store.state.configs.get(id)?.key_id).toBe(idOf(next));

    const etag = present(before.config).etag;
    const updated = await configs.updateConfig({ config: { id, etag, temperature: 0.9 } });
    await watch.until(({ revisions }) => revisions.includes(Number(updated.revision)));
    expect(watch.revisions).toEqual([Number(updated.revision)]);
    expect(watch.changes.flatMap(({ changes }) => changes?.agents ?? [])).toMatchObject([{ urgent: false }]);

    const { entries } = await configs.listConfigRevisions({ config_id: id });
    expect(
      entries.map(({ method, changes }) => [method.split('/')[1], changes.map(({ after_json }) => after_json)]),
    ).toEqual([
      ['UpdateConfig', ['0.9']],
      ['RotateEncryptionKey', ['"encrypted anew"']],
      ['UpdateConfig', ['"set"', '0.3']],
      ['CreateConfig', expect.anything()],
    ]);
    const back = await configs.rollbackConfig({ id, to_revision: first.revision });
    expect(back.config).toMatchObject({ temperature: 0.3, api_key_state: 'API_KEY_STATE_SET' });
    const past = await configs.getConfigRevision({ id, at_revision: first.revision });
    expect(past.config?.api_key_state).toBe('API_KEY_STATE_SET');
    expect(await keysUnder(store, next)).toEqual(
      new Map([
        [`config ${id}`, 'sk-own'],
        [`credential ${present(store.state.credentialNamed(name)).id}`, 'sk-shared'],
      ]),
    );

    for (const table of ['config_revisions', 'audit_events'])
      expect(JSON.stringify(await backend.database.knex(table).select('*'))).not.toMatch(/sk-own|sk-shared|gAAAA/);
    const { events } = await backend.audit.listAuditEvents({ kinds: ['AUDIT_EVENT_KIND_KEY_ROTATION'] });
    expect(events).toMatchObject([
      { method: ROTATION, outcome: `finished: 2 of 2 under key ${idOf(next)}, 0 unreadable` },
      { method: ROTATION, outcome: `begun: 0 of 2 under key ${idOf(next)}, 0 unreadable` },
    ]);
  });

  it('rejects the call when an encryption key is missing, unless skip_unreadable is set', async () => {
    const [first, second] = twoKeys();
    const third = generateKey();
    const backend = await freshOn(engine, first);
    await storeKeys(backend, 30);
    await openEncryption(backend.store, `${second},${first}`);
    const kept = await storeKeys(backend, 20);
    await openEncryption(backend.store, `${third},${second}`);
    const before = await stored(backend);
    const error = await precondition(rotate(backend.port), 'ENCRYPTION_KEY_MISSING');
    expect(error.metadata).toEqual({ count: '30', keys: idOf(first) });
    expect(await stored(backend)).toEqual(before);
    const messages = await rotate(backend.port, { skip_unreadable: true });
    expect(messages[0]).toMatchObject({ total: 50, done: 0, unreadable: 30 });
    expect(messages.at(-1)).toMatchObject({ total: 50, done: 20, unreadable: 30, finished: true });
    const now = await keysUnder(backend.store, third);
    for (const [holder, key] of kept) expect(now.get(holder)).toBe(key);
    const visible = await status(backend);
    expect(visible).toMatchObject({ ready: true, problem: '', outdated_count: 30, unreadable_count: 30 });
    expect(visible.keys).toEqual([
      { id: idOf(third), primary: true, available: true, config_count: 18, credential_count: 2 },
      { id: idOf(second), primary: false, available: true, config_count: 0, credential_count: 0 },
      { id: idOf(first), primary: false, available: false, config_count: 27, credential_count: 3 },
    ]);
    expect(visible.unreadable).toHaveLength(30);
    expect(visible.unreadable).toContainEqual(expect.stringMatching(/^config \d+$/));
    expect(visible.unreadable).toContainEqual(expect.stringMatching(/^credential desk_/));
    await openEncryption(backend.store, `${third},${first}`);
    expect((await rotate(backend.port)).at(-1)).toMatchObject({ total: 30, done: 30, unreadable: 0 });
    expect(await status(backend)).toMatchObject({ outdated_count: 0, unreadable_count: 0, unreadable: [] });
  });

  it('skips ciphertexts that cannot be decrypted, and counts and lists them', async () => {
    const [old, next] = twoKeys();
    const backend = await freshOn(engine, old);
    const { knex } = backend.database;
    const keys = await storeKeys(backend, 40);
    const [corrupt, foreign, other, empty] = [...keys.keys()]
      .filter((name) => name.startsWith('config '))
      .map((name) => Number(name.slice(7))) as [number, number, number, number];
    const rows = knex('agent_llm_configs');
    const [{ api_key_encrypted: token }] = await rows.clone().where({ id: other }).select('api_key_encrypted');
    await rows
      .clone()
      .where({ id: corrupt })
      .update({ api_key_encrypted: `${token.slice(0, -8)}AAAAAAA=` });
    await rows.clone().where({ id: foreign }).update({ api_key_encrypted: token });
    await rows.clone().where({ id: empty }).update({ api_key_encrypted: null });
    await openEncryption(backend.store, `${next},${old}`);
    const messages = await rotate(backend.port);
    expect(messages.at(-1)).toMatchObject({ total: 40, done: 37, unreadable: 3, finished: true });
    const visible = await status(backend);
    expect(visible).toMatchObject({ outdated_count: 3 });
    expect(visible.unreadable).toEqual(expect.arrayContaining([`config ${corrupt}`, `config ${foreign}`]));
    const now = await keysUnder(backend.store, next);
    for (const [holder, key] of keys)
      expect(now.get(holder)).toBe([corrupt, foreign, empty].some((id) => holder === `config ${id}`) ? undefined : key);
    // A key that is stored again is encrypted with the new key, and nothing is left to rotate.
    for (const id of [corrupt, foreign, empty]) await backend.configs.updateConfig({ config: { id }, api_key: 'sk-x' });
    expect((await rotate(backend.port)).at(-1)).toMatchObject({ total: 0, finished: true });
  });

  it('rotates each key once when three calls on two replicas run at once', async () => {
    const [old, next] = twoKeys();
    const a = await freshOn(engine, old);
    const keys = await storeKeys(a, 500);
    const both = `${next},${old}`;
    await openEncryption(a.store, both);
    const b = await start({ database: a.database, encryptionKey: both });
    const runs = await Promise.all([rotate(a.port), rotate(b.port), rotate(a.port)]);
    for (const messages of runs) expect(messages.at(-1)).toMatchObject({ unreadable: 0, finished: true });
    for (const messages of runs) expect(present(messages.at(-1)).done).toBe(present(messages.at(-1)).total);
    expect(await keysUnder(a.store, next)).toEqual(keys);
    await b.feed.poll();
    expect(await status(b)).toMatchObject({ outdated_count: 0, unreadable_count: 0 });
    const log = (await logOf(a)).filter(({ method }) => method === ROTATION);
    expect(log).toHaveLength(500);
  });

  it('makes the keys readable on a replica that has only the new encryption key', async () => {
    const [old, next] = twoKeys();
    const a = await freshOn(engine, old);
    const { id } = await newConfig(a);
    await a.configs.updateConfig({ config: { id }, api_key: 'sk-own' });
    await openEncryption(a.store, `${next},${old}`);
    await storeKeys(a, 1);
    const newReplica = await start({ database: a.database, encryptionKey: next });
    const keyStateOnNewReplica = async () => (await newReplica.configs.getConfig({ id })).config?.api_key_state;
    expect(await keyStateOnNewReplica()).toBe('API_KEY_STATE_UNREADABLE');
    expect(await status(newReplica)).toMatchObject({ ready: true, outdated_count: 1, unreadable: [`config ${id}`] });
    const { revision } = present((await rotate(a.port)).at(-1));
    expect((await newReplica.configs.getConfig({ id, min_revision: revision })).config?.api_key_state).toBe(
      'API_KEY_STATE_SET',
    );
    expect(await status(newReplica)).toMatchObject({ outdated_count: 0, unreadable_count: 0 });
  });

  it('stops after the batch in which the call is cancelled, and continues with the next call', async () => {
    withLimits({ rotationBatch: 10 });
    const [old, next] = twoKeys();
    const backend = await freshOn(engine, old);
    const keys = await storeKeys(backend, 300);
    await openEncryption(backend.store, `${next},${old}`);
    const { writeQueue } = backend.store;
    const add = writeQueue.add.bind(writeQueue);
    let isCancelled = false;
    // The service receives the cancellation during one of the next batches.
    vi.spyOn(writeQueue, 'add').mockImplementation(async (batch) => {
      if (isCancelled) await sleep(300);
      return add(batch);
    });
    const cancelled = await failure(
      rotate(backend.port, {
        onMessage({ done }, call) {
          if (done < 20) return;
          isCancelled = true;
          call.cancel();
        },
      }),
    );
    expect(cancelled.code).toBe(1);
    await until(async () => {
      const { events } = await backend.audit.listAuditEvents({ kinds: ['AUDIT_EVENT_KIND_KEY_ROTATION'] });
      return /^ended early: \d+ of 300 /.test(events[0]?.outcome ?? '');
    }, 'the audit event of the end');
    isCancelled = false;
    const { revision } = backend.store.state;
    await sleep(300);
    expect(backend.store.state.revision).toBe(revision);
    const left = (await status(backend)).outdated_count;
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThan(290);
    expect((await rotate(backend.port)).at(-1)).toMatchObject({ total: left, done: left, finished: true });
    expect(await keysUnder(backend.store, next)).toEqual(keys);
  });

  it('ends at a shutdown before it is complete', async () => {
    withLimits({ rotationBatch: 1 });
    const [old, next] = twoKeys();
    const backend = await startWatchBackend({
      encryptionKey: old,
      ...(engine === 'postgres' && { url: await postgres.createDatabase('seeded') }),
    });
    await storeKeys(backend, 300);
    await openEncryption(backend.store, `${next},${old}`);
    let stopped: Promise<void> | undefined;
    const ended = await failure(
      rotate(backend.port, {
        onMessage() {
          stopped ??= backend.rpc.drain(20_000);
        },
      }),
    );
    expect(ended).toMatchObject({ code: 14, reason: 'SERVER_SHUTTING_DOWN' });
    await stopped;
    await backend.stop();
  });

  it('binds each ciphertext to its row, and keeps it readable for other Fernet implementations', async () => {
    const [old, next] = twoKeys();
    const backend = await freshOn(engine, old);
    const keys = await storeKeys(backend, 10);
    await openEncryption(backend.store, `${next},${old}`);
    await rotate(backend.port);
    const [one, two] = (await stored(backend)).configs.filter(({ api_key_encrypted }) => api_key_encrypted);
    const key = present(FernetKey.parse(next));
    expect(key.decrypt(one.api_key_encrypted)?.subarray(17).toString()).toBe(keys.get(`config ${one.id}`));
    if (hasPython()) expect(decryptedByPython(next, one.api_key_encrypted)).toBe(keys.get(`config ${one.id}`));
    const rows = backend.database.knex('agent_llm_configs');
    await rows.clone().where({ id: one.id }).update({ api_key_encrypted: two.api_key_encrypted });
    const row = present(backend.store.state.configs.get(one.id));
    expect(await openKey(backend.store, 'config', row)).toBeUndefined();
  });
});

function hasPython(): boolean {
  try {
    execFileSync('python3', ['-c', 'import cryptography'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

const decryptedByPython = (key: string, token: string): string => {
  const code =
    'import sys\nfrom cryptography.fernet import Fernet\nprint(Fernet(sys.argv[1]).decrypt(sys.argv[2].encode())[17:].decode())';
  return execFileSync('python3', ['-c', code, key, token]).toString().trim();
};

describe('RotateEncryptionKey', () => {
  it('rotates back to the old key, and reports keys of an imported database', async () => {
    const [old, next] = twoKeys();
    const backend = await freshOn('embedded', old);
    const keys = await storeKeys(backend, 12);
    await openEncryption(backend.store, `${next},${old}`);
    await rotate(backend.port);
    await openEncryption(backend.store, `${old},${next}`);
    await rotate(backend.port);
    expect(await keysUnder(backend.store, old)).toEqual(keys);
    const { id } = await newConfig(backend);
    await backend.configs.updateConfig({ config: { id }, api_key: 'sk-own' });
    const row = present(backend.store.state.configs.get(id));
    backend.store.state.load('config', { ...row, key_id: UNBOUND });
    const visible = await status(backend);
    expect(visible.keys.at(-1)).toEqual({
      id: UNBOUND,
      primary: false,
      available: false,
      config_count: 1,
      credential_count: 0,
    });
    expect(visible).toMatchObject({ outdated_count: 1, unreadable: [`config ${id}`] });
    const error = await precondition(rotate(backend.port), 'ENCRYPTION_KEY_MISSING');
    expect(error.metadata).toEqual({ count: '1', keys: UNBOUND });
  });

  it('continues with skip_unreadable when the only key is lost, after which keys can be stored', async () => {
    const [lost, fresh] = [generateKey(), generateKey()];
    const backend = await freshOn('embedded', lost);
    const kept = await storeKeys(backend, 5);
    await openEncryption(backend.store, fresh);
    const name = unique('desk');
    const store = () =>
      backend.credentials.createCredential({ credential: { name, provider: 'openai' }, api_key: 'sk-new' });
    expect((await failure(store())).reason).toBe('ENCRYPTION_KEY_WRONG');
    expect((await rotate(backend.port, { skip_unreadable: true })).at(-1)).toMatchObject({
      unreadable: 5,
      finished: true,
    });
    await store();
    expect(await status(backend)).toMatchObject({ ready: true, unreadable_count: 5 });
    expect((await openEncryption(backend.store, fresh)).problem).toBeUndefined();
    // The lost encryption key is configured again: its ciphertexts can be read.
    await openEncryption(backend.store, `${fresh},${lost}`);
    expect((await rotate(backend.port)).at(-1)).toMatchObject({ done: 5, unreadable: 0 });
    const now = await keysUnder(backend.store, fresh);
    for (const [holder, key] of kept) expect(now.get(holder)).toBe(key);
  });

  it.each([
    ['missing', '', 'ENCRYPTION_NOT_CONFIGURED', 'is not set'],
    ['empty', '  ', 'ENCRYPTION_NOT_CONFIGURED', 'is not set'],
    ['malformed', 'hunter2', 'ENCRYPTION_NOT_CONFIGURED', 'is malformed'],
    ['malformed after a valid one', `${generateKey()},hunter2`, 'ENCRYPTION_NOT_CONFIGURED', 'is malformed'],
    ['wrong', generateKey(), 'ENCRYPTION_KEY_WRONG', 'is not the encryption key'],
  ])(
    'rejects an ENCRYPTION_KEY that is %s, changes nothing and explains it in the status',
    async (_, key, reason, problem) => {
      const right = generateKey();
      const backend = await freshOn('embedded', right);
      const keys = await storeKeys(backend, 5);
      await openEncryption(backend.store, key);
      const before = await stored(backend);
      // skip_unreadable applies to a wrong key, because the right one can be lost; it does not apply to a missing key.
      for (const skip_unreadable of reason === 'ENCRYPTION_KEY_WRONG' ? [false] : [false, true])
        await precondition(rotate(backend.port, { skip_unreadable }), reason);
      expect(await stored(backend)).toEqual(before);
      const visible = await status(backend);
      expect(visible).toMatchObject({ ready: false, outdated_count: 5, unreadable_count: 5 });
      expect(visible.problem).toContain(problem);
      expect(visible.problem).not.toContain('hunter2');
      expect(visible.keys.at(-1)).toMatchObject({
        id: idOf(right),
        available: false,
        config_count: 4,
        credential_count: 1,
      });
      await openEncryption(backend.store, right);
      expect(await keysUnder(backend.store, right)).toEqual(keys);
    },
  );

  it.each(['before', 'after'] as const)(
    'fails without a partial write when the database connection is lost %s a commit',
    async (when) => {
      withLimits({ rotationBatch: 20 });
      const [old, next] = twoKeys();
      const url = await postgres.createDatabase('seeded');
      const proxy = await startProxy(Number(new URL(url).port));
      const backend = await start({ url: proxy.through(url), encryptionKey: old, notify: false });
      const keys = await storeKeys(backend, 200);
      await openEncryption(backend.store, `${next},${old}`);
      // Commits of write transactions only: a read commits in lower case.
      let commits = 0;
      let cutLink: Link | undefined;
      const error = await failure(
        rotate(backend.port, {
          onMessage() {
            proxy.onRequest ??= (chunk, link) => {
              if (cutLink || !/\bCOMMIT\b/.test(chunk.toString('latin1')) || ++commits < 3) return;
              cutLink = link;
              if (when === 'before') return link.cut();
              link.freeze('down');
              // PostgreSQL has committed when its response arrives at the proxy, after those of the statements.
              proxy.onReply = (reply, replied) => void (replied === link && reply.includes('COMMIT') && link.reset());
            };
          },
        }),
      );
      proxy.onRequest = undefined;
      expect(error).toMatchObject({ code: 14, reason: 'OUTCOME_UNKNOWN' });
      const update = () => backend.configs.updateConfig({ config: { id: 8, temperature: 0.1 } });
      await until(async () => (await ending(update())) === 'OK', 'a write succeeds');
      // Each row is encrypted with the key that its key_id names, old or new.
      expect(await keysUnder(backend.store, `${next},${old}`)).toEqual(keys);
      const done = when === 'before' ? 40 : 60;
      expect((await status(backend)).outdated_count).toBe(200 - done);
      expect([...(await keysUnder(backend.store, next)).values()].filter(Boolean)).toHaveLength(done);
      expect((await rotate(backend.port)).at(-1)).toMatchObject({
        total: 200 - done,
        done: 200 - done,
        finished: true,
      });
      expect(await keysUnder(backend.store, next)).toEqual(keys);
    },
  );
});
