import { fromBinary, type JsonObject, toJson } from '@bufbuild/protobuf';
import { credentials, InterceptingCall, type Interceptor } from '@grpc/grpc-js';
import { pino } from 'pino';
import { afterAll, beforeAll, onTestFinished } from 'vitest';
import { AgentLLMConfigWatchServiceClient } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { createApi } from '../../src/api/api.js';
import type { Authorizer } from '../../src/api/dispatch/authorizer.js';
import type { Reflection } from '../../src/config.js';
import type { Anonymous } from '../../src/domain/access.js';
import { addressList } from '../../src/domain/addresses.js';
import { Feed } from '../../src/feed/feed.js';
import { startGrpcServer } from '../../src/grpc/server.js';
import { startHttpServer } from '../../src/http/server.js';
import { describeError } from '../../src/log.js';
import { createMetrics } from '../../src/metrics.js';
import { type Database, openDatabase } from '../../src/store/database.js';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { seed } from '../../src/store/maintenance/seed.js';
import { Store } from '../../src/store/store.js';
import { RecordedWatch, type WatchRequest } from '../feed/support.js';
import { contract, methods, type Outcome, type RawCall, rawCaller } from './access.js';
import { startPostgres } from './postgres.js';
import { openCopy } from './store.js';

/** A service with both transports and its log at level `trace` without redaction. */
export interface Replica {
  readonly database: Database;
  readonly store: Store;
  readonly feed: Feed;
  readonly access: Authorizer;
  readonly port: number;
  readonly http: number;
  /** The log lines. */
  readonly logged: readonly string[];
  stop(): Promise<void>;
}

export interface ReplicaOptions {
  /** The URL of a PostgreSQL database; undefined: an embedded database in a new directory. */
  readonly url?: string | undefined;
  /** The open database of another replica. */
  readonly database?: Database;
  readonly anonymous?: Anonymous;
  readonly reflection?: Reflection;
  readonly notify?: boolean;
  readonly pollIntervalMs?: number;
}

const ADDRESS = { host: '127.0.0.1', port: 0, text: '127.0.0.1:0' };

export async function startReplica(options: ReplicaOptions = {}): Promise<Replica> {
  const { url, anonymous = 'loopback', reflection = 'on', notify = true, pollIntervalMs = 50 } = options;
  const databaseOptions = { url, poolSize: 10, acquireTimeoutMs: 5_000, dataDir: 'memory:', notify };
  const open = () => (url === undefined ? openCopy('seeded', databaseOptions) : openDatabase(databaseOptions));
  const database = options.database ?? (await open());
  await migrator(database).up();
  const store = new Store(database);
  const feed = await Feed.start(store, pollIntervalMs);
  await seed(store, 'missing');
  const logged: string[] = [];
  const log = pino(
    { level: 'trace', serializers: { err: describeError } },
    { write: (line: string) => void logged.push(line) },
  );
  const metrics = createMetrics({
    revision: () => store.state.revision,
    databaseWritable: () => feed.isWritable,
    watches: () => ({}),
    rows: () => ({}),
  });
  const api = createApi(
    {
      store,
      feed,
      watchRetentionMs: Number.POSITIVE_INFINITY,
      usageRetentionMs: Number.POSITIVE_INFINITY,
      allowedAddresses: addressList([]),
      providerKeys: new Map(),
    },
    { contract, log, metrics, anonymous },
  );
  const rpc = await startGrpcServer(ADDRESS, api, { reflection });
  const http = await startHttpServer(ADDRESS, { ...api, log, metrics, reflection, notReady: () => undefined });
  return {
    database,
    store,
    feed,
    access: api.authorizer,
    port: rpc.port,
    http: http.port,
    logged,
    async stop() {
      await http.close();
      await rpc.drain(500);
      await feed.close();
      if (!options.database) await database.close();
    },
  };
}

