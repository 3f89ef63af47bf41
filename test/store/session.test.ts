import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { type Database, openDatabase } from '../../src/store/database.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connectPg } from '../support/sql.js';

/*
 * A direct connection keeps its settings. The same settings behind PgBouncer, and every setting that a role may change,
 * are in test/faults/session_settings.test.ts.
 */

const OPTIONS = '-c DateStyle=German -c default_transaction_isolation=serializable -c extra_float_digits=-10';

describe('a direct connection', () => {
  let postgres: TestPostgres;
  let database: Database;

  beforeAll(async () => {
    postgres = await startPostgres();
    const url = `${await postgres.createDatabase()}?options=${encodeURIComponent(OPTIONS)}`;
    database = await openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: '' });
  });
  afterAll(async () => {
    await database?.close();
    await postgres?.stop();
  });

  const read = async (db: Database['knex']) => {
    const { rows } = await db.raw(
      `select current_setting('DateStyle') as style, current_setting('transaction_isolation') as isolation,
              0.123456789012345::float8::text as number`,
    );
    return rows[0];
  };
  const expected = { style: 'ISO, MDY', isolation: 'read committed', number: '0.123456789012345' };

  it('replaces the settings of the role when it is opened, and sends none with a statement', async () => {
    expect(await read(database.knex)).toEqual(expected);
    const statements: string[] = [];
    const connection = await database.knex.client.acquireConnection();
    const { query } = connection;
    connection.query = (...args: [unknown]) => {
      statements.push(typeof args[0] === 'string' ? args[0] : (args[0] as { text: string }).text);
      return query.apply(connection, args);
    };
    await database.knex.client.releaseConnection(connection);
    await database.knex.raw('select 1');
    await database.knex.transaction(async (tx) => void (await tx.raw('select 2')));
    expect(statements).toEqual(['select 1', 'begin isolation level read committed', 'select 2', 'COMMIT;']);
  });

  it('has the same settings in a transaction and after one that failed', async () => {
    expect(await database.knex.transaction((tx) => read(tx))).toEqual(expected);
    await expect(database.knex.transaction((tx) => tx.raw('select 1 / 0'))).rejects.toThrow(/division by zero/);
    expect(await read(database.knex)).toEqual(expected);
  });

  it('is closed when a statement that sets it up fails', async () => {
    const observer = await connectPg(await postgres.createDatabase());
    const url = Object.assign(new URL(postgres.url), { pathname: `/${observer.database}` }).href;
    const opened = await openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: '' });
    const { query } = pg.Client.prototype;
    const spy = vi.spyOn(pg.Client.prototype, 'query').mockImplementation(function (
      this: pg.Client,
      ...args: unknown[]
    ) {
      if (String(args[0]).includes('idle_session_timeout')) return Promise.reject(new Error('the set-up failed'));
      return query.apply(this, args as never);
    } as never);
    onTestFinished(() => spy.mockRestore());
    await expect(opened.knex.raw('select 1')).rejects.toThrow('the set-up failed');
    await vi.waitFor(
      async () => {
        const { rows } = await observer.query('select pid from pg_stat_activity where datname = current_database()');
        expect(rows).toHaveLength(1);
      },
      { timeout: 10_000 },
    );
    await observer.end();
    await opened.close();
  });

  it('begins a transaction with the isolation level that is requested', async () => {
    const isolated = await database.knex.transaction((tx) => read(tx), { isolationLevel: 'repeatable read' });
    expect(isolated).toEqual({ ...expected, isolation: 'repeatable read' });
  });
});

describe('the statement timeout', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres?.stop());

  const SLOW = 'select pg_sleep(30)';

  it('cancels a statement when statements are limited, also on a connection that was opened before', async () => {
    const url = await postgres.createDatabase();
    const database = await openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: '' });
    await database.knex.raw('select pg_sleep(0.3)');
    database.limitStatements?.({ statementTimeoutMs: 200, silenceMs: 60_000 });
    await expect(database.knex.raw(SLOW)).rejects.toMatchObject({ code: '57014' });
    await expect(database.knex.transaction((tx) => tx.raw(SLOW))).rejects.toMatchObject({ code: '57014' });
    await database.close();
  });
});
