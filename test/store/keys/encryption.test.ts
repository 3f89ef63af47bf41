import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { generateKey } from '../../../src/domain/fernet.js';
import { acceptLostKeys, checkCiphertexts, openEncryption } from '../../../src/store/keys/encryption.js';
import { startWatchBackend } from '../../feed/backend.js';
import { startCommand, useDirectories } from '../../support/command.js';
import { startPostgres } from '../../support/postgres.js';
import { rotate } from '../../support/rotation.js';
import { runCommand } from '../../support/run_command.js';
import { type Clients, connect, failure, startService } from '../../support/service.js';
import { connectPg } from '../../support/sql.js';

let postgres: Awaited<ReturnType<typeof startPostgres>>;
beforeAll(async () => {
  postgres = await startPostgres();
});
afterAll(() => postgres.stop());

/** Creates a store on PostgreSQL that can be started with different values of ENCRYPTION_KEY. */
async function newStore() {
  const DATABASE_URL = await postgres.createDatabase('seeded');
  const withKey = async <T>(ENCRYPTION_KEY: string, run: (clients: Clients) => Promise<T>): Promise<T> => {
    const service = await startService({ DATABASE_URL, ENCRYPTION_KEY });
    try {
      return await run(service);
    } finally {
      await service.stop();
    }
  };
  return { url: DATABASE_URL, withKey };
}

const primary = async ({ configs }: Clients, name = 'trader') => {
  const { config } = await configs.getPrimaryConfig({ agent: { name } });
  if (!config) throw new Error('no config');
  return config;
};
const setKey = async (clients: Clients, api_key: string, name = 'trader') =>
  clients.configs.updateConfig({ config: { id: (await primary(clients, name)).id }, api_key });

describe('ENCRYPTION_KEY', () => {
  it('makes API keys unreadable and rejects new ones when it is wrong, while other requests succeed', async () => {
    const { withKey } = await newStore();
    const [right, wrong] = [generateKey(), generateKey()];
    await withKey(right, (clients) => setKey(clients, 'sk-stored'));
    await withKey(wrong, async (clients) => {
      expect((await primary(clients)).api_key_state).toBe('API_KEY_STATE_UNREADABLE');
      const { configs } = await clients.configs.listConfigs({});
      expect(configs.filter((c) => c.api_key_state === 'API_KEY_STATE_UNREADABLE')).toHaveLength(1);
      const error = await failure(setKey(clients, 'sk-other'));
      expect(error).toMatchObject({ code: 9, reason: 'ENCRYPTION_KEY_WRONG' });
    });
    await withKey('', async (clients) => {
      expect((await primary(clients)).api_key_state).toBe('API_KEY_STATE_UNREADABLE');
      expect((await failure(setKey(clients, 'sk-other'))).reason).toBe('ENCRYPTION_NOT_CONFIGURED');
    });
    await withKey(right, async (clients) => {
      expect((await primary(clients)).api_key_state).toBe('API_KEY_STATE_SET');
    });
  });

  it('accepts a new first key, and API keys become unreadable when the old key is removed too early', async () => {
    const { withKey } = await newStore();
    const [old, next] = [generateKey(), generateKey()];
    await withKey(old, (clients) => setKey(clients, 'sk-old'));
    await withKey(`${next},${old}`, async (clients) => {
      expect((await primary(clients)).api_key_state).toBe('API_KEY_STATE_SET');
      await setKey(clients, 'sk-next', 'market_analyst');
    });
    await withKey(next, async (clients) => {
      expect((await primary(clients)).api_key_state).toBe('API_KEY_STATE_UNREADABLE');
      expect((await primary(clients, 'market_analyst')).api_key_state).toBe('API_KEY_STATE_SET');
      const { config } = await setKey(clients, 'sk-again');
      expect(config?.api_key_state).toBe('API_KEY_STATE_SET');
    });
  });

  it('can be replaced when no API key is stored under the old one', async () => {
    const { withKey } = await newStore();
    await withKey(generateKey(), async () => {});
    await withKey(generateKey(), async (clients) => {
      expect((await setKey(clients, 'sk-x')).config?.api_key_state).toBe('API_KEY_STATE_SET');
    });
  });
});

