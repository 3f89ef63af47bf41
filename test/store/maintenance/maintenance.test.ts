import { afterEach, describe, expect, it } from 'vitest';
import type { Database } from '../../../src/store/database.js';
import { deleteOldEvents } from '../../../src/store/history/audit.js';
import { compactHistory, oldestKept } from '../../../src/store/history/compaction.js';
import { runMaintenance } from '../../../src/store/maintenance/maintenance.js';
import { deleteExpiredWatchers } from '../../../src/store/watchers.js';
import { deleteExpiredResponses } from '../../../src/store/write/idempotency.js';
import { startPostgres } from '../../support/postgres.js';
import { openStore, type TestStore } from '../../support/store.js';

const HOUR = 3_600_000;
const ROWS = 12;

const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

async function open(engine: 'embedded' | 'postgres'): Promise<TestStore> {
  const postgres = engine === 'postgres' ? await startPostgres() : undefined;
  if (postgres) closing.push(() => postgres.stop());
  const url = await postgres?.createDatabase('migrated');
  const opened = await openStore({ url, pollIntervalMs: HOUR });
  closing.push(() => opened.close());
  return opened;
}

/** Inserts expired rows and one that is not expired into each table that the maintenance deletes from. */
async function insertRows({ knex }: Database): Promise<void> {
  const ages = [...Array.from({ length: ROWS }, () => 48), 0];
  const time = (hours: number) => knex.raw(`now() - ? * interval '1 hour'`, [hours]);
  const bytes = Buffer.from('x');
  await knex('idempotent_answers').insert(
    ages.map((hours, at) => ({
      caller: 'a',
      method: 'm',
      request_id: `00000000-0000-4000-8000-${String(at).padStart(12, '0')}`,
      body_hash: bytes,
      response: bytes,
      revision: 0,
      created_at: time(hours),
    })),
  );
  const event = { kind: 'AUDIT_EVENT_KIND_TOKEN_USE', actor: 'a', method: '', provider: '', outcome: 'used' };
  await knex('audit_events').insert(ages.map((hours) => ({ ...event, created_at: time(hours) })));
  await knex('watchers').insert(
    ages.map((hours, at) => ({
      client_id: `00000000-0000-4000-8000-${String(at).padStart(12, '0')}`,
      stream_id: `00000000-0000-4000-9000-${String(at).padStart(12, '0')}`,
      client_name: 'a',
      client_version: '',
      replica: 'r',
      agents: null,
      sent_revision: 0,
      applied_revision: null,
      catching_up: false,
      connected_at: time(hours),
      last_seen_at: time(hours),
    })),
  );
}

const countRows = async ({ knex }: Database) =>
  Promise.all(
    ['idempotent_answers', 'audit_events', 'watchers'].map(async (table) => (await knex(table).select('*')).length),
  );

/** Inserts entries of a deleted row into the log, one per revision, all of them old. */
async function insertLog({ knex }: Database, revisions: number): Promise<void> {
  await knex('config_revisions').insert(
    Array.from({ length: revisions }, (_, at) => ({
      revision: at + 1,
      position: 0,
      nonce: '00000000-0000-4000-8000-000000000000',
      entity: 'provider',
      entity_id: 1,
      action: 'delete',
      before: '{}',
      actor: 'a',
      method: 'm',
      created_at: knex.raw(`now() - interval '2 days'`),
    })),
  );
  await knex('store_state').update({ revision: revisions });
}

/** The DELETE statements from now on. */
function recordDeletes({ knex }: Database): string[] {
  const deletes: string[] = [];
  knex.on('query', ({ sql }: { sql: string }) => {
    if (/^delete/.test(sql)) deletes.push(sql);
  });
  return deletes;
}

describe.each(['embedded', 'postgres'] as const)('the maintenance on %s', (engine) => {
  it('deletes expired rows in batches and keeps the others', async () => {
    const { database } = await open(engine);
    const { knex } = database;
    await insertRows(database);
    const deletes = recordDeletes(database);
    await deleteExpiredResponses(knex, { rowsAtOnce: 5 });
    await deleteOldEvents(knex, HOUR, { rowsAtOnce: 5 });
    await deleteExpiredWatchers(knex, { rowsAtOnce: 5 });
    expect(await countRows(database)).toEqual([1, 1, 1]);
    // 5, 5 and 2 rows of each table.
    expect(deletes).toHaveLength(9);
  });

  it('runs every step and reports all errors when some steps fail', async () => {
    const { database, store } = await open(engine);
    await insertRows(database);
    await database.knex.raw('alter table idempotent_answers rename to other_name');
    const error = await runMaintenance(store, { historyMs: HOUR, usageMs: Number.POSITIVE_INFINITY }).catch(
      (reason: unknown) => reason,
    );
    await database.knex.raw('alter table other_name rename to idempotent_answers');
    expect(error).toBeInstanceOf(AggregateError);
    expect((error as AggregateError).errors.map(String)).toEqual([
      'Error: the maintenance could not delete expired responses',
    ]);
    expect(await countRows(database)).toEqual([ROWS + 1, 1, 1]);
  });

  it('ends after the current statement when its signal aborts, and the next one continues', async () => {
    const { database, store } = await open(engine);
    await insertLog(database, 10);
    const closing = new AbortController();
    database.knex.on('query', ({ sql }: { sql: string }) => {
      if (/^delete/.test(sql)) closing.abort();
    });
    const { signal } = closing;
    await compactHistory(store, HOUR, { rowsAtOnce: 2, signal });
    const rest = async () => (await database.knex('config_revisions').select('revision')).length;
    expect([await oldestKept(database.knex), await rest()]).toEqual([10, 8]);
    await insertRows(database);
    const before = await countRows(database);
    await runMaintenance(store, { historyMs: HOUR, usageMs: Number.POSITIVE_INFINITY }, signal);
    expect([await countRows(database), await rest()]).toEqual([before, 8]);
    await runMaintenance(store, { historyMs: HOUR, usageMs: Number.POSITIVE_INFINITY });
    expect([await countRows(database), await rest()]).toEqual([[1, 1, 1], 1]);
  });
});

describe('the maintenance', () => {
  it('vacuums and analyzes every table of the embedded engine', async () => {
    const { database, store } = await open('embedded');
    await insertRows(database);
    const notAnalyzed = () =>
      database
        .knex('pg_class')
        .whereIn('relname', ['watchers', 'audit_events'])
        .where('reltuples', '<', 0)
        .pluck('relname');
    expect(await notAnalyzed()).toHaveLength(2);
    await runMaintenance(store, { historyMs: HOUR, usageMs: Number.POSITIVE_INFINITY });
    expect(await notAnalyzed()).toEqual([]);
  });

  it('lets other statements run between the vacuums of two tables', async () => {
    const { database } = await open('embedded');
    const events: string[] = [];
    const vacuuming = database.vacuum?.().then(() => events.push('vacuum'));
    // Each read waits for the connection, after the vacuum that has requested it first.
    for (let reads = 0; reads < 5; reads++) {
      await database.knex.raw('select 1');
      events.push('read');
    }
    await vacuuming;
    expect(events).toEqual(['read', 'read', 'read', 'read', 'read', 'vacuum']);
  });

  it('vacuums no further table after its signal aborts', async () => {
    const { database } = await open('embedded');
    await insertRows(database);
    const closing = new AbortController();
    const vacuuming = database.vacuum?.(closing.signal);
    closing.abort();
    await vacuuming;
    const analyzed = await database.knex('pg_class').where({ relname: 'watchers' }).where('reltuples', '>=', 0);
    expect(analyzed).toEqual([]);
  });
});
