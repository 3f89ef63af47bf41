import type { AdminRequest, Say } from './admin/protocol.js';
import { startAdminServer } from './admin/server.js';
import { isLoopback, type Settings } from './config.js';
import { StartError } from './errors.js';
import { Feed } from './feed/feed.js';
import { type HttpServer, startHttpServer } from './http/server.js';
import type { Log } from './log.js';
import { createMetrics } from './metrics.js';
import { readContract } from './rpc/contract.js';
import { startRpcServer } from './rpc/server.js';
import { type Database, openDatabase } from './store/database.js';
import { migrator } from './store/migrate.js';
import { seed } from './store/seed.js';
import { Store } from './store/store.js';
import { tidy } from './store/tidy.js';
import { openVault, type VaultReport } from './store/vault.js';

/** What was said on the command line and nowhere else, because it takes protection away. */
export interface ServeFlags {
  readonly allowPlaintext: boolean;
  readonly allowAnonymous: boolean;
}

/** Runs a command of the admin socket on the store of the service; its result is the exit code. */
export type RunInService = (request: AdminRequest, place: { store: Store; say: Say }) => Promise<number>;

/** A service that is answering. */
export interface Running {
  readonly grpcPort: number;
  readonly httpPort: number | undefined;
  /** Stops taking calls, lets those that run end, closes everything. Safe to call twice. */
  stop(): Promise<void>;
}

/** Opens the database with the options that the settings give. */
export const openConfigured = (settings: Settings, log?: Log): Promise<Database> =>
  openDatabase({
    url: settings.DATABASE_URL,
    directUrl: settings.DATABASE_DIRECT_URL,
    notify: settings.NOTIFY,
    poolSize: settings.DATABASE_POOL_SIZE,
    acquireTimeoutMs: settings.DATABASE_WAIT_MS,
    dataDir: settings.DATA_DIR,
    ...(log && { log }),
  });

/**
 * Starts the service: database, schema, feed, seeds, server; whatever was opened is closed again in reverse.
 * @param runCommand what the admin socket of an embedded database serves; without it there is none.
 */
export async function serve(
  settings: Settings,
  flags: ServeFlags,
  log: Log,
  runCommand?: RunInService,
): Promise<Running> {
  refuseExposure(settings, flags);
  const undo: (() => Promise<void>)[] = [];
  try {
    return await start(settings, log, undo, runCommand);
  } catch (error) {
    await unwind(undo, log);
    throw error;
  }
}

async function start(
  settings: Settings,
  log: Log,
  undo: (() => Promise<void>)[],
  runCommand: RunInService | undefined,
): Promise<Running> {
  const contract = readContract();
  const database = await openConfigured(settings, log);
  undo.push(() => database.close());
  await bringUpSchema(database, settings, log);

  const store = new Store(database);
  let setWritable = (_: boolean) => {};
  const feed = await Feed.start(store, {
    pollIntervalMs: settings.POLL_INTERVAL_MS,
    onWritable(writable, error) {
      if (writable) log.info('the database takes writes again');
      else log.error({ err: error }, 'the database takes no writes; reads go on from memory');
      setWritable(writable);
    },
  });
  undo.push(() => feed.close());
  reportVault(await openVault(store, settings.ENCRYPTION_KEY), log);
  const seeded = await seed(store, 'missing');
  if (Object.keys(seeded).length > 0) log.info({ seeded }, 'seeded the store');
  undo.push(everyHour(() => tidy(store), log));
  if (runCommand && database.kind === 'embedded' && settings.DATA_DIR !== 'memory:') {
    const run = (request: AdminRequest, say: Say) => runCommand(request, { store, say });
    const admin = await startAdminServer(settings.DATA_DIR, run, log);
    undo.push(() => admin.close(settings.SHUTDOWN_GRACE_MS));
  }

  const metrics = createMetrics({
    revision: () => store.state.revision,
    databaseWritable: () => feed.isWritable,
    rows: () => ({ agent: store.state.agents.size, config: store.state.configs.size }),
  });
  const backend = { store, feed, allowedAddresses: settings.PROVIDER_ALLOW_CIDRS };
  let draining = false;
  let http: HttpServer | undefined;
  // Closed after the gRPC server has drained, so that /readyz tells of it until the end.
  undo.push(async () => http?.close());
  const rpc = await startRpcServer(settings.GRPC_ADDRESS, backend, { contract, log, metrics });
  undo.push(() => rpc.drain(settings.SHUTDOWN_GRACE_MS));
  setWritable = rpc.setWritable;
  setWritable(feed.isWritable);
  const notReady = () => (draining ? 'draining' : undefined);
  if (settings.HTTP_ADDRESS !== 'off')
    http = await startHttpServer(settings.HTTP_ADDRESS, { contract, log, metrics, methods: rpc.methods, notReady });

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

/** Says at the start what is wrong with the keys; nothing of it keeps the service from serving the rest. */
function reportVault({ problem, unreadable, rebound }: VaultReport, log: Log): void {
  if (problem?.reason === 'ENCRYPTION_KEY_WRONG')
    log.error(problem, 'ENCRYPTION_KEY is not the one that the stored keys were encrypted with; they cannot be read');
  else if (problem && problem.problem !== 'is not set') log.error(problem, 'ENCRYPTION_KEY cannot be used');
  else if (problem) log.info('no ENCRYPTION_KEY is set; API keys cannot be stored');
  if (unreadable.length > 0)
    log.error({ unreadable: unreadable.slice(0, 100), count: unreadable.length }, 'stored API keys cannot be read');
  if (rebound > 0) log.info({ rebound }, 'bound the API keys of the adopted database to their rows');
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