/** One replica for all tests of a `describe`. */
export function useReplica(options: ReplicaOptions = {}): () => Replica {
  let replica: Replica;
  beforeAll(async () => {
    replica = await startReplica(options);
  });
  afterAll(() => replica?.stop());
  return () => replica;
}

/** Two replicas on one PostgreSQL database for all tests of a `describe`. */
export function useReplicas(options: ReplicaOptions = {}): () => readonly [Replica, Replica] {
  let replicas: readonly [Replica, Replica];
  let stopDatabase = async () => {};
  beforeAll(async () => {
    const postgres = await startPostgres();
    stopDatabase = () => postgres.stop();
    const url = await postgres.createDatabase('seeded');
    replicas = [await startReplica({ ...options, url }), await startReplica({ ...options, url })];
  });
  afterAll(async () => {
    for (const replica of replicas ?? []) await replica.stop();
    await stopDatabase();
  });
  return () => replicas;
}

/** A finished call with its response as JSON, which is empty for a failed call. */
export interface Answered extends Outcome {
  readonly response: JsonObject;
}

export type Calls = (name: string, json?: JsonObject, options?: Omit<RawCall, 'json'>) => Promise<Answered>;

export function methodNamed(name: string) {
  const method = methods.find((candidate) => `${candidate.parent.name}/${candidate.name}` === name);
  if (!method) throw new Error(`there is no method ${name}`);
  return method;
}

/** Calls methods by name, for example `AgentService/GetAgent`, with or without a token. */
export function callsOf({ port }: Pick<Replica, 'port'>, token?: string): Calls {
  const call = rawCaller(port);
  return async (name, json = {}, options = {}) => {
    const method = methodNamed(name);
    const outcome = await call(method, { token, json, ...options });
    const { registry } = contract;
    const response = outcome.bytes ? toJson(method.output, fromBinary(method.output, outcome.bytes), { registry }) : {};
    return { ...outcome, response: response as JsonObject };
  };
}

/** A field of a response that is an object. */
export const part = (response: JsonObject, name: string): JsonObject => (response[name] ?? {}) as JsonObject;

/** A recorded watch that is opened with a token. */
export function watchAs({ port }: Pick<Replica, 'port'>, token: string | undefined, request: WatchRequest) {
  const addToken: Interceptor = (options, next) =>
    new InterceptingCall(next(options), {
      start(metadata, listener, startCall) {
        if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
        startCall(metadata, listener);
      },
    });
  const client = new AgentLLMConfigWatchServiceClient(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    interceptors: [addToken],
  });
  const watch = new RecordedWatch(port, request, {}, client);
  onTestFinished(() => watch.close());
  return watch;
}

/** All rows of all tables of a database, as text. */
export async function everyTable({ knex }: Database): Promise<string> {
  const { rows } = await knex.raw("select tablename from pg_tables where schemaname = 'public'");
  const parts: string[] = [];
  for (const { tablename } of rows) {
    const table = await knex.raw('select t::text as line, row_to_json(t)::text as json from ?? t', [tablename]);
    for (const { line, json } of table.rows) parts.push(line, json);
  }
  // Columns of bytes are also read as text.
  const bytes = await knex.raw(
    "select table_name, column_name from information_schema.columns where table_schema = 'public' and data_type = 'bytea'",
  );
  for (const { table_name, column_name } of bytes.rows) {
    const found = await knex.raw("select encode(??, 'escape') as spelt from ??", [column_name, table_name]);
    parts.push(...found.rows.map(({ spelt }: { spelt: string | null }) => spelt ?? ''));
  }
  return parts.join('\n');
}

/** Creates an agent and returns its id. */
export async function agentNamed(calls: Calls, name: string): Promise<number> {
  const { response, message } = await calls('AgentService/CreateAgent', { agent: { name, agentType: 'analyst' } });
  const { id } = part(response, 'agent');
  if (typeof id !== 'number') throw new Error(`no agent was created: ${message}`);
  return id;
}