describe('openEncryption', () => {
  /** Two replicas with an ENCRYPTION_KEY that is not the encryption key of the stored API key. */
  async function withLostKey() {
    const url = await postgres.createDatabase('seeded');
    const a = await startWatchBackend({ url });
    const b = await startWatchBackend({ url, pollIntervalMs: 50 });
    onTestFinished(async () => {
      await a.stop();
      await b.stop();
    });
    const { revision } = await setKey(a, 'sk-stored');
    await b.configs.getConfig({ id: (await primary(b)).id, min_revision: revision });
    const fresh = generateKey();
    for (const { store } of [a, b])
      expect((await openEncryption(store, fresh)).problem).toMatchObject({ reason: 'ENCRYPTION_KEY_WRONG' });
    return { a, b, fresh };
  }

  it('finds that the problem is solved when another replica has accepted the encryption key', async () => {
    const { a, b, fresh } = await withLostKey();
    await rotate(a.port, { skip_unreadable: true });
    expect((await openEncryption(b.store, fresh)).problem).toBeUndefined();
    await setKey(b, 'sk-again');
  });

  it('does not bring a problem back that was solved during the check', async () => {
    const { a, fresh } = await withLostKey();
    const { store } = a;
    const checking = openEncryption(store, fresh);
    await acceptLostKeys(store);
    await checking;
    expect(store.state.encryption.problem).toBeUndefined();
  });

  it('marks as unreadable what the current encryption keys do not decrypt', async () => {
    const { a, fresh } = await withLostKey();
    const { id } = await primary(a);
    expect((await openEncryption(a.store, fresh)).unreadable).toEqual([`config ${id}`]);
  });
});

describe('checkCiphertexts', () => {
  it('keeps the encryption keys that the encryption state has got during the check', async () => {
    const backend = await startWatchBackend();
    onTestFinished(() => backend.stop());
    const { state } = backend.store;
    const solved = state.encryption.withKeys(state.encryption.keyring, undefined);
    state.encryption = solved.withKeys(solved.keyring, { reason: 'ENCRYPTION_KEY_WRONG', ours: 'a', theirs: 'b' });
    const checking = checkCiphertexts(backend.store);
    state.encryption = solved;
    await checking;
    expect(state.encryption.problem).toBeUndefined();
  });
});

describe('a ciphertext in the database', () => {
  it('is unreadable in another row until a new API key is set', async () => {
    const { url, withKey } = await newStore();
    const key = generateKey();
    const ids = await withKey(key, async (clients) => {
      await setKey(clients, 'sk-trader');
      await setKey(clients, 'sk-market', 'market_analyst');
      return [(await primary(clients)).id, (await primary(clients, 'market_analyst')).id];
    });
    const sql = await connectPg(url);
    const { rows } = await sql.query(
      'select id, api_key_encrypted as token from agent_llm_configs where id = any($1)',
      [ids],
    );
    for (const { id, token } of rows) {
      expect(token).toMatch(/^gAAAA/);
      const other = ids.find((candidate) => candidate !== id);
      await sql.query('update agent_llm_configs set api_key_encrypted = $1 where id = $2', [token, other]);
    }
    await sql.end();
    await withKey(key, async (clients) => {
      expect((await primary(clients)).api_key_state).toBe('API_KEY_STATE_UNREADABLE');
      expect((await primary(clients, 'market_analyst')).api_key_state).toBe('API_KEY_STATE_UNREADABLE');
      expect((await setKey(clients, 'sk-trader')).config?.api_key_state).toBe('API_KEY_STATE_SET');
      expect((await primary(clients)).api_key_state).toBe('API_KEY_STATE_SET');
    });
  });

  it('is unreadable without a binding, even when it decrypts', async () => {
    const { url, withKey } = await newStore();
    const key = generateKey();
    await withKey(key, async () => {});
    const { FernetKey } = await import('../../../src/domain/fernet.js');
    const token = FernetKey.parse(key)?.encrypt(Buffer.from('sk-planted'), new Date());
    const sql = await connectPg(url);
    await sql.query(`update agent_llm_configs set api_key_encrypted = $1, key_id = 'unbound' where agent_id = 8`, [
      token,
    ]);
    await sql.end();
    await withKey(key, async (clients) => {
      expect((await primary(clients)).api_key_state).toBe('API_KEY_STATE_UNREADABLE');
    });
  });
});

