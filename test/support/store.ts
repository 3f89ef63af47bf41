import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inject } from 'vitest';
import { createApi } from '../../src/api/api.js';
import { readContract } from '../../src/api/dispatch/contract.js';
import { addressList } from '../../src/domain/addresses.js';
import type { State } from '../../src/domain/state.js';
import { Feed } from '../../src/feed/feed.js';
import { startGrpcServer } from '../../src/grpc/server.js';
import { createLog } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { type Database, type DatabaseOptions, openDatabase } from '../../src/store/database.js';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { seed } from '../../src/store/maintenance/seed.js';
import { Store } from '../../src/store/store.js';
import { advance } from '../../src/store/write/change_log.js';
import { readHead } from '../../src/store/write/head.js';
import { copyDirectory } from './copy_directory.js';
import { type Clients, connect } from './service.js';

/** A store as main.ts opens it, with access to its parts. */
export interface TestStore {
  readonly database: Database;
  readonly store: Store;
  readonly feed: Feed;
  close(): Promise<void>;
}

export interface StoreOptions {
  /** The URL of a PostgreSQL database; undefined: an embedded database in a new directory. */
  readonly url?: string | undefined;
  /** The initial content of an embedded database: the tables of this version, or also the seeded rows. */
  readonly content?: 'migrated' | 'seeded';
  readonly pollIntervalMs?: number;
  readonly poolSize?: number;
}

export async function openStore(options: StoreOptions = {}): Promise<TestStore> {
  const { url, content = 'migrated', pollIntervalMs = 50, poolSize = 10 } = options;
  const databaseOptions = { url, poolSize, acquireTimeoutMs: 5_000 };
  const database =
    url === undefined
      ? await openCopy(content, databaseOptions)
      : await openDatabase({ ...databaseOptions, dataDir: '' });
  await migrator(database).up();
  const store = new Store(database);
  const feed = await Feed.start(store, pollIntervalMs);
  return {
    database,
    store,
    feed,
    async close() {
      await feed.close();
      await database.close();
    },
  };
}

/** The timeout of the first connection, for which the engine has to start, on a loaded machine. */
const FIRST_CONNECTION_MS = 30_000;

/** Opens a copy of a prepared embedded database: initdb, the migrations and the seeds would take seconds. */
export async function openCopy(
  content: 'migrated' | 'seeded',
  options: Partial<DatabaseOptions> = {},
): Promise<Database> {
  const { migrated, firstStart } = inject('prepared');
  const dataDir = await mkdtemp(join(tmpdir(), 'agentllm-test-'));
  await copyDirectory(content === 'seeded' ? firstStart : migrated, dataDir);
  const database = await openDatabase({
    poolSize: 10,
    ...options,
    acquireTimeoutMs: FIRST_CONNECTION_MS,
    url: undefined,
    dataDir,
  });
  return {
    ...database,
    async close() {
      await database.close();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}

/** A seeded store with a gRPC server and typed clients. */
export interface TestBackend extends TestStore, Omit<Clients, 'close'> {
  readonly port: number;
}

export async function startBackend(options: StoreOptions = {}): Promise<TestBackend> {
  const opened = await openStore({ content: 'seeded', ...options });
  await seed(opened.store, 'missing');
  const metrics = createMetrics({
    revision: () => opened.store.state.revision,
    databaseWritable: () => opened.feed.isWritable,
    watches: () => ({}),
    rows: () => ({ agent: opened.store.state.agents.size, config: opened.store.state.configs.size }),
  });
  const api = createApi(
    {
      store: opened.store,
      feed: opened.feed,
      watchRetentionMs: Number.POSITIVE_INFINITY,
      usageRetentionMs: Number.POSITIVE_INFINITY,
      allowedAddresses: addressList([]),
      providerKeys: new Map(),
    },
    { contract: readContract(), log: createLog('silent'), metrics, anonymous: 'loopback' },
  );
  const rpc = await startGrpcServer({ host: '127.0.0.1', port: 0, text: '127.0.0.1:0' }, api, { reflection: 'on' });
  const clients = connect(rpc.port);
  return {
    ...opened,
    ...clients,
    port: rpc.port,
    async close() {
      clients.close();
      await rpc.drain(1_000);
      await opened.close();
    },
  };
}

/** The state that results from the change log alone, from the first revision on. */
export async function replay(database: Database): Promise<State> {
  const empty = new Store(database);
  await advance(empty, database.knex, await readHead(database.knex));
  return empty.state;
}

/** The content of a state with its indexes, in a form that can be compared. */
export function contents(state: State) {
  const models = [...state.modelsInOrder.after()];
  return {
    revision: state.revision,
    nonce: state.nonce,
    agents: [...state.agentsInOrder.after()],
    agentsById: [...state.agents].sort(([a], [b]) => a - b),
    agentNames: [...state.agentNames].sort(),
    configs: [...state.configsInOrder.after()],
    configsById: [...state.configs].sort(([a], [b]) => a - b),
    chains: [...state.agents.keys()].sort((a, b) => a - b).map((id) => [id, state.configsOf(id)]),
    providers: [...state.providersInOrder.after()],
    providerNames: [...state.providerNames].sort(),
    models,
    prices: models.map(({ id }) => [id, state.pricesOf(id)]),
  };
}

/** The errors in the numbering of the change log; empty when it is gapless and each revision is complete. */
export async function gapsInLog({ knex }: Database): Promise<string[]> {
  const rows: { revision: number; position: number; nonce: string }[] = await knex('config_revisions')
    .select('revision', 'position', 'nonce')
    .orderBy(['revision', 'position']);
  const head = await readHead(knex);
  const errors: string[] = [];
  let last = { revision: 0, position: -1, nonce: '' };
  for (const row of rows) {
    const sameRevision = row.revision === last.revision;
    if (!sameRevision && row.revision !== last.revision + 1) errors.push(`${row.revision} follows ${last.revision}`);
    if (row.position !== (sameRevision ? last.position + 1 : 0))
      errors.push(`position ${row.position} of ${row.revision}`);
    if (sameRevision !== (row.nonce === last.nonce)) errors.push(`nonce of ${row.revision}`);
    last = row;
  }
  if (last.revision !== head.revision || last.nonce !== head.nonce)
    errors.push(`the log ends at ${last.revision}, the head is ${head.revision}`);
  return errors;
}
