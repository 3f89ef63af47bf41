import knex, { type Knex } from 'knex';
import pg from 'pg';
import { parseDatabaseUrl } from '../domain/database_url.js';
import { attemptOf, clientConfig, withConnection } from './connection.js';
import { knownCauseOf } from './connection_failure.js';
import { acquireDirectoryLock } from './embedded/directory_lock.js';
import { type Engine, type EngineLog, openEngine } from './embedded/engine.js';
import { chooseSchema } from './maintenance/schema.js';
import { SessionClient, SessionSettings } from './session.js';
import { type Head, readHead } from './write/head.js';

/** A PostgreSQL that is open, whichever way it runs. */
export interface Database {
  readonly knex: Knex;
  readonly kind: 'embedded' | 'postgres';
  /** Of the server; undefined for the embedded engine. */
  readonly url?: string | undefined;
  /** The same database without a pooler, where a session is kept. */
  readonly directUrl?: string | undefined;
  /** Where to hear of other replicas' writes; undefined where nobody says or hears anything. */
  readonly listenUrl?: string | undefined;
  /**
   * From now on ends connections that say nothing for so long: one whose other
   * end has vanished would hold its caller, and the feed, until TCP gives up. Not
   * while the schema is brought up, when a statement may take its time.
   */
  limitSilence?(ms: number): void;
  /** The cause of a failure of the connection or of a right that is missing, as a sentence; undefined for others. */
  readonly explain?: (error: unknown) => string | undefined;
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

/** Opens the database; rejects with a sentence that names the cause and the remedy. */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  return options.url === undefined ? openEmbedded(options) : openPostgres(options.url, options);
}

async function openPostgres(url: string, options: DatabaseOptions): Promise<Database> {
  const attempt = attemptOf(parseDatabaseUrl(url));
  const timeoutMs = options.acquireTimeoutMs;
  const session = await withConnection('DATABASE_URL', url, { timeoutMs }, async (client) => {
    const chosen = await chooseSchema(client, parseDatabaseUrl(url).schema);
    return new SessionSettings(chosen);
  });
  const sessions = new Sessions();
  const connection = { ...clientConfig('DATABASE_URL', url), types, pipeline: true };
  const db = open(connection, options, options.poolSize, sessions, session);
  const listenUrl = options.notify ? (options.directUrl ?? url) : undefined;
  const limitSilence = (ms: number) => sessions.limitSilence(ms);
  const explain = (error: unknown) => knownCauseOf(error, attempt);
  const close = () => db.destroy();
  return { knex: db, kind: 'postgres', url, directUrl: options.directUrl, listenUrl, limitSilence, explain, close };
}

async function openEmbedded(options: DatabaseOptions): Promise<Database> {
  const dataDir = options.dataDir === 'memory:' ? undefined : options.dataDir;
  const lock = dataDir === undefined ? undefined : await acquireDirectoryLock(dataDir);
  try {
    const { log, loadDump } = options;
    const engine = await openEngine({ dataDir, ...(log && { log }), ...(loadDump && { loadDump }) });
    // All connections to the engine are one session, so there is one (platform-traps.md, "PGlite").
    const db = open({ stream: () => engine.connect(), types, ssl: false }, options, 1, new Sessions());
    const close = async () => {
      try {
        await db.destroy();
      } finally {
        await engine.close().finally(() => lock?.release());
      }
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

/** @param session the settings of every transaction; undefined for the embedded engine, whose only session is ours. */
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
    // What goes wrong is thrown, and told by our own log; Knex would print it with addresses and SQL.
    log: { debug() {}, warn() {}, error() {}, deprecate() {} },
    acquireConnectionTimeout: options.acquireTimeoutMs,
  });
}

/** The connections of a pool, watched for what pg and Knex do not notice. */
class Sessions {
  private readonly open = new Set<Session>();
  private silenceMs = 0;

  readonly watch = (session: Session, done: (error: null, session: Session) => void): void => {
    this.open.add(session);
    session.once('end', () => this.open.delete(session));
    // A session that has become read-only (after a failover, 25006) stays so, and polling would keep it in the pool
    // for ever. Knex drops a connection that carries this mark.
    session.connection.on('errorMessage', ({ code }) => {
      if (code === '25006') session.__knex__disposed = code;
    });
    this.time(session);
    done(null, session);
  };

  limitSilence(ms: number): void {
    this.silenceMs = ms;
    for (const session of this.open) this.time(session);
  }

  private time({ connection: { stream } }: Session): void {
    if (this.silenceMs > 0) stream.setTimeout?.(this.silenceMs, () => stream.destroy());
  }
}

/** What of a `pg` client and its connection is used here. */
interface Session {
  once(event: 'end', listener: () => void): unknown;
  readonly connection: {
    on(event: 'errorMessage', listener: (message: { code?: string }) => void): void;
    readonly stream: { setTimeout?(ms: number, late: () => void): unknown; destroy(): unknown };
  };
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