describe('a stored API key', () => {
  const CANARY = 'sk-CANARY-5e1f0b7c9d';
  const directory = useDirectories();

  /** The encodings of the key to search for. */
  const encodings = [CANARY, Buffer.from(CANARY).toString('base64').slice(0, 24), Buffer.from(CANARY).toString('hex')];
  const isIn = (bytes: Buffer | string) => encodings.some((text) => bytes.includes(text));

  it('occurs in no response, log, error, metric, history row or database page', async () => {
    const DATA_DIR = await directory.started();
    const env = { DATA_DIR, ENCRYPTION_KEY: generateKey(), LOG_LEVEL: 'trace', HTTP_ADDRESS: '127.0.0.1:0' };
    const running = await startCommand(env);
    const [, httpPort] = await running.untilOutput(/HTTP {6}127\.0\.0\.1:(\d+)/);
    const clients = connect(running.port);
    const responses: string[] = [];
    const record = async (call: Promise<unknown>) =>
      responses.push(
        await call.then(
          (response) => JSON.stringify(response, (_, v) => (typeof v === 'bigint' ? String(v) : v)),
          (error) => JSON.stringify(error) + String(error),
        ),
      );
    const { configs, credentials } = clients;
    const agent = { name: 'trader' };
    const config = { provider: 'openai', model_name: 'gpt-4' };
    const request_id = '6f9619ff-8b86-4d01-b42d-00cf4fc964ff';
    await record(configs.createConfig({ agent, config, api_key: CANARY, request_id, reason: 'a key' }));
    await record(configs.createConfig({ agent, config, api_key: CANARY, request_id, reason: 'a key' }));
    await record(configs.createConfig({ agent, config, api_key: `${CANARY}x`, request_id }));
    await record(configs.createConfig({ agent, config: { ...config, temperature: 9 }, api_key: CANARY }));
    await record(configs.createConfig({ agent, config, api_key: CANARY, validate_only: true }));
    await record(configs.createConfig({ agent, config, api_key: `${CANARY} ${'x'.repeat(300)}` }));
    await record(configs.updateConfig({ config: { id: 999 }, api_key: CANARY }));
    await record(configs.upsertPrimaryConfig({ agent, config, api_key: CANARY }));
    await record(
      configs.bulkAssignConfig({ agents: [agent, { name: 'none' }], config, api_key: CANARY, allow_partial: true }),
    );
    await record(credentials.createCredential({ credential: { name: 'desk', provider: 'openai' }, api_key: CANARY }));
    await record(credentials.updateCredential({ credential: { name: 'desk' }, api_key: CANARY }));
    await record(configs.listConfigs({}));
    await record(credentials.listCredentials({}));
    for (const path of ['/metrics', '/v1/configs', '/v1/credentials', '/openapi.json'])
      responses.push(await (await fetch(`http://127.0.0.1:${httpPort}${path}`)).text());
    expect(responses.filter(isIn)).toEqual([]);
    // Pages are written when the engine closes.
    await sleep(100);
    clients.close();
    running.child.kill('SIGINT');
    await running.ended;
    expect(running.output()).toContain('agentllm has stopped');
    expect(isIn(running.output())).toBe(false);

    const backup = join(await directory(), 'backup.tar');
    expect((await runCommand(['backup', backup], { DATA_DIR })).code).toBe(0);
    const files = (await readdir(DATA_DIR, { recursive: true, withFileTypes: true })).filter((file) => file.isFile());
    expect(files.length).toBeGreaterThan(100);
    const leaks: string[] = [];
    for (const path of files.map((file) => join(file.parentPath, file.name)))
      if (isIn(await readFile(path))) leaks.push(path);
    // A backup is compressed after its first line, so it must be decompressed before the search.
    const packed = await readFile(backup);
    const tarball = gunzipSync(packed.subarray(packed.indexOf('\n') + 1));
    expect(tarball.includes('agent_llm_configs')).toBe(true);
    if (isIn(tarball)) leaks.push(backup);
    expect(leaks).toEqual([]);
  });
});
