import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startPostgres, type TestPostgres } from '../support/postgres.js';
import { connectPg } from '../support/sql.js';
import { openStore } from '../support/store.js';

describe('the feed', () => {
  let postgres: TestPostgres;
  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(() => postgres.stop());

  it('reports a database that becomes read-only before a write fails, and when it accepts writes again', async () => {
    const url = await postgres.createDatabase('migrated');
    const admin = await connectPg(url);
    const { feed, close } = await openStore({ url, pollIntervalMs: 3_600_000 });
    const reported: boolean[] = [];
    feed.onWritable((writable) => reported.push(writable));
    /** Sets the default of the database; sessions that exist keep the earlier one. */
    const setReadOnly = async (value: 'on' | 'off') => {
      await admin.query(`alter database ${admin.database} set default_transaction_read_only = ${value}`);
      await admin.query(
        'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
      );
    };
    await setReadOnly('on');
    // The first polls may find the connections that were ended.
    for (let polls = 0; polls < 10; polls++) await feed.poll();
    expect(feed.isWritable).toBe(false);
    await setReadOnly('off');
    for (let polls = 0; polls < 10; polls++) await feed.poll();
    expect(feed.isWritable).toBe(true);
    expect([...new Set(reported)]).toEqual([false, true]);
    await admin.end();
    await close();
  });
});
