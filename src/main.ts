import type { AdminRequest, Say } from './admin/protocol.js';
import { startAdminServer } from './admin/server.js';
import { type Api, createApi } from './api/api.js';
import { readContract } from './api/dispatch/contract.js';
import { bootstrapToken } from './bootstrap_token.js';
import type { Settings } from './config.js';
import type { Anonymous } from './domain/access.js';
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
import { openVault, type VaultReport } from './store/keys/vault.js';
import { runMaintenance } from './store/maintenance/maintenance.js';
import { migrator } from './store/maintenance/migrate.js';
import { seed } from './store/maintenance/seed.js';
import { Store } from './store/store.js';

/** Runs a command of the admin socket on the store of the service; its result is the exit code. */
export type RunInService = (
  request: AdminRequest,
  place: { store: Store; settings: Settings; say: Say },
) => Promise<number>;

/** A service that is answering. */
export interface Running {
  readonly grpcPort: number;
  readonly httpPort: number | undefined;
  /** Why no API keys can be stored, or undefined. */
  readonly keyProblem: string | undefined;
  readonly access: AccessPolicy;
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
  refusePlaintext(settings, flags);
  await checkAddress('GRPC_ADDRESS', settings.GRPC_ADDRESS);
  if (settings.HTTP_ADDRESS !== 'off') await checkAddress('HTTP_ADDRESS', settings.HTTP_ADDRESS);
  const undo: Undo = [];
  try {
    return await start(settings, flags, log, undo, runCommand);
  } catch (error) {
    await unwind(undo, log);
    throw error;
  }
}

type Undo = (() => Promise<void>)[];

async function start(
  settings: Settings,
  flags: ServeFlags,
  log: Log,
  undo: Undo,
  runCommand: RunInService | undefined,
): Promise<Running> {
  const tls = await openTls(settings, log, undo);
  const { store, feed } = await startStore(settings, log, undo);
  if (settings.BOOTSTRAP_TOKEN_FILE !== undefined) await bootstrapToken(store, settings.BOOTSTRAP_TOKEN_FILE, log);
  refuseAnonymous(settings, flags, store.state.tokensExist);
  const anonymous = anonymousOf(settings, flags);
  if (runCommand) await startAdmin(store, settings, runCommand, log, undo);
  const { rpc, http, drain } = await startServers({ store, feed, settings, log, undo, tls, anonymous });
  const follow = (writable: boolean) => rpc.setWritable(writable);
  feed.onWritable(follow);
  follow(feed.isWritable);
  let stopping: Promise<void> | undefined;
  return {
    grpcPort: rpc.port,
    httpPort: http?.port,
    keyProblem: keyProblemOf(store),
    access: accessOf(anonymous, store.state.tokensExist),
    stop() {
      drain();
      stopping ??= unwind(undo, log);
      return stopping;
    },
  };
}

/** Database, schema, state, keys and seeds: everything that is there without a port. */
async function startStore(settings: Settings, log: Log, undo: Undo): Promise<{ store: Store; feed: Feed }> {
  const database = await openConfigured(settings, log);
  undo.push(() => database.close());
  await bringUpSchema(database, settings, log);
  database.limitSilence?.(limits.silenceMs);
  const store = new Store(database);
  const feed = await Feed.start(store, settings.POLL_INTERVAL_MS);
  undo.push(() => feed.close());
  logAvailability(store, feed, log);
  const seeded = await seed(store, 'missing');
  if (Object.keys(seeded).length > 0) log.info({ seeded }, 'seeded the store');
  // After the catalogue: keys of an adopted database are bound to their providers.
  reportVault(await openVault(store, settings.ENCRYPTION_KEY), log);
  undo.push(everyHour(() => runMaintenance(store, settings.HISTORY_RETENTION), log));
  return { store, feed };
}

/** Logs when the database becomes unavailable, with the cause, when it is available again, and when it is another one. */
function logAvailability(store: Store, feed: Feed, log: Log): void {
  feed.onWritable((writable, error) => {
    const cause = error instanceof Error ? store.database.explain?.(error.cause ?? error) : undefined;
    if (writable) log.info('the database takes writes again');
    else log.error({ cause, err: error }, 'the database takes no writes; reads continue from memory');
  });
  let { identity } = store.state;
  const replaced = () => {
    const { state } = store;
    if (state.identity !== identity)
      log.warn(
        { before: identity, now: state.identity, revision: state.revision },
        'the database contains another store than before: it was restored, renewed or created anew',
      );
    identity = state.identity;
  };
  store.follow({ applied: () => undefined, replaced });
}

