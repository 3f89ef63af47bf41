import knex, { type Knex } from 'knex';
import pg from 'pg';
import { parseDatabaseUrl } from '../domain/database_url.js';
import { clientConfig, connectionTargetOf, withConnection } from './connection.js';
import { knownCauseOf } from './connection_failure.js';
import { acquireDirectoryLock } from './embedded/directory_lock.js';
import { type Engine, type EngineLog, openEngine } from './embedded/engine.js';
import { chooseSchema } from './maintenance/schema.js';
import type { ListenTarget } from './notifications.js';
import { SessionClient, SessionSettings } from './session.js';
import { type Head, readHead } from './write/head.js';

/** An open database: a PostgreSQL server or the embedded engine. */
export interface Database {
  readonly knex: Knex;
  readonly kind: 'embedded' | 'postgres';
  /** URL of the server; undefined for the embedded engine. */
  readonly url?: string | undefined;
  /** URL of the same database without a pooler, for statements that need a session. */
  readonly directUrl?: string | undefined;
  /** The database for LISTEN on the writes of other replicas; undefined: notifications are off. */
  readonly listenTarget?: ListenTarget | undefined;
  /** Call it after the migrations, because their statements may take longer. */
  limitStatements?(limits: StatementLimits): void;
  /** The cause of a connection failure or a missing privilege, as a sentence; undefined for other errors. */
  readonly explain?: (error: unknown) => string | undefined;
  /**
   * Vacuums and analyzes every table of the embedded engine, which has no autovacuum: without this, tables whose rows
   * are updated often keep growing. Other statements run between two tables.
   */
  readonly vacuum?: (signal?: AbortSignal) => Promise<void>;
  /** All files of the embedded engine, consistent between two transactions. */
  readonly dump?: () => Promise<Dump>;
  close(): Promise<void>;
}

export interface StatementLimits {
  /** The server cancels a statement that takes longer, in ms. Writes set their own limits (write/revision_counter.ts). */
  readonly statementTimeoutMs: number;
  /**
   * A connection that receives no data for this time, in ms, is closed. Otherwise a connection to a server that has
   * disappeared blocks its caller and the feed until the TCP timeout.
   */
  readonly silenceMs: number;
}

export interface Dump {
  /** The counter row in the dump. */
  readonly head: Head;
  /** The data directory as a tarball, for `loadDump`. */
  readonly tarball: Uint8Array<ArrayBuffer>;
}

export interface DatabaseOptions {
  /** `postgres://…`; undefined opens the embedded engine. */
  readonly url: string | undefined;
  readonly directUrl?: string | undefined;
  /** Whether writes notify other replicas, which then poll immediately. */
  readonly notify?: boolean;
  /** Maximum number of connections to PostgreSQL. */
  readonly poolSize: number;
  /** Data directory of the embedded engine; `memory:` stores nothing on disk. */
  readonly dataDir: string;
  /** A dump from which a missing embedded database is created. */
  readonly loadDump?: Uint8Array;
  /** How long a call waits for a connection, in ms. */
  readonly acquireTimeoutMs: number;
  readonly log?: EngineLog;
}

/**
 * Opens the database.
 * @throws StartError that states the cause and the remedy.
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  return options.url === undefined ? openEmbedded(options) : openPostgres(options.url, options);
}

async function openPostgres(url: string, options: DatabaseOptions): Promise<Database> {
  const target = connectionTargetOf(parseDatabaseUrl(url));
  const timeoutMs = options.acquireTimeoutMs;
  const session = await withConnection('DATABASE_URL', url, { timeoutMs }, async (client) => {
    const chosen = await chooseSchema(client, parseDatabaseUrl(url).schema);
    return new SessionSettings(chosen);
  });
  const sessions = new Sessions();
  const connection = { ...clientConfig('DATABASE_URL', url), types, pipeline: true };
  const db = open(connection, options, options.poolSize, sessions, session);
  const listenTarget = options.notify ? listenTargetOf(url, options.directUrl) : undefined;
  const limitStatements = ({ statementTimeoutMs, silenceMs }: StatementLimits) => {
    session.limitStatements(statementTimeoutMs);
    sessions.limitSilence(silenceMs);
  };
  const explain = (error: unknown) => knownCauseOf(error, target);
  const close = () => db.destroy();
  const { directUrl } = options;
  return { knex: db, kind: 'postgres', url, directUrl, listenTarget, limitStatements, explain, close };
}

const listenTargetOf = (url: string, directUrl: string | undefined): ListenTarget =>
  directUrl === undefined ? { setting: 'DATABASE_URL', url } : { setting: 'DATABASE_DIRECT_URL', url: directUrl };

async function openEmbedded(options: DatabaseOptions): Promise<Database> {
  const dataDir = options.dataDir === 'memory:' ? undefined : options.dataDir;
  const lock = dataDir === undefined ? undefined : await acquireDirectoryLock(dataDir);
  try {
    const { log, loadDump } = options;
    const engine = await openEngine({ dataDir, ...(log && { log }), ...(loadDump && { loadDump }) });
    // The engine has a single session, so the pool has one connection.
    const db = open({ stream: () => engine.connect(), types, ssl: false, pipeline: true }, options, 1, new Sessions());
    const close = async () => {
      try {
        await db.destroy();
      } finally {
        await engine.close().finally(() => lock?.release());
      }
    };
    const vacuum = (signal?: AbortSignal) => vacuumTables(db, engine, signal);
    return { knex: db, kind: 'embedded', vacuum, dump: () => dump(db, engine), close };
  } catch (error) {
    await lock?.release();
    throw error;
  }
}

/** Takes the only connection, so that no transaction runs meanwhile. */
async function alone<T>(db: Knex, run: (connection: unknown) => Promise<T>): Promise<T> {
  const { client } = db as { client: Knex.Client };
  const connection: unknown = await client.acquireConnection();
  try {
    return await run(connection);
  } finally {
    await client.releaseConnection(connection);
  }
}

