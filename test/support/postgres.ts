import { inject } from 'vitest';
import { type Content, createDatabase, dropDatabase } from './postgres_databases.js';
import { type PostgresServer, startServer } from './postgres_server.js';

/** A real PostgreSQL server, as a superuser sees it. */
export interface TestPostgres {
  /** The server's own database `postgres`. */
  readonly url: string;
  /** Creates a database and returns its URL. It is empty unless the content of a prepared store is asked for. */
  createDatabase(content?: Content): Promise<string>;
  /** Ends the server as a crash does (`pg_ctl stop -m immediate`); its files stay. Only for a server of one's own. */
  crash(): Promise<void>;
  /** Starts the server again after a crash, on the same port. Only for a server of one's own. */
  restart(): Promise<void>;
  /** Drops the databases that were created here; stops a server of one's own when its last user has stopped it. */
  stop(): Promise<void>;
}

export interface PostgresOptions {
  /**
   * A server for this test file alone. Needed to crash it, to change settings or roles of the whole server, or to look
   * at all its sessions. All other files share the server of the test run.
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
  const refuse = async () => {
    throw new Error('other test files use this server too: start one with startPostgres({ own: true })');
  };
  return {
    url,
    async createDatabase(content = 'empty') {
      const database = await createDatabase(url, content);
      created.push(database);
      return database;
    },
    crash: refuse,
    restart: refuse,
    async stop() {
      for (const database of created.splice(0)) await dropDatabase(url, database);
    },
  };
}

// Vitest loads modules anew for every test file, so this is one server for each.
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
