import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, vi } from 'vitest';
import { type Migration, migrations } from '../../migrations/index.js';
import { migrator } from '../../src/store/maintenance/migrate.js';
import { readCatalogue } from '../support/catalogue.js';
import { CONCURRENT_INDEX, MIGRATIONS_WITH_CONCURRENT_INDEX } from '../support/concurrent_index.js';
import { useMigrators } from '../support/migrators.js';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const NAMES = migrations.map(({ name }) => name);
const { connect, createDatabase, emptyDatabase } = useMigrators();

describe('replicas that start at the same time', () => {
  async function migrateTogether(url: string, replicas: number, list: readonly Migration[]): Promise<string[][]> {
    return await Promise.all(Array.from({ length: replicas }, () => migrator(connect(url), { migrations: list }).up()));
  }

  it('migrate an empty database once, and all 8 succeed', async () => {
    for (let round = 0; round < 3; round += 1) {
      const url = await createDatabase();
      const applied = await migrateTogether(url, 8, migrations);
      expect(applied.flat()).toEqual(NAMES);
      await expectMigratedAndFree(url, NAMES);
    }
  });

  it('apply one pending migration once when 20 start and the migration runs without a transaction', async () => {
    const url = await createDatabase();
    await migrator(connect(url)).up();
    const applied = await migrateTogether(url, 20, MIGRATIONS_WITH_CONCURRENT_INDEX);
    expect(applied.flat()).toEqual([CONCURRENT_INDEX.name]);
    await expectMigratedAndFree(url, [...NAMES, CONCURRENT_INDEX.name]);
  });
});

describe('a process that is killed', () => {
  it.each(MIGRATIONS_WITH_CONCURRENT_INDEX.map(({ name }) => name))(
    'leaves a database that the next start migrates when it was applying %s',
    async (migration) => {
      const url = await createDatabase();
      await killDuring(url, 'up', migration);
      const database = connect(url);
      const list = MIGRATIONS_WITH_CONCURRENT_INDEX;
      await migrator(database, { migrations: list }).up();
      await expectMigratedAndFree(url, [...NAMES, CONCURRENT_INDEX.name]);
    },
  );

  it.each(MIGRATIONS_WITH_CONCURRENT_INDEX.map(({ name }, index) => [name, index] as const))(
    'leaves a database that the next start migrates when it was rolling back %s',
    async (migration, index) => {
      const url = await createDatabase();
      const database = connect(url);
      await migrator(database, { migrations: MIGRATIONS_WITH_CONCURRENT_INDEX.slice(0, index + 1) }).up();
      const before = await readCatalogue(database.knex);
      await killDuring(url, 'down', migration);
      const { down, up } = migrator(database, { migrations: MIGRATIONS_WITH_CONCURRENT_INDEX.slice(0, index + 1) });
      expect(await down()).toBe(migration);
      await up();
      expect(await readCatalogue(database.knex)).toEqual(before);
    },
  );
});

/**
 * Checks that each migration is recorded once, that the lock row and the advisory lock are released, and that the
 * schema equals that of an uninterrupted run.
 */
async function expectMigratedAndFree(url: string, names: readonly string[]): Promise<void> {
  const { knex: database } = connect(url);
  expect((await database('knex_migrations').orderBy('id')).map((row) => row.name)).toEqual(names);
  expect(await database('knex_migrations_lock').select('is_locked')).toEqual([{ is_locked: 0 }]);
  const { rows } = await database.raw<{ rows: unknown[] }>(
    `select from pg_locks where locktype = 'advisory'
     and database = (select oid from pg_database where datname = current_database())`,
  );
  expect(rows).toEqual([]);
  const uninterrupted = await emptyDatabase();
  await migrator(uninterrupted, {
    migrations: MIGRATIONS_WITH_CONCURRENT_INDEX.filter(({ name }) => names.includes(name)),
  }).up();
  expect(await readCatalogue(database)).toEqual(await readCatalogue(uninterrupted.knex));
}

async function killDuring(url: string, direction: 'up' | 'down', migration: string): Promise<void> {
  const script = fileURLToPath(new URL('../support/killed_migrator.ts', import.meta.url));
  const signal = await new Promise((resolve, reject) => {
    execFile(process.execPath, ['--import', 'tsx', script, url, direction, migration], (error, _out, stderr) => {
      if (error?.signal) resolve(error.signal);
      else reject(new Error(`The process was not killed: ${stderr}`));
    });
  });
  expect(signal).toBe('SIGKILL');
}
