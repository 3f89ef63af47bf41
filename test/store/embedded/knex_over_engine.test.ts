import knex, { type Knex } from 'knex';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Engine } from '../../../src/store/embedded/engine.js';
import { connectClient, openKnex, openMemoryEngine } from './support.js';

let engine: Engine;
let db: Knex;

beforeAll(async () => {
  engine = await openMemoryEngine();
  db = openKnex(engine);
});

afterAll(async () => {
  await db?.destroy();
  await engine?.close();
});

test('column values have the same types as from a PostgreSQL server', async () => {
  await db.raw(
    'CREATE TABLE things (id int8 PRIMARY KEY, at timestamptz, doc jsonb, raw bytea, price numeric(20,10), tags text[])',
  );
  const at = new Date('2026-02-03T04:05:06.789Z');
  const raw = Buffer.from([0, 1, 255, 92]);
  await db('things').insert({
    id: '9007199254740993',
    at,
    doc: JSON.stringify({ a: [1, 'ü', null] }),
    raw,
    price: '0.1',
    tags: ['a', 'b c'],
  });
  expect(await db('things').first()).toEqual({
    id: '9007199254740993',
    at,
    doc: { a: [1, 'ü', null] },
    raw,
    price: '0.1000000000',
    tags: ['a', 'b c'],
  });
});

test('errors have their SQLSTATE and the session stays usable', async () => {
  await db.raw('CREATE TABLE only_once (id int PRIMARY KEY)');
  await db('only_once').insert({ id: 1 });
  await expect(db('only_once').insert({ id: 1 })).rejects.toMatchObject({ code: '23505', table: 'only_once' });
  await expect(db.raw('SELECT 1 / 0')).rejects.toMatchObject({ code: '22012' });
  await expect(db.raw('SELEC')).rejects.toMatchObject({ code: '42601' });
  await expect(db.raw('SELECT ?::int', ['x'])).rejects.toMatchObject({ code: '22P02' });
  expect((await db.raw('SELECT 2 AS two')).rows).toEqual([{ two: 2 }]);
});

test('transactions commit, roll back and nest as savepoints', async () => {
  await db.raw('CREATE TABLE counted (n int)');
  await db.transaction(async (transaction) => {
    await transaction('counted').insert({ n: 1 });
    await transaction.transaction((inner) => inner.raw('SELECT 1 / 0')).catch(() => undefined);
    await transaction('counted').insert({ n: 2 });
  });
  await expect(
    db.transaction(async (transaction) => {
      await transaction('counted').insert({ n: 3 });
      throw new Error('changed my mind');
    }),
  ).rejects.toThrow('changed my mind');
  expect(await db('counted').pluck('n').orderBy('n')).toEqual([1, 2]);
});

test('a statement after an error in a transaction is rejected with 25P02', async () => {
  const transaction = await db.transaction();
  await expect(transaction.raw('SELECT 1 / 0')).rejects.toMatchObject({ code: '22012' });
  await expect(transaction.raw('SELECT 1')).rejects.toMatchObject({ code: '25P02' });
  await transaction.rollback();
});

test('queries that start at the same time are executed one after the other', async () => {
  const results = await Promise.all(Array.from({ length: 200 }, (_, n) => db.raw('SELECT ?::int AS n', [n])));
  expect(results.map(({ rows }) => rows[0].n)).toEqual(Array.from({ length: 200 }, (_, n) => n));
});

test('a row of 5 MB and 20,000 rows are stored and returned', async () => {
  const large = 'é'.repeat(2_500_000);
  await db.raw('CREATE TABLE large_rows (id int, body text)');
  await db('large_rows').insert({ id: 1, body: large });
  expect((await db('large_rows').first()).body === large).toBe(true);
  const { rows } = await db.raw('SELECT n, repeat(md5(n::text), 32) AS body FROM generate_series(1, 20000) AS n');
  expect([rows.length, rows[19_999].n, rows[19_999].body.length]).toEqual([20_000, 20_000, 1_024]);
});

test('a Knex migration is applied and rolled back', async () => {
  const migration = {
    name: '001_first',
    up: (k: Knex) => k.schema.createTable('migrated', (t) => t.increments()),
    down: (k: Knex) => k.schema.dropTable('migrated'),
  };
  const migrationSource = {
    getMigrations: () => Promise.resolve([migration]),
    getMigrationName: ({ name }: typeof migration) => name,
    getMigration: (found: typeof migration) => Promise.resolve(found),
  };
  await db.migrate.latest({ migrationSource });
  expect(await db.schema.hasTable('migrated')).toBe(true);
  await db.migrate.rollback({ migrationSource });
  expect(await db.schema.hasTable('migrated')).toBe(false);
});

