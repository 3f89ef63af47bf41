import type { Knex } from 'knex';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { type Database, openDatabase } from '../../src/store/database.js';
import { committing, prepared } from '../../src/store/session.js';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connectPg } from '../support/sql.js';
import { startBackend } from '../support/store.js';

/*
 * A direct connection keeps its settings. The same settings behind PgBouncer, and every setting that a role may change,
 * are in test/faults/session_settings.test.ts.
 */

const OPTIONS = '-c DateStyle=German -c default_transaction_isolation=serializable -c extra_float_digits=-10';

let postgres: TestPostgres;
beforeAll(async () => {
  postgres = await startPostgres();
});
afterAll(() => postgres?.stop());

const openPool = (url: string) => openDatabase({ url, poolSize: 1, acquireTimeoutMs: 5_000, dataDir: '' });

describe('a direct connection', () => {
  let database: Database;

  beforeAll(async () => {
    const url = `${await postgres.createDatabase()}?options=${encodeURIComponent(OPTIONS)}`;
    database = await openPool(url);
  });
  afterAll(() => database?.close());

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

  describe('whose last statements are sent with the commit', () => {
    beforeAll(async () => {
      await database.knex.raw('create table kept (id int primary key, content text)');
    });
    const insert = (tx: Knex, id: number, content: unknown = '') => tx('kept').insert({ id, content });
    const write = (...statements: ((tx: Knex) => Knex.QueryBuilder)[]) =>
      database.knex.transaction(async (tx) => {
        const results = await Promise.allSettled(committing(statements.map((statement) => statement(tx))).statements);
        for (const result of results) if (result.status === 'rejected') throw result.reason;
        return 'written';
      });
    const kept = async () => (await database.knex('kept').orderBy('id').pluck('id')) as number[];

    type Sent = string | { readonly text: string; readonly values: readonly unknown[] };
    type Callback = (error: Error | null) => void;

    /** Passes everything that the only connection of the pool sends to a function, which says whether it is sent. */
    async function watchSent(isSent: (sent: Sent) => boolean): Promise<void> {
      const { client } = database.knex;
      const connection = await client.acquireConnection();
      await client.releaseConnection(connection);
      const { query } = connection;
      connection.query = (sent: Sent, callback: Callback) =>
        isSent(sent) ? query.call(connection, sent, callback) : callback(new Error('it cannot be sent'));
      onTestFinished(() => {
        connection.query = query;
      });
    }

    it('commits all of them, without another commit', async () => {
      const texts: string[] = [];
      await watchSent((sent) => texts.push(typeof sent === 'string' ? sent : sent.text) > 0);
      const result = await write(
        (tx) => insert(tx, 1),
        (tx) => insert(tx, 2),
      );
      expect(texts.filter((text) => /^commit/i.test(text))).toEqual(['COMMIT']);
      expect([result, await kept()]).toEqual(['written', [1, 2]]);
    });

    it('commits none of them when the server rejects the first, one between or the last', async () => {
      for (const failing of [0, 1, 2])
        await expect(
          write(...[0, 1, 2].map((at) => (tx: Knex) => insert(tx, at === failing ? 1 : 10 + at))),
        ).rejects.toMatchObject({ code: '23505' });
      expect(await kept()).toEqual([1, 2]);
      expect(await read(database.knex)).toEqual(expected);
    });

    it('commits none of them when the driver cannot send the first, one between or the last', async () => {
      for (const failing of [20, 21, 22]) {
        await watchSent((sent) => typeof sent === 'string' || !sent.values.includes(failing));
        await expect(write(...[20, 21, 22].map((id) => (tx: Knex) => insert(tx, id)))).rejects.toThrow(
          'cannot be sent',
        );
      }
      expect(await kept()).toEqual([1, 2]);
    });

    /** Runs one statement with the commit, and returns what is known about it afterwards. */
    async function failedTogether(statement: (tx: Knex) => Knex.QueryBuilder) {
      let known = {};
      const running = database.knex.transaction(async (tx) => {
        const { statements, together } = committing([statement(tx)]);
        const [result] = await Promise.allSettled(statements);
        known = { commitSent: together.commitSent, rejected: together.rejected };
        if (result?.status === 'rejected') throw result.reason;
      });
      await expect(running).rejects.toThrow();
      return known;
    }

    it('have a known outcome when the server rejects one, and not when the connection breaks', async () => {
      expect(await failedTogether((tx) => insert(tx, 1))).toEqual({ commitSent: true, rejected: true });
      const connection = await database.knex.client.acquireConnection();
      await database.knex.client.releaseConnection(connection);
      const { query } = connection;
      // The code has five letters, as those of errors of the server have.
      const broken = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
      connection.query = (sent: Sent, callback: Callback) =>
        typeof sent !== 'string' && sent.values.includes(40)
          ? setImmediate(() => callback(broken))
          : query.call(connection, sent, callback);
      onTestFinished(() => {
        connection.query = query;
      });
      expect(await failedTogether((tx) => insert(tx, 40))).toEqual({ commitSent: true, rejected: false });
    });

    it('fails when the commit fails, and keeps nothing', async () => {
      await database.knex.raw(
        'create table later (id int references kept deferrable initially deferred); create index on later (id)',
      );
      const orphan = (tx: Knex) => tx('later').insert({ id: 99 });
      await expect(write((tx) => insert(tx, 30), orphan)).rejects.toMatchObject({ code: '23503' });
      expect(await kept()).toEqual([1, 2]);
      expect(await write((tx) => insert(tx, 3))).toBe('written');
    });
  });

  it('is closed when a statement that sets it up fails', async () => {
    const observer = await connectPg(await postgres.createDatabase());
    const url = Object.assign(new URL(postgres.url), { pathname: `/${observer.database}` }).href;
    const opened = await openPool(url);
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
  const SLOW = 'select pg_sleep(30)';

  it('cancels a statement when statements are limited, also on a connection that was opened before', async () => {
    const url = await postgres.createDatabase();
    const database = await openPool(url);
    await database.knex.raw('select pg_sleep(0.3)');
    database.limitStatements?.({ statementTimeoutMs: 200, silenceMs: 60_000 });
    await expect(database.knex.raw(SLOW)).rejects.toMatchObject({ code: '57014' });
    await expect(database.knex.transaction((tx) => tx.raw(SLOW))).rejects.toMatchObject({ code: '57014' });
    await database.close();
  });
});

/** The statements that the only connection of a pool has prepared. */
async function preparedIn(knex: Knex): Promise<string[]> {
  const rows: { statement: string }[] = await knex('pg_prepared_statements').select('statement');
  return rows.map(({ statement }) => statement);
}

describe('a statement of a direct connection', () => {
  let database: Database;
  beforeAll(async () => {
    database = await openPool(await postgres.createDatabase());
  });
  afterAll(() => database?.close());

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
    // Any connection of the pool may have executed the write; concurrent statements use all of them.
    const { knex } = backend.store.database;
    const perConnection = await Promise.all(Array.from({ length: 20 }, () => preparedIn(knex)));
    const statements = [...new Set(perConnection.flat())];
    for (const part of ['update store_state', 'insert into "agent_configs"', 'insert into "config_revisions"'])
      expect(
        statements.filter((one) => one.includes(part)),
        part,
      ).toHaveLength(1);
  });
});
