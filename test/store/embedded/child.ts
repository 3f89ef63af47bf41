/** A child process of the tests: `child.ts <command> <directory>`. Prints one line for each step. */

import pg from 'pg';
import { acquireDirectoryLock, DirectoryInUseError } from '../../../src/store/embedded/directory_lock.js';
import { openEngine } from '../../../src/store/embedded/engine.js';

const [command, directory = ''] = process.argv.slice(2);

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function keepRunning(): void {
  setInterval(() => undefined, 1_000);
}

async function lock(): Promise<void> {
  try {
    await acquireDirectoryLock(directory);
    print(`held ${process.pid}`);
    keepRunning();
  } catch (error) {
    const holder = error instanceof DirectoryInUseError ? error.holderPid : 'unknown';
    print(`refused holder=${holder} ${String(error)}`);
  }
}

async function open(): Promise<void> {
  print('opening');
  try {
    const engine = await openEngine({ dataDir: directory });
    print('open');
    await engine.close();
    print('closed');
  } catch (error) {
    print(`failed ${String(error)}`);
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
    print(`ack ${n}`);
  }
}

const commands: Record<string, () => Promise<void>> = { lock, open, write };
await commands[command ?? '']?.();
