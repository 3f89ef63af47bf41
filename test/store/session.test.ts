import type { Knex } from 'knex';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { type Database, openDatabase } from '../../src/store/database.js';
import { prepared } from '../../src/store/session.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { startBackend } from '../support/store.js';

let postgres: TestPostgres;
let database: Database;

beforeAll(async () => {
  postgres = await startPostgres();
  database = await openDatabase({
    url: await postgres.createDatabase(),
    dataDir: '',
    poolSize: 1,
    acquireTimeoutMs: 10_000,
  });
});

afterAll(async () => {
  await database?.close();
  await postgres?.stop();
});

/** The statements that the only connection of a pool has prepared. */
async function preparedIn(knex: Knex): Promise<string[]> {
  const rows: { statement: string }[] = await knex('pg_prepared_statements').select('statement');
  return rows.map(({ statement }) => statement);
}

describe('a statement of a direct connection', () => {
  it('is prepared once when it is marked', async () => {
    const { knex } = database;
    for (const value of [1, 2, 3]) {
      const { rows } = await prepared(knex.raw('select ?::int as marked', [value]));
      expect(rows).toEqual([{ marked: value }]);
    }
    expect((await preparedIn(knex)).filter((one) => one.includes('marked'))).toEqual(['select $1::int as marked']);
  });

  it('is not prepared when it is not marked', async () => {
    const { knex } = database;
    await knex.raw('select ?::int as unmarked', [1]);
    expect((await preparedIn(knex)).filter((one) => one.includes('unmarked'))).toEqual([]);
  });

  it('is not prepared when it is long, because each number of rows is a statement of its own', async () => {
    const { knex } = database;
    const long = knex.raw(`select ?::int as long_one ${' '.repeat(4_000)}`, [1]);
    expect((await prepared(long)).rows).toEqual([{ long_one: 1 }]);
    expect((await preparedIn(knex)).filter((one) => one.includes('long_one'))).toEqual([]);
  });

  it('is executed again after the table was changed', async () => {
    const { knex } = database;
    await knex.schema.createTable('changing', (table) => table.integer('id'));
    const insert = () => prepared(knex('changing').insert({ id: 1 }).returning('id'));
    await insert();
    await knex.schema.alterTable('changing', (table) => table.text('added').defaultTo('x'));
    expect(await insert()).toEqual([{ id: 1 }]);
    expect(await knex('changing').select('added')).toEqual([{ added: 'x' }, { added: 'x' }]);
  });
});

describe('the statements of a write', () => {
  it('are prepared', async () => {
    const backend = await startBackend({ url: await postgres.createDatabase('seeded') });
    onTestFinished(() => backend.close());
    await backend.agents.createAgent({ agent: { name: 'prepared', agent_type: 'analyst' } });
    const statements = await preparedIn(backend.store.database.knex);
    for (const part of ['update store_state', 'insert into "agent_configs"', 'insert into "config_revisions"'])
      expect(
        statements.filter((one) => one.includes(part)),
        part,
      ).toHaveLength(1);
  });
});
