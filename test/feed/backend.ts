import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, onTestFinished } from 'vitest';
import { type Api, createApi } from '../../src/api/api.js';
import { readContract } from '../../src/api/dispatch/contract.js';
import { addressList } from '../../src/domain/addresses.js';
import { generateKey } from '../../src/domain/fernet.js';
import { Feed } from '../../src/feed/feed.js';
import { type GrpcServer, startGrpcServer } from '../../src/grpc/server.js';
import { createLog } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { type Database, openDatabase } from '../../src/store/database.js';
import { openEncryption } from '../../src/store/keys/encryption.js';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { seed } from '../../src/store/maintenance/seed.js';
import { Store } from '../../src/store/store.js';
import { copyFirstStart } from '../support/command.js';
import { startPostgres } from '../support/postgres.js';
import { type Clients, connect } from '../support/service.js';
import { type GroundTruth, readGroundTruth } from './ground_truth.js';
import type { AcknowledgedWrite, ClientHistory } from './history.js';
import { RecordedWatch, type WatchRequest } from './support.js';
import { validate } from './validators.js';

export const engines = ['embedded', 'postgres'] as const;
export type Engine = (typeof engines)[number];

/** A replica whose components a test can access. */
export interface WatchBackend extends Clients {
  readonly database: Database;
  readonly store: Store;
  readonly feed: Feed;
  readonly api: Api;
  readonly rpc: GrpcServer;
  readonly port: number;
  /** Opens a stream that is closed at the end of the test. */
  watch(request: WatchRequest, options?: { readonly deadlineMs?: number }): RecordedWatch;
  groundTruth(): Promise<GroundTruth>;
  /** Throws when a guarantee of the contract was violated. */
  check(clients: readonly ClientHistory[], writes?: readonly AcknowledgedWrite[]): Promise<void>;
  stop(): Promise<void>;
}

export interface BackendOptions {
  /** The URL of a PostgreSQL database; undefined: an embedded store with the files of a first start. */
  readonly url?: string;
  /** The open database of another replica; the replicas share no memory, even on the embedded engine. */
  readonly database?: Database;
  readonly watchRetentionMs?: number;
  readonly pollIntervalMs?: number;
  readonly encryptionKey?: string;
  readonly notify?: boolean;
}

export async function startWatchBackend(options: BackendOptions = {}): Promise<WatchBackend> {
  const { url, watchRetentionMs = Number.POSITIVE_INFINITY, pollIntervalMs = 50, notify = true } = options;
  const isNew = !url && !options.database;
  const directory = isNew ? await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-'))) : undefined;
  const databaseOptions = { url, poolSize: 10, acquireTimeoutMs: 5_000, dataDir: directory ?? 'memory:', notify };
  const database = options.database ?? (await openDatabase(databaseOptions));
  await migrator(database).up();
  const store = new Store(database);
  const feed = await Feed.start(store, pollIntervalMs);
  await seed(store, 'missing');
  await openEncryption(store, options.encryptionKey ?? generateKey());
  let api: Api | undefined;
  const metrics = createMetrics({
    revision: () => store.state.revision,
    databaseWritable: () => feed.isWritable,
    watches: () => api?.watches() ?? {},
    rows: () => ({}),
  });
  api = createApi(
    {
      store,
      feed,
      watchRetentionMs,
      usageRetentionMs: Number.POSITIVE_INFINITY,
      allowedAddresses: addressList([]),
      providerKeys: new Map(),
    },
    { contract: readContract(), log: createLog('silent'), metrics, anonymous: 'loopback' },
  );
  const rpc = await startGrpcServer({ host: '127.0.0.1', port: 0, text: '127.0.0.1:0' }, api, { reflection: 'on' });
  const clients = connect(rpc.port);
  const groundTruth = () => readGroundTruth(database.knex);
  return {
    ...clients,
    database,
    store,
    feed,
    api,
    rpc,
    port: rpc.port,
    watch(request, callOptions) {
      const recorded = new RecordedWatch(rpc.port, request, callOptions);
      onTestFinished(() => recorded.close());
      return recorded;
    },
    groundTruth,
    check: async (histories, writes = []) => validate({ writes, clients: histories }, await groundTruth()),
    async stop() {
      clients.close();
      await rpc.drain(1_000);
      await feed.close();
      if (!options.database) await database.close();
      if (directory) await rm(directory, { recursive: true, force: true });
    },
  };
}

/** One replica for all tests of a `describe`. */
export function useWatchBackend(engine: Engine, options: Omit<BackendOptions, 'url'> = {}): () => WatchBackend {
  let backend: WatchBackend;
  let stopDatabase = async () => {};
  beforeAll(async () => {
    if (engine === 'embedded') {
      backend = await startWatchBackend(options);
      return;
    }
    const postgres = await startPostgres();
    stopDatabase = () => postgres.stop();
    backend = await startWatchBackend({ ...options, url: await postgres.createDatabase('seeded') });
  });
  afterAll(async () => {
    await backend?.stop();
    await stopDatabase();
  });
  return () => backend;
}