test('input nested deeper than the stack allows is rejected with 54001 and the session stays usable', async () => {
  const nested = (depth: number) =>
    db.raw(`SELECT length((repeat('[', ${depth}) || repeat(']', ${depth}))::jsonb::text) AS l`);
  expect((await nested(10_000)).rows).toEqual([{ l: 20_000 }]);
  await expect(nested(500_000)).rejects.toMatchObject({ code: '54001' });
  await expect(db.raw(`SELECT ${Array(20_000).fill('1').join('+')}`)).rejects.toMatchObject({ code: '54001' });
  await expect(db.raw('SELECT 1 / 0')).rejects.toMatchObject({ code: '22012' });
  expect((await db.raw('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
});

describe('the next client', () => {
  test('sees no settings, locks or uncommitted rows of the previous session', async () => {
    await db.destroy();
    const first = await connectClient(engine);
    await first.query({ name: 'kept', text: 'SELECT $1::int AS n', values: [1] });
    await first.query("SET search_path = pg_catalog; SET statement_timeout = 5000; SET TIME ZONE 'Asia/Tokyo'");
    await first.query('CREATE TEMP TABLE scratch (n int); SELECT pg_advisory_lock(7); LISTEN something');
    await first.query('CREATE TABLE public.never (n int)');
    await first.query('BEGIN; INSERT INTO public.never VALUES (1)');
    await first.end();

    const second = await connectClient(engine);
    expect((await second.query('SELECT * FROM never')).rows).toEqual([]);
    const settings =
      "SELECT current_setting('search_path') AS path, current_setting('statement_timeout') AS timeout, current_setting('TimeZone') AS zone";
    expect((await second.query(settings)).rows).toEqual([
      { path: 'public', timeout: '0', zone: expect.stringMatching(/^(UTC|GMT|Etc\/UTC)$/) },
    ]);
    const left =
      "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE name = 'kept')::int + (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')::int + (SELECT count(*) FROM pg_class WHERE relname = 'scratch')::int AS n";
    expect((await second.query(left)).rows).toEqual([{ n: 0 }]);
    expect((await second.query({ name: 'kept', text: 'SELECT $1::text AS t', values: ['own'] })).rows).toEqual([
      { t: 'own' },
    ]);
    await second.end();
    db = openKnex(engine);
  });

  test('sees no rows of a client that disconnected during a statement in a transaction', async () => {
    await db.destroy();
    const stream = engine.connect();
    const disconnecting = await connectClient({ ...engine, connect: () => stream } as Engine);
    await disconnecting.query('CREATE TABLE vanished (n int)');
    await disconnecting.query('BEGIN');
    await disconnecting.query('INSERT INTO vanished VALUES (1)');
    const unfinished = disconnecting
      .query('INSERT INTO vanished SELECT n FROM generate_series(1, 200000) AS n')
      .catch((error: Error) => error.message);
    stream.destroy();
    expect(await unfinished).toMatch(/Connection terminated/);
    const next = await connectClient(engine);
    expect((await next.query('SELECT count(*)::int AS n FROM vanished')).rows).toEqual([{ n: 0 }]);
    await next.end();
    db = openKnex(engine);
  });

  test('is served in each of 200 sessions in sequence', async () => {
    await db.destroy();
    for (let n = 0; n < 200; n++) {
      const client = await connectClient(engine);
      expect((await client.query('SELECT $1::int AS n', [n])).rows).toEqual([{ n }]);
      await client.end();
    }
    db = openKnex(engine);
  });

  test('waits until the previous client has ended', async () => {
    await db.destroy();
    const first = await connectClient(engine);
    let served = false;
    const second = connectClient(engine).then((client) => {
      served = true;
      return client;
    });
    await first.query('SELECT pg_sleep(0.1)');
    expect(served).toBe(false);
    await first.end();
    await (await second).end();
    db = openKnex(engine);
  });
});

test('a client gets ECONNRESET when it is not served in time', async () => {
  const engineWithTimeout = await openMemoryEngine({ connectWithinMs: 2_000 });
  const first = await connectClient(engineWithTimeout);
  await expect(connectClient(engineWithTimeout)).rejects.toMatchObject({
    code: 'ECONNRESET',
    message: expect.stringContaining('one at a time'),
  });
  await first.end();
  await (await connectClient(engineWithTimeout)).end();
  await engineWithTimeout.close();
});

test('Knex keeps the stream function when it copies its settings from an object or a function', async () => {
  const otherEngine = await openMemoryEngine();
  const asObject = openKnex(otherEngine);
  expect((await asObject.raw('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  await asObject.destroy();
  const connection = () => Promise.resolve({ stream: () => otherEngine.connect() } as Knex.PgConnectionConfig);
  const asFunction = knex({ client: 'pg', connection, pool: { min: 0, max: 1 } });
  expect((await asFunction.raw('SELECT 2 AS two')).rows).toEqual([{ two: 2 }]);
  await asFunction.destroy();
  await otherEngine.close();
});

test('a dump opens as a copy of the database', async () => {
  await db.raw('CREATE TABLE copied (n int)');
  await db.raw('INSERT INTO copied VALUES (42)');
  const copy = await openMemoryEngine({ loadDump: await engine.dump() });
  const client = await connectClient(copy);
  expect((await client.query('SELECT n FROM copied')).rows).toEqual([{ n: 42 }]);
  await client.end();
  await copy.close();
});
