import knex, { type Knex } from 'knex';
import pg from 'pg';
import { acquireDirectoryLock } from './embedded/directory_lock.js';
import { type Engine, type EngineLog, openEngine } from './embedded/engine.js';
import { type Head, readHead } from './log.js';

/** A PostgreSQL that is open, whichever way it runs. */
export interface Database {
  readonly knex: Knex;
  readonly kind: 'embedded' | 'postgres';
  /** Where a connection keeps its session, when `knex` goes through a pooler that does not. */
  readonly directUrl?: string | undefined;
  /** Where to hear of other replicas' writes; undefined where nobody says or hears anything. */
  readonly listenUrl?: string | undefined;
  /** All files of the embedded engine, as of one moment between two transactions. */
  readonly dump?: () => Promise<Dump>;
  close(): Promise<void>;
}

export interface Dump {
  /** The counter row in it. */
  readonly head: Head;
  /** What `loadDump` takes. */
  readonly tarball: Uint8Array<ArrayBuffer>;
}

export interface DatabaseOptions {
  /** `postgres://…`; undefined opens the embedded engine. */
  readonly url: string | undefined;
  readonly directUrl?: string | undefined;
  /** Whether writers tell other replicas, so that those need not wait for their next look. */
  readonly notify?: boolean;
  /** Most connections to PostgreSQL. */
  readonly poolSize: number;
  /** Where the embedded engine keeps its files; `memory:` keeps nothing. */
  readonly dataDir: string;
  /** Makes the embedded database from a dump, where there is none yet. */
  readonly loadDump?: Uint8Array;
  /** How long a call waits for a connection. */
  readonly acquireTimeoutMs: number;
  readonly log?: EngineLog;
}

/** Opens the database; rejects with one sentence that says what to do. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  return options.url === undefined ? openEmbedded(options) : openPostgres(options.url, options);
}

function openPostgres(url: string, options: DatabaseOptions): Database {
  const db = open({ connectionString: url, types, application_name: 'agentllm' }, options, options.poolSize);
  const listenUrl = options.notify ? (options.directUrl ?? url) : undefined;
  return { knex: db, kind: 'postgres', directUrl: options.directUrl, listenUrl, close: () => db.destroy() };
}

async function openEmbedded(options: DatabaseOptions): Promise<Database> {
  const dataDir = options.dataDir === 'memory:' ? undefined : options.dataDir;
  const lock = dataDir === undefined ? undefined : await acquireDirectoryLock(dataDir);
  try {
    const { log, loadDump } = options;
    const engine = await openEngine({ dataDir, ...(log && { log }), ...(loadDump && { loadDump }) });
    // All connections to the engine are one session, so there is one (platform-traps.md, "PGlite").
    const db = open({ stream: () => engine.connect(), types, ssl: false }, options, 1);
    const close = async () => {
      await db.destroy();
      await engine.close();
      await lock?.release();
    };
    return { knex: db, kind: 'embedded', dump: () => dump(db, engine), close };
  } catch (error) {
    await lock?.release();
    throw error;
  }
}

/** Whoever has the one connection has the engine for himself. */
async function dump(db: Knex, engine: Engine): Promise<Dump> {
  const { client } = db as { client: Knex.Client };
  const connection: unknown = await client.acquireConnection();
  try {
    return { head: await readHead(db, connection), tarball: await engine.dump() };
  } finally {
    await client.releaseConnection(connection);
  }
}

type Connection = pg.ClientConfig & { types: typeof types };

function open(connection: Connection, options: DatabaseOptions, poolSize: number): Knex {
  return knex({
    client: 'pg',
    connection: async () =>
      ({ ...connection, keepAlive: true, connectionTimeoutMillis: options.acquireTimeoutMs }) as never,
    pool: { min: 0, max: poolSize, afterCreate: watchSession },
    // What goes wrong is thrown, and told by our own log; Knex would print it with addresses and SQL.
    log: { debug() {}, warn() {}, error() {}, deprecate() {} },
    acquireConnectionTimeout: options.acquireTimeoutMs,
  });
}

/**
 * A session that has become read-only (after a failover, 25006) stays so, and
 * polling would keep it in the pool for ever. Knex drops a connection that
 * carries this mark.
 */
function watchSession(session: Session, done: (error: null, session: Session) => void): void {
  session.connection.on('errorMessage', ({ code }) => {
    if (code === '25006') session.__knex__disposed = code;
  });
  done(null, session);
}

interface Session {
  readonly connection: { on(event: 'errorMessage', listener: (message: { code?: string }) => void): void };
  __knex__disposed?: string;
}

/** int8 as a number: revisions and rates stay below 2^53, and what does not is a fault that must be seen. */
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
