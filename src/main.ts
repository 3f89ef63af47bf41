import { isLoopback, type Settings } from './config.js';
import { Feed } from './feed/feed.js';
import { startHttpServer } from './http/server.js';
import type { Log } from './log.js';
import { createMetrics } from './metrics.js';
import { readContract } from './rpc/contract.js';
import { startRpcServer } from './rpc/server.js';
import { type Database, openDatabase } from './store/database.js';
import { migrator } from './store/migrate.js';
import { seed } from './store/seed.js';
import { Store } from './store/store.js';
import { forgetAnswers } from './store/transact.js';

/** What was said on the command line and nowhere else, because it takes protection away. */
export interface ServeFlags {
  readonly allowPlaintext: boolean;
  readonly allowAnonymous: boolean;
}

/** A service that is answering. */
export interface Running {
  readonly grpcPort: number;
  readonly httpPort: number | undefined;
  /** Stops taking calls, lets those that run end, closes everything. Safe to call twice. */
  stop(): Promise<void>;
}

/** A start that was refused, with what to do. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

/** Opens the database with the options that the settings give. */
export const openConfigured = (settings: Settings, log?: Log): Promise<Database> =>
  openDatabase({
    url: settings.DATABASE_URL,
    directUrl: settings.DATABASE_DIRECT_URL,
    poolSize: settings.DATABASE_POOL_SIZE,
    acquireTimeoutMs: settings.DATABASE_WAIT_MS,
    dataDir: settings.DATA_DIR,
    ...(log && { log }),
  });

/** Starts the service: database, schema, feed, seeds, server; whatever was opened is closed again in reverse. */
export async function serve(settings: Settings, flags: ServeFlags, log: Log): Promise<Running> {
  refuseExposure(settings, flags);
  const undo: (() => Promise<void>)[] = [];
  try {
    return await start(settings, log, undo);
  } catch (error) {
    await unwind(undo, log);
    throw error;
  }
}

async function start(settings: Settings, log: Log, undo: (() => Promise<void>)[]): Promise<Running> {
  const contract = readContract();
  const database = await openConfigured(settings, log);
  undo.push(() => database.close());
  await bringUpSchema(database, settings, log);

  const store = new Store(database);
  let setWritable = (_: boolean) => {};
  const feed = await Feed.start(store, {
    pollIntervalMs: settings.POLL_INTERVAL_MS,
    onReachable(reachable, error) {
      if (reachable) log.info('database answers again');
      else log.error({ err: error }, 'database does not answer; reads go on from memory, writes are refused');
      setWritable(reachable);
    },
  });
  undo.push(() => feed.close());
  const seeded = await seed(store, 'missing');
  if (Object.keys(seeded).length > 0) log.info({ seeded }, 'seeded the store');
  undo.push(everyHour(() => tidy(database), log));

  const metrics = createMetrics({
    revision: () => store.state.revision,
    databaseReachable: () => feed.isReachable,
    rows: () => ({ agent: store.state.agents.size, config: store.state.configs.size }),
  });
  let draining = false;
  const http =
    settings.HTTP_ADDRESS === 'off'
      ? undefined
      : await startHttpServer(settings.HTTP_ADDRESS, { metrics, notReady: () => (draining ? 'draining' : undefined) });
  if (http) undo.push(() => http.close());
  const backend = { store, feed, allowedAddresses: settings.PROVIDER_ALLOW_CIDRS };
  const rpc = await startRpcServer(settings.GRPC_ADDRESS, backend, { contract, log, metrics });
  setWritable = rpc.setWritable;
  setWritable(feed.isReachable);
  undo.push(() => rpc.drain(settings.SHUTDOWN_GRACE_MS));

  let stopping: Promise<void> | undefined;
  return {
    grpcPort: rpc.port,
    httpPort: http?.port,
    stop() {
      draining = true;
      stopping ??= unwind(undo, log);
      return stopping;
    },
  };
}

/** Everybody who can reach the port can do everything, so it takes two plain words to open it to a network. */
function refuseExposure(settings: Settings, flags: ServeFlags): void {
  const { GRPC_ADDRESS: grpc, HTTP_ADDRESS: http } = settings;
  const exposed = [grpc, ...(http === 'off' ? [] : [http])].filter((address) => !isLoopback(address));
  if (exposed.length === 0 || (flags.allowPlaintext && flags.allowAnonymous)) return;
  const missing = [!flags.allowPlaintext && '--allow-plaintext', !flags.allowAnonymous && '--allow-anonymous'];
  throw new StartError(
    `${exposed.map(({ text }) => text).join(' and ')} can be reached from other machines, where everybody could read and change everything. ` +
      `Listen on 127.0.0.1, or add ${missing.filter(Boolean).join(' ')} if the network around it keeps others out.`,
  );
}

async function bringUpSchema(database: Database, settings: Settings, log: Log): Promise<void> {
  const migrations = migrator(database);
  if (!settings.MIGRATE_ON_START) return migrations.check({ pending: true });
  await migrations.check();
  const applied = await migrations.up();
  if (applied.length > 0) log.info({ applied }, 'migrated the database');
}

async function tidy(database: Database): Promise<void> {
  await forgetAnswers(database.knex);
  // PGlite has no autovacuum: without this, rows that are updated often make its tables grow.
  if (database.kind === 'embedded') await database.knex.raw('vacuum (analyze)');
}

function everyHour(task: () => Promise<void>, log: Log): () => Promise<void> {
  const run = () => task().catch((error) => log.warn({ err: error }, 'an hourly task failed; it is tried again'));
  const timer = setInterval(() => void run(), 3_600_000).unref();
  void run();
  return async () => clearInterval(timer);
}

async function unwind(undo: (() => Promise<void>)[], log: Log): Promise<void> {
  for (const step of undo.splice(0).reverse())
    await step().catch((error) => log.warn({ err: error }, 'could not be closed cleanly'));
}
