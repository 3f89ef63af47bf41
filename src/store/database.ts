import knex, { type Knex } from 'knex';
import pg from 'pg';
import { StartError } from '../errors.js';
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
  /**
   * From now on ends connections that say nothing for so long: one whose other
   * end has vanished would hold its caller, and the feed, until TCP gives up. Not
   * while the schema is brought up, when a statement may take its time.
   */
  limitSilence?(ms: number): void;
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

async function openPostgres(url: string, options: DatabaseOptions): Promise<Database> {
  const sessions = new Sessions();
  const connection = { connectionString: url, types, application_name: 'agentllm' };
  const db = open(connection, options, options.poolSize, sessions);
  try {
    await db.raw('select 1');
  } catch (error) {
    await db.destroy();
    throw new StartError(`DATABASE_URL: ${whyNot(error, new URL(url))}`);
  }
  const listenUrl = options.notify ? (options.directUrl ?? url) : undefined;
  const limitSilence = (ms: number) => sessions.limitSilence(ms);
  const close = () => db.destroy();
  return { knex: db, kind: 'postgres', directUrl: options.directUrl, listenUrl, limitSilence, close };
}

/** What a person has to know who gave a URL that does not work; without its password. */
function whyNot(error: unknown, { host, username, pathname }: URL): string {
  const { code } = error as { code?: string };
  if (code === '28P01' || code === '28000')
    return `the server at ${host} refuses user "${username}"; check the password`;
  if (code === '3D000') return `the server at ${host} has no database "${pathname.slice(1)}"; create it first`;
  return `no PostgreSQL answers at ${host} (${code ?? 'no answer in time'}); is it running?`;
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

function open(connection: Connection, options: DatabaseOptions, poolSize: number, sessions: Sessions): Knex {
  return knex({
    client: 'pg',
    connection: async () =>
      ({ ...connection, keepAlive: true, connectionTimeoutMillis: options.acquireTimeoutMs }) as never,
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
