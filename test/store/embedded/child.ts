/** What the tests run in processes of their own: `child.ts <command> <directory>`. Says what it did, a line each. */

import pg from 'pg';
import { acquireDirectoryLock, DirectoryInUseError } from '../../../src/store/embedded/directory_lock.js';
import { openEngine } from '../../../src/store/embedded/engine.js';

const [command, directory = ''] = process.argv.slice(2);

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function stay(): void {
  setInterval(() => undefined, 1_000);
}

async function lock(): Promise<void> {
  const startedAt = performance.now();
  try {
    await acquireDirectoryLock(directory);
    say(`held ${process.pid}`);
    stay();
  } catch (error) {
    const took = Math.round(performance.now() - startedAt);
    const holder = error instanceof DirectoryInUseError ? error.holderPid : 'unknown';
    say(`refused holder=${holder} ms=${took} ${String(error)}`);
  }
}

async function open(): Promise<void> {
  say('opening');
  try {
    const engine = await openEngine({ dataDir: directory });
    say('open');
    await engine.close();
    say('closed');
  } catch (error) {
    say(`failed ${String(error)}`);
  }
}

/** Acknowledges each row after its commit, until it is killed. */
async function write(): Promise<void> {
  const engine = await openEngine({ dataDir: directory });
  const client = new pg.Client({ stream: () => engine.connect() } as pg.ClientConfig);
  await client.connect();
  await client.query('CREATE TABLE IF NOT EXISTS written (n bigint PRIMARY KEY, pad text)');
  const { rows } = await client.query<{ next: string }>('SELECT coalesce(max(n), 0) + 1 AS next FROM written');
  for (let n = Number(rows[0]?.next); ; n++) {
    await client.query('INSERT INTO written VALUES ($1, $2)', [n, 'x'.repeat(200)]);
    say(`ack ${n}`);
  }
}

const commands: Record<string, () => Promise<void>> = { lock, open, write };
await commands[command ?? '']?.();
