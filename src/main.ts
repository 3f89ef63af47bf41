import type { AdminRequest, Output } from './admin/protocol.js';
import { startAdminServer } from './admin/server.js';
import { type Api, createApi } from './api/api.js';
import { readContract } from './api/dispatch/contract.js';
import { logEncryption, startBackgroundTasks } from './background_tasks.js';
import { bootstrapToken } from './bootstrap_token.js';
import type { Settings } from './config.js';
import type { Anonymous } from './domain/access.js';
import { shutdownNotices } from './domain/shutdown_uses.js';
import { Feed } from './feed/feed.js';
import { startGrpcServer } from './grpc/server.js';
import { type HttpServer, startHttpServer } from './http/server.js';
import { limits } from './limits.js';
import type { Log } from './log.js';
import { createMetrics } from './metrics.js';
import {
  type AccessPolicy,
  accessOf,
  anonymousOf,
  refuseAnonymous,
  refusePlaintext,
  type ServeFlags,
} from './net/exposure.js';
import { checkAddress } from './net/ports.js';
import { ServerTls } from './net/tls.js';
import { type Database, openDatabase } from './store/database.js';
import { openEncryption } from './store/keys/encryption.js';
import { migrator } from './store/maintenance/migrate.js';
import { seed } from './store/maintenance/seed.js';
import { Store } from './store/store.js';

/** Runs a command of the admin socket on the store of the service; resolves to the exit code. */
export type RunInService = (
  request: AdminRequest,
  target: { store: Store; settings: Settings; output: Output },
) => Promise<number>;

/** A running service. */
export interface Running {
  readonly grpcPort: number;
  readonly httpPort: number | undefined;
  /** The reason why API keys cannot be stored, or undefined. */
  readonly keyProblem: string | undefined;
  readonly access: AccessPolicy;
  /** The models that agents use and that are shut down, each with the command that replaces it. */
  readonly shutDownModels: readonly string[];
  /** Rejects new calls, waits for the calls in progress, and closes everything. Safe to call twice. */
  stop(): Promise<void>;
}

/** Opens the database that the settings select. */
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
 * Starts the service: database, schema, feed, seeds, servers. If a step fails, everything that was opened is closed in
 * reverse order.
 * @param runCommand runs the commands of the admin socket of an embedded database; undefined: there is no admin socket.
 */
export async function serve(
  settings: Settings,
  flags: ServeFlags,
  log: Log,
  runCommand?: RunInService,
): Promise<Running> {
  refusePlaintext(settings, flags);
  await checkAddress('GRPC_ADDRESS', settings.GRPC_ADDRESS);
  if (settings.HTTP_ADDRESS !== 'off') await checkAddress('HTTP_ADDRESS', settings.HTTP_ADDRESS);
  const cleanup: Cleanup = [];
  try {
    return await start(settings, flags, log, cleanup, runCommand);
  } catch (error) {
    await closeAll(cleanup, log);
    throw error;
  }
}

/** The steps that close what was opened, in the order of opening. */
type Cleanup = (() => Promise<void>)[];

async function start(
  settings: Settings,
  flags: ServeFlags,
  log: Log,
  cleanup: Cleanup,
  runCommand: RunInService | undefined,
): Promise<Running> {
  const tls = await openTls(settings, log, cleanup);
  const { store, feed } = await startStore(settings, log, cleanup);
  if (settings.BOOTSTRAP_TOKEN_FILE !== undefined) await bootstrapToken(store, settings.BOOTSTRAP_TOKEN_FILE, log);
  refuseAnonymous(settings, flags, store.state.tokensExist);
  const anonymous = anonymousOf(settings, flags);
  if (runCommand) await startAdmin(store, settings, runCommand, log, cleanup);
  const { grpc, http, drain } = await startServers({ store, feed, settings, log, cleanup, tls, anonymous });
  const setWritable = (writable: boolean) => grpc.setWritable(writable);
  feed.onWritable(setWritable);
  setWritable(feed.isWritable);
  let stopping: Promise<void> | undefined;
  return {
    grpcPort: grpc.port,
    httpPort: http?.port,
    keyProblem: keyProblemOf(store),
    access: accessOf(anonymous, store.state.tokensExist),
    shutDownModels: shutdownNotices(store.state, new Date()),
    stop() {
      drain();
      stopping ??= closeAll(cleanup, log);
      return stopping;
    },
  };
}

/** Opens everything that needs no port: database, schema, state, seeds and keys. */
async function startStore(settings: Settings, log: Log, cleanup: Cleanup): Promise<{ store: Store; feed: Feed }> {
  const database = await openConfigured(settings, log);
  cleanup.push(() => database.close());
  await prepareSchema(database, settings, log);
  database.limitStatements?.(limits);
  const store = new Store(database);
  const feed = await Feed.start(store, settings.POLL_INTERVAL_MS);
  cleanup.push(() => feed.close());
  logAvailability(store, feed, log);
  const { SEED_MODEL } = settings;
  const model = SEED_MODEL === undefined ? undefined : ({ text: SEED_MODEL, from: 'SEED_MODEL' } as const);
  const seeded = await seed(store, 'missing', { model });
  if (Object.keys(seeded).length > 0) log.info({ seeded }, 'seeded the store');
  // Requires the seeded catalogue, because the keys of an imported database are bound to their providers.
  const encryption = await openEncryption(store, settings.ENCRYPTION_KEY);
  logEncryption(encryption, log);
  cleanup.push(startBackgroundTasks(store, settings, encryption, log));
  return { store, feed };
}

