import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { openEngine } from '../../../src/store/embedded/engine.js';
import { until } from '../../support/until.js';
import { connectClient, openMemoryEngine, spawnChild, useDirectory, useKnex } from './support.js';

test('a data directory contains every committed row after close and open', async () => {
  const dataDir = join(useDirectory(), 'made', 'here');
  for (let opened = 0; opened < 3; opened++) {
    const engine = await openEngine({ dataDir });
    const client = await connectClient(engine);
    await client.query('CREATE TABLE IF NOT EXISTS kept (n serial)');
    await client.query('INSERT INTO kept DEFAULT VALUES');
    await client.end();
    await engine.close();
  }
  expect(statSync(dataDir).mode & 0o777).toBe(0o700);
  const engine = await openEngine({ dataDir });
  const client = await connectClient(engine);
  expect((await client.query('SELECT count(*)::int AS n FROM kept')).rows).toEqual([{ n: 3 }]);
  await client.end();
  await engine.close();
});

test('a data directory contains every acknowledged row after the writing process was killed', async () => {
  const dataDir = useDirectory();
  let acknowledged = 0;
  for (let round = 0; round < 3; round++) {
    const writer = spawnChild(['write', dataDir]);
    await until(
      () => writer.lines.filter((line) => line.startsWith('ack')).length > 20,
      'twenty rows are acknowledged',
    );
    await delay(Math.random() * 400);
    writer.process.kill('SIGKILL');
    await writer.exited;
    acknowledged = Math.max(acknowledged, ...writer.lines.map((line) => Number(/^ack (\d+)$/.exec(line)?.[1] ?? 0)));
  }
  const startedAt = performance.now();
  const engine = await openEngine({ dataDir });
  console.log({ acknowledged, reopenedInMs: Math.round(performance.now() - startedAt) });
  const client = await connectClient(engine);
  const { rows } = await client.query<{ n: number; max: number }>(
    'SELECT count(*)::int AS n, max(n)::int FROM written',
  );
  expect(rows[0]?.n).toBe(rows[0]?.max);
  expect(rows[0]?.n).toBeGreaterThanOrEqual(acknowledged);
  expect(acknowledged).toBeGreaterThan(50);
  await client.end();
  await engine.close();
});

test('a data directory opens after a process was killed at any point of its first start', async () => {
  const dataDir = useDirectory();
  const isCopying = () => existsSync(join(dataDir, 'pg.new', 'base'));
  const killAt = async (moment: () => Promise<void>) => {
    const starting = spawnChild(['open', dataDir]);
    await starting.line(/^opening/);
    await moment();
    starting.process.kill('SIGKILL');
    await starting.exited;
  };
  for (const ms of [500, 1_500]) {
    await killAt(() => delay(ms));
    rmSync(join(dataDir, 'pg'), { recursive: true, force: true });
  }
  // Repeated, because a copy may end before the signal arrives.
  do {
    rmSync(dataDir, { recursive: true, force: true });
    await killAt(() => untilCopied(isCopying, dataDir));
  } while (!isCopying());
  const engine = await openEngine({ dataDir });
  expect(existsSync(join(dataDir, 'pg.new'))).toBe(false);
  const client = await connectClient(engine);
  expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  await client.end();
  await engine.close();
});

/** Waits until a copy has begun, or until it has ended unseen. */
async function untilCopied(isCopying: () => boolean, dataDir: string): Promise<void> {
  while (!isCopying() && !existsSync(join(dataDir, 'pg'))) await delay(1);
}

test('a dump initializes a new data directory and is rejected by one that contains a database', async () => {
  const memory = await openMemoryEngine();
  const loadDump = await memory.dump();
  await memory.close();
  const dataDir = useDirectory();
  await (await openEngine({ dataDir, loadDump })).close();
  await expect(openEngine({ dataDir, loadDump })).rejects.toThrow(/already contains a database/);
});

test('a data directory that cannot be used causes an error with the reason', async () => {
  const dataDir = useDirectory();
  writeFileSync(join(dataDir, 'file'), '');
  await expect(openEngine({ dataDir: join(dataDir, 'file') })).rejects.toThrow(/is not a directory: remove the file/);
  await expect(openEngine({ dataDir: join(dataDir, 'file', 'below') })).rejects.toThrow(/is not a directory/);
  mkdirSync(join(dataDir, 'broken', 'pg', 'global'), { recursive: true });
  writeFileSync(join(dataDir, 'broken', 'pg', 'PG_VERSION'), '15\n');
  await expect(openEngine({ dataDir: join(dataDir, 'broken') })).rejects.toThrow(
    /^The embedded database in .*broken cannot be opened: /,
  );
});

const root = process.getuid?.() === 0;

test.runIf(root)('a data directory of another user causes an error with the reason', async () => {
  const dataDir = useDirectory();
  chmodSync(dataDir, 0o700);
  const line = await spawnChild(['open', dataDir], { uid: 65_534 }).line(/^failed/);
  expect(line).toMatch(/may not be read and written by this user/);
});

function mountTmpfs(options: string): string | undefined {
  const directory = useDirectory();
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', directory], { stdio: 'ignore' });
  } catch {
    return undefined;
  }
  onTestFinished(() => {
    execFileSync('umount', ['-l', directory], { stdio: 'ignore' });
  });
  return directory;
}

test.runIf(root)(
  'a data directory that is read-only or has no free space causes an error with the reason',
  async ({ skip }) => {
    const small = mountTmpfs('size=40m');
    if (small === undefined) return skip();
    await expect(openEngine({ dataDir: small })).rejects.toThrow(
      /MB free, and a new database needs .*: free some space/,
    );
    execFileSync('mount', ['-o', 'remount,ro', small]);
    await expect(openEngine({ dataDir: small })).rejects.toThrow(/read-only file system: mount it writable/);
  },
);

test.runIf(root)('a full disk rejects writes and accepts them again when space is freed', async ({ skip }) => {
  const dataDir = mountTmpfs('size=110m');
  if (dataDir === undefined) return skip();
  const engine = await openEngine({ dataDir });
  const db = useKnex(engine);
  await db.raw('CREATE TABLE filling (n int, body text)');
  await db('filling').insert({ n: 0, body: 'first' });
  writeFileSync(join(dataDir, 'ballast'), Buffer.alloc(30 * 1024 * 1024));
  const fill = async (): Promise<never> => {
    for (;;)
      await db.raw(
        "INSERT INTO filling SELECT 1, string_agg(md5(random()::text), '') FROM generate_series(1, 30000) AS n",
      );
  };
  const rejection: unknown = await fill().catch((error: unknown) => error);
  expect((rejection as { code: string }).code).toMatch(/^(53100|ECONNRESET)$/);
  // PostgreSQL panics when the WAL cannot grow and restarts when it can; until then each client gets an error.
  const whileFull = await db('filling')
    .where({ n: 0 })
    .catch((error: Error) => error.message);
  expect(whileFull).toMatch(/is on a full disk: free some space/);
  rmSync(join(dataDir, 'ballast'));
  expect(await db('filling').where({ n: 0 })).toEqual([{ n: 0, body: 'first' }]);
  await db('filling').insert({ n: 2, body: 'after' });
  expect(await db('filling').where({ n: 2 })).toEqual([{ n: 2, body: 'after' }]);
  await db.destroy();
  await engine.close();
});