const dump = (db: Knex, engine: Engine): Promise<Dump> =>
  alone(db, async (connection) => ({ head: await readHead(db, connection), tarball: await engine.dump() }));

async function vacuumTables(db: Knex, engine: Engine, signal: AbortSignal | undefined): Promise<void> {
  const tables: { name: string }[] = await db('pg_class')
    .select(db.raw('oid::regclass::text as name'))
    .whereIn('relkind', ['r', 'm']);
  for (const { name } of tables) {
    if (signal?.aborted) return;
    await alone(db, () => engine.vacuum(name));
  }
}

type Connection = pg.ClientConfig & { types: typeof types };

/**
 * @param session settings of every connection or transaction; undefined for the embedded engine, whose only session is not shared.
 */
function open(
  connection: Connection,
  options: DatabaseOptions,
  poolSize: number,
  sessions: Sessions,
  session?: SessionSettings,
): Knex {
  return knex({
    client: session ? (SessionClient as typeof knex.Client) : 'pg',
    ...(session && { session }),
    connection: async () =>
      ({ connectionTimeoutMillis: options.acquireTimeoutMs, keepAlive: true, ...connection }) as never,
    pool: { min: 0, max: poolSize, afterCreate: sessions.watch },
    // Knex also throws these errors, and the service logs them. Knex would print them with addresses and SQL.
    log: { debug() {}, warn() {}, error() {}, deprecate() {} },
    acquireConnectionTimeout: options.acquireTimeoutMs,
  });
}

/** Handles conditions of pooled connections that pg and Knex do not handle. */
class Sessions {
  private readonly open = new Set<Session>();
  private silenceMs = 0;

  readonly watch = (session: Session, callback: (error: null, session: Session) => void): void => {
    this.open.add(session);
    session.once('end', () => this.open.delete(session));
    // After a failover a session can stay read-only (25006), and polling would keep it in the pool. Knex removes a
    // connection for which `__knex__disposed` is set.
    session.connection.on('errorMessage', ({ code }) => {
      if (code === '25006') session.__knex__disposed = code;
    });
    const { stream } = session.connection;
    if (this.silenceMs > 0) stream.setTimeout?.(this.silenceMs, () => stream.destroy());
    callback(null, session);
  };

  limitSilence(ms: number): void {
    this.silenceMs = ms;
    for (const session of this.open) session.__knex__disposed = 'opened without limits';
  }
}

/** The members of a `pg` client and its connection that are used here. */
interface Session {
  once(event: 'end', listener: () => void): unknown;
  readonly connection: {
    on(event: 'errorMessage', listener: (message: { code?: string }) => void): void;
    readonly stream: { setTimeout?(ms: number, onTimeout: () => void): unknown; destroy(): unknown };
  };
  __knex__disposed?: string;
}

/** Parses int8 as a number: revisions and rates stay below 2^53. A larger value is a defect and causes an error. */
const types = {
  getTypeParser(oid: number, format?: 'text' | 'binary') {
    return oid === pg.types.builtins.INT8 ? parseInt8 : pg.types.getTypeParser(oid, format as 'text');
  },
};

function parseInt8(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value)) throw new RangeError(`int8 ${text} is beyond 2^53`);
  return value;
}
