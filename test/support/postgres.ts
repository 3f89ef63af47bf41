import { inject } from 'vitest';
import { type Content, createDatabase, dropDatabase } from './postgres_databases.js';
import { type PostgresServer, startServer } from './postgres_server.js';

/** A PostgreSQL server, with superuser access. */
export interface TestPostgres {
  /** The URL of the database `postgres` of the server. */
  readonly url: string;
  /** Creates a database, empty by default or with the content of a prepared store, and returns its URL. */
  createDatabase(content?: Content): Promise<string>;
  /** Ends the server like a crash (`pg_ctl stop -m immediate`) and keeps its files. Only with the option `own`. */
  crash(): Promise<void>;
  /** Starts the server again after a crash, on the same port. Only with the option `own`. */
  restart(): Promise<void>;
  /** Drops the databases that were created here. With the option `own`, stops the server with its last user. */
  stop(): Promise<void>;
}

export interface PostgresOptions {
  /**
   * A separate server for this test file. Needed to crash it, to change settings or roles of the whole server, or to
   * read all its sessions. All other files share the server of the test run.
   */
  readonly own?: boolean;
}

/** Connects to the server of the test run, or starts one for this test file. */
export async function startPostgres({ own = false }: PostgresOptions = {}): Promise<TestPostgres> {
  return own ? shareOwnServer() : useSharedServer();
}

function useSharedServer(): TestPostgres {
  const url = inject('postgres');
  const created: string[] = [];
  const notAllowed = async () => {
    throw new Error('other test files use this server too: start one with startPostgres({ own: true })');
  };
  return {
    url,
    async createDatabase(content = 'empty') {
      const database = await createDatabase(url, content);
      created.push(database);
      return database;
    },
    crash: notAllowed,
    restart: notAllowed,
    async stop() {
      for (const database of created.splice(0)) await dropDatabase(url, database);
    },
  };
}

// Vitest loads modules again for every test file, so each test file has its own server.
let running: Promise<PostgresServer> | undefined;
let users = 0;

async function shareOwnServer(): Promise<TestPostgres> {
  running ??= startServer(inject('prepared').postgres);
  users += 1;
  const { url, crash, restart } = await running;
  let stopped = false;
  return {
    url,
    createDatabase: (content = 'empty') => createDatabase(url, content),
    crash,
    restart,
    stop: async () => {
      if (stopped) return;
      stopped = true;
      users -= 1;
      if (users > 0) return;
      const last = running;
      running = undefined;
      await (await last)?.stop();
    },
  };
}
