import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { migrations } from '../../migrations/index.js';
import { agentllm, type RunningCommand, startCommand, useDirectories } from '../support/command.js';
import { CONCURRENT_INDEX, MIGRATIONS_WITH_CONCURRENT_INDEX } from '../support/concurrent_index.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connect } from '../support/service.js';
import { withClient } from '../support/sql.js';
import { readImage } from './history.js';

vi.setConfig({ testTimeout: 120_000 });
const PROCESSES = 8;
const NAMES = migrations.map(({ name }) => name);

let postgres: TestPostgres;
const directory = useDirectories();

beforeAll(async () => {
  postgres = await startPostgres({ own: true });
});

afterAll(async () => {
  await postgres.stop();
});

async function query<Row>(url: string, sql: string): Promise<Row[]> {
  const { rows } = await withClient(url, (client) => client.query(sql));
  return rows as Row[];
}

const appliedIn = async (url: string) =>
  (await query<{ name: string }>(url, 'select name from knex_migrations order by id')).map(({ name }) => name);

/** Starts PROCESSES processes at once, kills every third after a random time, and waits until the others are ready. */
async function startTogether(DATABASE_URL: string): Promise<RunningCommand[]> {
  const all = Array.from({ length: PROCESSES }, () => agentllm(['serve'], { DATABASE_URL, LOG_LEVEL: 'warn' }));
  const killed = all.filter((_, index) => index % 3 === 0);
  const survivors = all.filter((_, index) => index % 3 !== 0);
  await Promise.all(
    killed.map(async ({ child, ended }) => {
      // Most processes connect, migrate and seed in this time.
      await sleep(1_000 + Math.random() * 3_000);
      child.kill('SIGKILL');
      await ended;
    }),
  );
  await Promise.all(survivors.map(({ untilOutput }) => untilOutput(/is ready/)));
  return survivors;
}

async function stopAll(commands: readonly RunningCommand[]): Promise<void> {
  for (const { child } of commands) child.kill('SIGTERM');
  expect((await Promise.all(commands.map(({ ended }) => ended))).map(({ code }) => code)).toEqual(
    commands.map(() => 0),
  );
}

async function expectComplete(url: string): Promise<void> {
  expect(await appliedIn(url)).toEqual(NAMES);
  expect(await query(url, 'select is_locked from knex_migrations_lock')).toEqual([{ is_locked: 0 }]);
  expect(await query(url, `select from pg_locks where locktype = 'advisory'`)).toEqual([]);
  const seeded = await query(url, 'select count(*)::int as n from agent_llm_configs group by agent_id');
  expect(seeded).toEqual(Array.from({ length: 12 }, () => ({ n: 1 })));
  const image = await readImage({ url });
  expect([image.faults, image.head]).toEqual([[], 3]);
}

describe('replicas that start simultaneously, of which some are killed', () => {
  it('initialize an empty database, apply each migration once and seed each agent once', async () => {
    const url = await postgres.createDatabase();
    const first = await startTogether(url);
    await stopAll(first);
    await expectComplete(url);
  });

  it('apply one pending migration once', async () => {
    const url = await postgres.createDatabase();
    await stopAll([await startCommand({ DATABASE_URL: url })]);
    expect((await agentllm(['migrate', 'down'], { DATABASE_URL: url }).ended).code).toBe(0);
    expect(await appliedIn(url)).toEqual(NAMES.slice(0, -1));
    await stopAll(await startTogether(url));
    expect(await appliedIn(url)).toEqual(NAMES);
    expect((await readImage({ url })).faults).toEqual([]);
  });

  it('apply a migration that runs without a transaction', async () => {
    const url = await postgres.createDatabase();
    expect((await agentllm(['migrate', 'up'], { DATABASE_URL: url }).ended).code).toBe(0);
    const script = fileURLToPath(new URL('./migrator_process.ts', import.meta.url));
    const all = Array.from({ length: PROCESSES }, () =>
      spawn(process.execPath, ['--import', 'tsx', script, url], { stdio: ['ignore', 'ignore', 'inherit'] }),
    );
    const ends = all.map(async (child) => (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]);
    for (const child of all.filter((_, index) => index % 3 === 0)) {
      await sleep(300 + Math.random() * 700);
      child.kill('SIGKILL');
    }
    const survivors = (await Promise.all(ends)).filter((_, index) => index % 3 !== 0);
    expect(survivors.map(([code]) => code)).toEqual(survivors.map(() => 0));
    expect(await appliedIn(url)).toEqual(MIGRATIONS_WITH_CONCURRENT_INDEX.map(({ name }) => name));
    const index = `select i.indisvalid as valid from pg_index i join pg_class c on c.oid = i.indexrelid
                   where c.relname = 'ix_test_concurrent'`;
    expect(await query(url, index)).toEqual([{ valid: true }]);
    expect(CONCURRENT_INDEX.config).toEqual({ transaction: false });
  });
});

describe('a program that is older than the schema', () => {
  const FUTURE = '9999_from_the_future';

  async function expectRejected(env: Readonly<Record<string, string>>): Promise<void> {
    for (const MIGRATE_ON_START of ['on', 'off']) {
      const { code, stderr } = await agentllm(['serve'], { ...env, MIGRATE_ON_START }).ended;
      expect(code).toBe(1);
      expect(stderr).toContain('newer than this program');
      expect(stderr).toContain(FUTURE);
      expect(stderr).not.toContain('    at ');
    }
    for (const args of [['seed'], ['migrate', 'up'], ['migrate', 'down']]) {
      const { code, stderr } = await agentllm(args, env).ended;
      expect([args, code]).toEqual([args, 1]);
      expect(stderr).toContain(FUTURE);
    }
    const status = await agentllm(['migrate', 'status', '--json'], env).ended;
    expect(JSON.parse(status.stdout)).toMatchObject({ unknown: [FUTURE] });
  }

  it('does not start on PostgreSQL, reports why and leaves the database unchanged', async () => {
    const url = await postgres.createDatabase();
    await stopAll([await startCommand({ DATABASE_URL: url })]);
    await query(url, `insert into knex_migrations (name, batch, migration_time) values ('${FUTURE}', 99, now())`);
    const before = await readImage({ url });
    await expectRejected({ DATABASE_URL: url });
    expect(await readImage({ url })).toEqual(before);
    expect(await appliedIn(url)).toEqual([...NAMES, FUTURE]);
    // The program starts again when the migration is no longer recorded.
    await query(url, `delete from knex_migrations where name = '${FUTURE}'`);
    await stopAll([await startCommand({ DATABASE_URL: url })]);
  });

  it('does not start on the embedded engine, and releases the directory', async () => {
    const dataDir = await directory();
    await stopAll([await startCommand({ DATA_DIR: dataDir })]);
    await sql(dataDir, `insert into knex_migrations (name, batch, migration_time) values ('${FUTURE}', 99, now())`);
    await expectRejected({ DATA_DIR: dataDir });
    await sql(dataDir, `delete from knex_migrations where name = '${FUTURE}'`);
    const again = await startCommand({ DATA_DIR: dataDir });
    const clients = connect(again.port);
    expect((await clients.agents.listAgents({})).agents).toHaveLength(12);
    clients.close();
    await stopAll([again]);
  });
});

async function sql(dataDir: string, statement: string): Promise<void> {
  const { openDatabase } = await import('../../src/store/database.js');
  const database = await openDatabase({
    url: undefined,
    dataDir,
    poolSize: 1,
    acquireTimeoutMs: 10_000,
    notify: false,
  });
  await database.knex.raw(statement);
  await database.close();
}
