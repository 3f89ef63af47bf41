import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../support/ports.js';
import { withClient } from '../support/sql.js';

export interface PgBouncer {
  /** The URL of the same database through the pooler. */
  through(url: string): string;
  stop(): Promise<void>;
}

const NOBODY = 65_534;

/** Whether PgBouncer is installed. */
export function hasPgBouncer(): boolean {
  return spawnSync('pgbouncer', ['--version']).status === 0;
}

/** Starts PgBouncer in transaction mode for a server, with the given number of server connections. */
export async function startPgBouncer(url: string, poolSize: number): Promise<PgBouncer> {
  const { hostname, port: serverPort, username, password } = new URL(url);
  const directory = await mkdtemp(join(tmpdir(), 'agentllm-pgbouncer-'));
  const port = await freePort();
  const file = join(directory, 'pgbouncer.ini');
  await writeFile(join(directory, 'users'), `"${username}" "${password}"\n`);
  await writeFile(
    file,
    [
      '[databases]',
      `* = host=${hostname} port=${serverPort}`,
      '[pgbouncer]',
      'listen_addr = 127.0.0.1',
      `listen_port = ${port}`,
      'unix_socket_dir =',
      'auth_type = plain',
      `auth_file = ${join(directory, 'users')}`,
      'pool_mode = transaction',
      `default_pool_size = ${poolSize}`,
      // The strictest configuration: no session state survives a transaction.
      'server_reset_query_always = 1',
      'server_reset_query = DISCARD ALL',
    ].join('\n'),
  );
  // PgBouncer does not run as root.
  const user = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {};
  if (user.uid !== undefined) {
    await chmod(directory, 0o755);
    await chown(directory, NOBODY, NOBODY);
  }
  const bouncer = spawn('pgbouncer', [file], { ...user, cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  let output = '';
  bouncer.stderr.on('data', (chunk) => {
    output += chunk;
  });
  const ended = once(bouncer, 'exit');
  const through = (other: string) => Object.assign(new URL(other), { host: `127.0.0.1:${port}` }).href;
  const stop = async () => {
    bouncer.kill('SIGKILL');
    await ended;
    await rm(directory, { recursive: true, force: true });
  };
  for (let tries = 0; ; tries++) {
    try {
      await withClient(through(url), (client) => client.query('select 1'));
      return { through, stop };
    } catch (cause) {
      if (tries < 600 && bouncer.exitCode === null) {
        await sleep(50);
        continue;
      }
      await stop();
      throw new Error(`PgBouncer did not start:\n${output}`, { cause });
    }
  }
}
