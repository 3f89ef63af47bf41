import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { FernetKey, generateKey } from '../../src/domain/fernet.js';
import { openDatabase } from '../../src/store/database.js';
import { Store } from '../../src/store/store.js';
import { catchUp } from '../../src/store/write/change_log.js';
import { useDirectories } from '../support/command.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { keysUnder, rotate } from '../support/rotation.js';
import { CallError, type Clients, unique } from '../support/service.js';
import { ServerProcess } from './server.js';

const ROUNDS = Math.min(12, Number(process.env['FAULT_ROUNDS'] ?? 4));
const KEYS = 1000;
vi.setConfig({ testTimeout: 90_000 + ROUNDS * 30_000 });

let postgres: TestPostgres;
const directory = useDirectories();
beforeAll(async () => {
  postgres = await startPostgres({ own: true });
});
afterAll(() => postgres.stop());

type Where = { readonly DATABASE_URL: string } | { readonly DATA_DIR: string };
type Keys = Map<string, string>;

const newStore = async (engine: string): Promise<Where> =>
  engine === 'embedded'
    ? { DATA_DIR: await directory.started() }
    : { DATABASE_URL: await postgres.createDatabase('seeded') };

/** The stored keys that the given encryption keys decrypt, read without a service. */
async function readKeys(where: Where, encryptionKey: string) {
  const database = await openDatabase({
    url: 'DATABASE_URL' in where ? where.DATABASE_URL : undefined,
    dataDir: 'DATA_DIR' in where ? where.DATA_DIR : 'memory:',
    poolSize: 2,
    acquireTimeoutMs: 5_000,
    notify: false,
  });
  const store = new Store(database);
  try {
    await catchUp(store);
    return await keysUnder(store, encryptionKey);
  } finally {
    await database.close();
  }
}

async function storeKeys({ agents, configs }: Clients): Promise<Keys> {
  const keys: Keys = new Map();
  const { agent } = await agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
  const config = { provider: 'openai', model_name: 'gpt-4' };
  const store = async () => {
    const api_key = `sk-${randomUUID()}`;
    const created = await configs.createConfig({ agent: { id: agent?.id as number }, config, api_key });
    keys.set(`config ${created.config?.id}`, api_key);
  };
  for (let at = 0; at < KEYS; at += 200) await Promise.all(Array.from({ length: 200 }, store));
  return keys;
}

/** Replaces keys one after the other until the service is killed; returns the last write, whose outcome is unknown. */
async function replaceKeys(
  { configs }: Clients,
  keys: Keys,
): Promise<readonly [holder: string, key: string] | undefined> {
  for (const holder of [...keys.keys()].sort(() => Math.random() - 0.5)) {
    const api_key = `sk-new-${randomUUID()}`;
    try {
      await configs.updateConfig({ config: { id: Number(holder.slice(7)) }, api_key });
      keys.set(holder, api_key);
    } catch (error) {
      if (!(error instanceof CallError)) throw error;
      return [holder, api_key];
    }
  }
  return undefined;
}

describe.each(['embedded', 'postgres'])('a rotation on %s', (engine) => {
  it(`loses no key when it is killed ${ROUNDS} times at random moments under load and called again`, async () => {
    const where = await newStore(engine);
    const encryptionKeys = [generateKey(), generateKey(), generateKey()];
    const start = (first: number) => {
      const order = encryptionKeys.map((_, at) => encryptionKeys[(first + at) % encryptionKeys.length]);
      return ServerProcess.start('the server', { ...where, ENCRYPTION_KEY: order.join() });
    };
    const first = await start(0);
    const keys = await storeKeys(first.clients);
    expect(await first.stop()).toBe(0);
    const killedAt: string[] = [];
    for (let round = 1; round <= ROUNDS; round++) {
      const server = await start(round);
      let reached = 0;
      let total = 0;
      const rotation = rotate(server.port, {
        onMessage(message) {
          reached = message.done;
          total = message.total;
        },
      }).catch((error) => error);
      const load = replaceKeys(server.clients, keys);
      const fraction = Math.random();
      const hasReached = () => expect(total > 0 && reached >= fraction * (total - 200)).toBe(true);
      await vi.waitFor(hasReached, { timeout: 30_000, interval: 1 });
      await sleep(Math.random() * 60);
      await server.kill();
      await rotation;
      const unknown = await load;
      server.clients.close();
      killedAt.push(`${reached}/${total}`);
      const now = await readKeys(where, encryptionKeys.join());
      if (unknown && now.get(unknown[0]) === unknown[1]) keys.set(...unknown);
      expect(now).toEqual(keys);
    }
    const last = await start(ROUNDS + 1);
    expect((await rotate(last.port)).at(-1)).toMatchObject({ unreadable: 0, finished: true });
    expect(await last.clients.credentials.getEncryptionStatus({})).toMatchObject({
      outdated_count: 0,
      unreadable_count: 0,
    });
    expect(await last.stop()).toBe(0);
    console.log({ engine, killedAt });
    const lastKey = encryptionKeys[(ROUNDS + 1) % encryptionKeys.length] as string;
    expect(await readKeys(where, lastKey)).toEqual(keys);

    // The last step of a rotation: the old encryption keys are removed.
    const restarted = await ServerProcess.start('the server', { ...where, ENCRYPTION_KEY: lastKey });
    const status = await restarted.clients.credentials.getEncryptionStatus({});
    expect(status).toMatchObject({ ready: true, outdated_count: 0, unreadable_count: 0 });
    expect(status.keys.map(({ id }) => id)).toEqual([FernetKey.parse(lastKey)?.id]);
    expect(await restarted.stop()).toBe(0);
  });
});