/** Logs when the database becomes unavailable, with the cause, when it is available again, and when it was replaced. */
function logAvailability(store: Store, feed: Feed, log: Log): void {
  feed.onWritable((writable, error) => {
    const cause = error instanceof Error ? store.database.explain?.(error.cause ?? error) : undefined;
    if (writable) log.info('the database accepts writes again');
    else log.error({ cause, err: error }, 'the database accepts no writes; reads continue from memory');
  });
  let { identity } = store.state;
  const replaced = () => {
    const { state } = store;
    if (state.identity !== identity)
      log.warn(
        { before: identity, now: state.identity, revision: state.revision },
        'the database contains another store than before: it was restored from a backup, renewed or recreated',
      );
    identity = state.identity;
  };
  store.subscribe({ replaced });
}

/** Starts the admin socket, through which commands use the embedded database of the service. */
async function startAdmin(store: Store, settings: Settings, runCommand: RunInService, log: Log, cleanup: Cleanup) {
  if (store.database.kind !== 'embedded' || settings.DATA_DIR === 'memory:') return;
  const run = (request: AdminRequest, output: Output) => runCommand(request, { store, settings, output });
  const admin = await startAdminServer(settings.DATA_DIR, run, log);
  cleanup.push(() => admin.close(settings.SHUTDOWN_GRACE_MS));
}

/**
 * Opens the certificates, if TLS is configured. This is the first step, because it fails most often.
 */
async function openTls(settings: Settings, log: Log, cleanup: Cleanup): Promise<ServerTls | undefined> {
  const { TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE, TLS_CLIENT_CERT } = settings;
  if (TLS_CERT_FILE === undefined || TLS_KEY_FILE === undefined) return undefined;
  const tls = await ServerTls.open({ TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE, TLS_CLIENT_CERT }, log);
  cleanup.push(() => tls.close());
  return tls;
}

interface ServersParts {
  readonly store: Store;
  readonly feed: Feed;
  readonly settings: Settings;
  readonly log: Log;
  readonly cleanup: Cleanup;
  readonly tls: ServerTls | undefined;
  readonly anonymous: Anonymous;
}

async function startServers({ store, feed, settings, log, cleanup, tls, anonymous }: ServersParts) {
  const contract = readContract();
  let api: Api | undefined;
  const metrics = createMetrics({
    revision: () => store.state.revision,
    databaseWritable: () => feed.isWritable,
    watches: () => api?.watches() ?? {},
    rows: () => ({ agent: store.state.agents.size, config: store.state.configs.size }),
    certificateExpiry: tls && (() => tls.expires),
  });
  const { providerKeys, PROVIDER_ALLOW_CIDRS: allowedAddresses } = settings;
  const { WATCH_RETENTION: watchRetentionMs, USAGE_RETENTION: usageRetentionMs } = settings;
  const backend = { store, feed, watchRetentionMs, usageRetentionMs, allowedAddresses, providerKeys };
  let draining = false;
  let http: HttpServer | undefined;
  // Closed after the gRPC server has drained, so that /readyz reports the shutdown until the end.
  cleanup.push(async () => http?.close());
  const reflection = settings.REFLECTION;
  api = createApi(backend, { contract, log, metrics, anonymous });
  const grpc = await startGrpcServer(settings.GRPC_ADDRESS, api, { tls, reflection });
  cleanup.push(() => grpc.drain(settings.SHUTDOWN_GRACE_MS));
  const notReady = () => (draining ? 'draining' : undefined);
  if (settings.HTTP_ADDRESS !== 'off')
    http = await startHttpServer(settings.HTTP_ADDRESS, { ...api, log, metrics, notReady, tls, reflection });
  const drain = () => {
    draining = true;
  };
  return { grpc, http, drain };
}

async function prepareSchema(database: Database, settings: Settings, log: Log): Promise<void> {
  const migrations = migrator(database);
  if (!settings.MIGRATE_ON_START) return migrations.check({ pending: true });
  await migrations.check();
  const applied = await migrations.up();
  if (applied.length === 0) return;
  log.info({ applied }, 'migrated the database');
  const { tables, findings } = await migrations.readImport();
  if (tables.length > 0)
    log.info({ tables }, 'imported the tables of the original Python system; no agents or default configs are seeded');
  for (const finding of findings) log.warn({ finding }, 'found in the imported database; see agentllm migrate status');
}

function keyProblemOf({ state }: Store): string | undefined {
  const { problem } = state.encryption;
  if (problem?.reason === 'ENCRYPTION_KEY_WRONG')
    return 'ENCRYPTION_KEY is not the encryption key of the stored API keys';
  return problem && `ENCRYPTION_KEY ${problem.problem}`;
}

async function closeAll(cleanup: Cleanup, log: Log): Promise<void> {
  for (const close of cleanup.splice(0).reverse())
    await close().catch((error) => log.warn({ err: error }, 'a component could not be closed cleanly'));
}