/** The socket through which commands reach an embedded database that a service has. */
async function startAdmin(store: Store, settings: Settings, runCommand: RunInService, log: Log, undo: Undo) {
  if (store.database.kind !== 'embedded' || settings.DATA_DIR === 'memory:') return;
  const run = (request: AdminRequest, say: Say) => runCommand(request, { store, settings, say });
  const admin = await startAdminServer(settings.DATA_DIR, run, log);
  undo.push(() => admin.close(settings.SHUTDOWN_GRACE_MS));
}

/** The certificates, where there are any, before anything is opened: they are the likeliest to be wrong. */
async function openTls(settings: Settings, log: Log, undo: Undo): Promise<ServerTls | undefined> {
  const { TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE, TLS_CLIENT_CERT } = settings;
  if (TLS_CERT_FILE === undefined || TLS_KEY_FILE === undefined) return undefined;
  const tls = await ServerTls.open({ TLS_CERT_FILE, TLS_KEY_FILE, TLS_CLIENT_CA_FILE, TLS_CLIENT_CERT }, log);
  undo.push(() => tls.close());
  return tls;
}

interface ServersParts {
  readonly store: Store;
  readonly feed: Feed;
  readonly settings: Settings;
  readonly log: Log;
  readonly undo: Undo;
  readonly tls: ServerTls | undefined;
  readonly anonymous: Anonymous;
}

async function startServers({ store, feed, settings, log, undo, tls, anonymous }: ServersParts) {
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
  const watchRetentionMs = settings.WATCH_RETENTION;
  const backend = { store, feed, watchRetentionMs, allowedAddresses, providerKeys };
  let draining = false;
  let http: HttpServer | undefined;
  // Closed after the gRPC server has drained, so that /readyz tells of it until the end.
  undo.push(async () => http?.close());
  const reflection = settings.REFLECTION;
  api = createApi(backend, { contract, log, metrics, anonymous });
  const server = await startGrpcServer(settings.GRPC_ADDRESS, api, { tls, reflection });
  undo.push(() => server.drain(settings.SHUTDOWN_GRACE_MS));
  const notReady = () => (draining ? 'draining' : undefined);
  if (settings.HTTP_ADDRESS !== 'off')
    http = await startHttpServer(settings.HTTP_ADDRESS, { ...api, log, metrics, notReady, tls, reflection });
  const drain = () => {
    draining = true;
  };
  return { rpc: server, http, drain };
}

async function bringUpSchema(database: Database, settings: Settings, log: Log): Promise<void> {
  const migrations = migrator(database);
  if (!settings.MIGRATE_ON_START) return migrations.check({ pending: true });
  await migrations.check();
  const applied = await migrations.up();
  if (applied.length === 0) return;
  log.info({ applied }, 'migrated the database');
  const { tables, findings } = await migrations.readImport();
  if (tables.length > 0)
    log.info({ tables }, 'imported the tables of the Python system; no agents or default configs are created for it');
  for (const finding of findings) log.warn({ finding }, 'found in the imported database; see agentllm migrate status');
}

function keyProblemOf({ state }: Store): string | undefined {
  const { problem } = state.vault;
  if (problem?.reason === 'ENCRYPTION_KEY_WRONG') return 'ENCRYPTION_KEY is not the one that the stored keys are under';
  return problem && `ENCRYPTION_KEY ${problem.problem}`;
}

/** Says at the start what is wrong with the keys; nothing of it keeps the service from serving the rest. */
function reportVault({ problem, unreadable, rebound }: VaultReport, log: Log): void {
  if (problem?.reason === 'ENCRYPTION_KEY_WRONG')
    log.error(problem, 'ENCRYPTION_KEY is not the one that the stored keys were encrypted with; they cannot be read');
  else if (problem && problem.problem !== 'is not set') log.error(problem, 'ENCRYPTION_KEY cannot be used');
  else if (problem) log.info('no ENCRYPTION_KEY is set; API keys can neither be stored nor read');
  if (unreadable.length > 0)
    log.error({ unreadable: unreadable.slice(0, 100), count: unreadable.length }, 'stored API keys cannot be read');
  if (rebound > 0) log.info({ rebound }, 'encrypted the API keys of the imported database anew, bound to their rows');
}

/** Runs a task every hour from now on; stopping waits for the one that runs. */
function everyHour(task: () => Promise<void>, log: Log): () => Promise<void> {
  let running = Promise.resolve();
  const run = () => {
    running = task().catch((error) => log.warn({ err: error }, 'an hourly task failed; it is tried again'));
  };
  const timer = setInterval(run, 3_600_000).unref();
  return () => {
    clearInterval(timer);
    return running;
  };
}

async function unwind(undo: Undo, log: Log): Promise<void> {
  for (const step of undo.splice(0).reverse())
    await step().catch((error) => log.warn({ err: error }, 'could not be closed cleanly'));
}
