import { expect, test } from 'vitest';
import { openEngine } from '../../../src/store/embedded/engine.js';
import { measureLoopLag } from '../../support/processor.js';
import { connectClient, openMemoryEngine, useDirectory, useKnex } from './support.js';

/** Much longer than a busy machine may delay the thread of an engine that responds. */
const UNRESPONSIVE_MS = 2_000;
const SPIN = 'DO $$ BEGIN LOOP END LOOP; END $$';

test('an unresponsive engine is terminated and its directory reopened with every acknowledged row', async () => {
  const engine = await openEngine({ dataDir: useDirectory(), unresponsiveAfterMs: UNRESPONSIVE_MS });
  const db = useKnex(engine);
  await db.raw('CREATE TABLE kept (n int)');
  await db.raw('INSERT INTO kept VALUES (1)');
  const lag = measureLoopLag();
  const startedAt = performance.now();
  const unresponsive = db.raw(SPIN);
  const queued = db.raw('SELECT count(*)::int AS n FROM kept');
  await expect(unresponsive).rejects.toMatchObject({
    code: 'ECONNRESET',
    message: expect.stringContaining('Connection terminated'),
  });
  const endedAfter = performance.now() - startedAt;
  expect((await queued).rows).toEqual([{ n: 1 }]);
  const servedAfter = performance.now() - startedAt;
  const longestLag = lag();
  console.log({
    endedAfter: Math.round(endedAfter),
    servedAfter: Math.round(servedAfter),
    longestLag: Math.round(longestLag),
  });
  expect(endedAfter).toBeGreaterThan(UNRESPONSIVE_MS * 0.9);
  // An event loop that waits for the engine is blocked until the engine is terminated.
  expect(longestLag).toBeLessThan(UNRESPONSIVE_MS / 4);
  await db.destroy();
  await engine.close();
});

test('an unresponsive engine keeps no row of the open transaction when it is terminated', async () => {
  const engine = await openEngine({ dataDir: useDirectory(), unresponsiveAfterMs: UNRESPONSIVE_MS });
  const db = useKnex(engine);
  await db.raw('CREATE TABLE kept (n int)');
  const unresponsive = db.transaction(async (transaction) => {
    await transaction('kept').insert({ n: 1 });
    await transaction.raw(SPIN);
  });
  // Knex reports the failed ROLLBACK, without a code, instead of the first error.
  await expect(unresponsive).rejects.toThrow(/not queryable|Connection terminated/);
  expect(await db('kept')).toEqual([]);
  await db.destroy();
  await engine.close();
});

test('a vacuum may take longer than a statement', async () => {
  const dataDir = useDirectory();
  const engine = await openEngine({ dataDir });
  const client = await connectClient(engine);
  await client.query(`CREATE TABLE "a Table" (n int)`);
  await client.query('INSERT INTO "a Table" VALUES (1)');
  // ANALYZE computes the expression of an index for each sampled row.
  await client.query(`CREATE FUNCTION slow(n int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_catalog.pg_sleep(1); RETURN n; END $$`);
  await client.query('CREATE INDEX ON "a Table" (slow(n))');
  await client.end();
  await engine.close();

  const strict = await openEngine({ dataDir, unresponsiveAfterMs: 500 });
  await expect(strict.vacuum('missing')).rejects.toThrow('relation "missing" does not exist');
  await strict.vacuum('"a Table"');
  const after = await connectClient(strict);
  const { rows } = await after.query(`SELECT reltuples FROM pg_class WHERE relname = 'a Table'`);
  expect(rows).toEqual([{ reltuples: 1 }]);
  await expect(after.query('VACUUM (ANALYZE) "a Table"')).rejects.toMatchObject({ code: 'ECONNRESET' });
  await strict.close();
});

test('a backend that exits causes ECONNRESET and does not block the client', async () => {
  const engine = await openEngine({ dataDir: useDirectory() });
  const db = useKnex(engine);
  await db.raw('CREATE TABLE kept (n int)');
  // PGlite does not support COPY FROM STDIN: the backend exits.
  await expect(db.raw('COPY kept FROM STDIN')).rejects.toMatchObject({ code: 'ECONNRESET' });
  expect(await db('kept')).toEqual([]);
  await db.destroy();
  await engine.close();
});

test('an engine is not terminated as unresponsive while a long result is being sent', async () => {
  const engine = await openMemoryEngine({ unresponsiveAfterMs: UNRESPONSIVE_MS });
  const client = await connectClient(engine);
  const { rows } = await client.query(
    'SELECT n, pg_sleep(0.0008), repeat(md5(n::text), 300) AS body FROM generate_series(1, 5000) AS n',
  );
  expect(rows.length).toBe(5_000);
  await client.end();
  await engine.close();
});

test('an in-memory engine rejects connections after it was terminated instead of reopening empty', async () => {
  const engine = await openMemoryEngine({ unresponsiveAfterMs: UNRESPONSIVE_MS });
  const client = await connectClient(engine);
  await expect(client.query(SPIN)).rejects.toMatchObject({ code: 'ECONNRESET' });
  await expect(connectClient(engine)).rejects.toThrow('in memory only');
  await engine.close();
});

test('close waits for the statement in progress and disconnects idle and waiting clients', async () => {
  const dataDir = useDirectory();
  const engine = await openEngine({ dataDir });
  const client = await connectClient(engine);
  await client.query('CREATE TABLE slow (n int)');
  const inFlight = client.query('INSERT INTO slow SELECT 1 FROM pg_sleep(0.3)');
  const waiting = connectClient(engine).catch((error: Error) => error.message);
  const closed = engine.close();
  expect((await inFlight).rowCount).toBe(1);
  await closed;
  expect(await waiting).toMatch(/Connection terminated/);
  await expect(connectClient(engine)).rejects.toThrow('closed');

  const reopened = await openEngine({ dataDir });
  const db = useKnex(reopened);
  expect(await db('slow')).toEqual([{ n: 1 }]);
  await db.destroy();
  await reopened.close();
});

test('close of an unresponsive engine completes when the watchdog terminates it', async () => {
  const engine = await openMemoryEngine({ unresponsiveAfterMs: UNRESPONSIVE_MS });
  const client = await connectClient(engine);
  const unresponsive = client.query(SPIN).catch((error: Error) => error.message);
  await engine.close();
  expect(await unresponsive).toMatch(/Connection terminated/);
});
