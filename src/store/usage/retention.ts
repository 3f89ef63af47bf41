import type { Knex } from 'knex';
import { USAGE_PARTITIONS, usagePartition } from '../../../migrations/0020_usage.js';
import { type BatchOptions, deleteInBatches, ROWS_AT_ONCE } from '../batched_delete.js';
import type { Database } from '../database.js';
import { setTimeouts } from '../write/revision_counter.js';
import { raiseHorizon, usageHorizon } from './horizon.js';
import { compactLosses } from './losses.js';

/*
 * Attempts are retained in whole UTC months, because a month is deleted by truncating its partition. The sums are kept
 * permanently. The sums of losses are kept too, so that a report on a past period can state that it is incomplete.
 */

/** The earliest start of attempts that are accepted and that reports can read, in ms since 1970. */
export function oldestAccepted(now: number, retentionMs: number): number {
  if (retentionMs === Number.POSITIVE_INFINITY) return 0;
  const oldest = new Date(Math.max(0, now - retentionMs));
  return Date.UTC(oldest.getUTCFullYear(), oldest.getUTCMonth(), 1);
}

/**
 * The earliest start of attempts that are accepted and have not been deleted under any earlier retention, in ms since
 * 1970.
 */
export const oldestRetained = async (db: Knex, now: number, retentionMs: number): Promise<number> =>
  Math.max(oldestAccepted(now, retentionMs), await usageHorizon(db));

/**
 * A month is deleted this long after the service has stopped accepting its attempts, so that none of them is still
 * being stored.
 */
const SLACK_MS = 3_600_000;

/** Deletes the attempts and adjustments of months whose retention has ended, by the clock of the database. */
export async function deleteOldUsage(
  { database: { knex: db } }: { readonly database: Pick<Database, 'knex'> },
  retentionMs: number,
  options: BatchOptions = {},
): Promise<void> {
  if (retentionMs === Number.POSITIVE_INFINITY) return;
  const { rows } = await db.raw<{ rows: { now: Date }[] }>('select now() as now');
  const oldest = new Date(oldestAccepted((rows[0]?.now.getTime() ?? 0) - SLACK_MS, retentionMs));
  for (let slot = 0; slot < USAGE_PARTITIONS; slot++) await deleteFrom(db, slot, oldest, options);
  await deleteInBatches(db, 'llm_usage_adjustments', ['started_at < ?', [oldest]], options);
  await compactLosses(db, oldest, options);
}

/**
 * Deletes old attempts of a partition. If the retention is longer than a year, the partition can also contain attempts
 * that must be kept.
 */
async function deleteFrom(db: Knex, slot: number, oldest: Date, options: BatchOptions): Promise<void> {
  const { signal, rowsAtOnce = ROWS_AT_ONCE } = options;
  const hasRows = async (comparison: '<' | '>=') => {
    const row = await db('llm_usage_attempts').where({ slot }).where('started_at', comparison, oldest).first('slot');
    return row !== undefined;
  };
  if (signal?.aborted || !(await hasRows('<'))) return;
  // The horizon is raised before the deletion, so that no statement reads or stores attempts that are being deleted.
  await raiseHorizon(db, oldest);
  if (await hasRows('>=')) {
    for (let deleted = rowsAtOnce; deleted === rowsAtOnce && !signal?.aborted; )
      deleted = await deleteBatch(db, slot, oldest, rowsAtOnce);
    return;
  }
  if (!(await deleteIds(db, slot, oldest, options))) return;
  await db.transaction(async (tx) => {
    await setTimeouts(tx);
    await tx.raw('truncate ??', [usagePartition(slot)]);
  });
}

const OLD = 'select started_at, attempt_id from llm_usage_attempts where slot = ? and started_at < ?';
const BATCH = 'order by started_at, attempt_id limit ?';
const IDS = 'delete from llm_usage_attempt_ids as i using old where i.attempt_id = old.attempt_id';

async function deleteBatch(db: Knex, slot: number, oldest: Date, rowsAtOnce: number): Promise<number> {
  const { rowCount } = await db.raw<{ rowCount: number }>(
    `with old as (${OLD} ${BATCH}), ids as (${IDS})
     delete from llm_usage_attempts as a using old
      where a.slot = ? and a.started_at = old.started_at and a.attempt_id = old.attempt_id`,
    [slot, oldest, rowsAtOnce, slot],
  );
  return rowCount;
}

/** Deletes the ids of the attempts of a partition. @returns whether all are deleted. */
async function deleteIds(db: Knex, slot: number, oldest: Date, options: BatchOptions): Promise<boolean> {
  const { signal, rowsAtOnce = ROWS_AT_ONCE } = options;
  let last: { readonly started_at: Date; readonly attempt_id: string } | undefined;
  while (!signal?.aborted) {
    const { rows }: { rows: NonNullable<typeof last>[] } = await db.raw(
      `with old as (${OLD} ${last ? 'and (started_at, attempt_id) > (?, ?::uuid)' : ''} ${BATCH}), ids as (${IDS})
       select started_at, attempt_id from old order by started_at, attempt_id`,
      [slot, oldest, ...(last ? [last.started_at, last.attempt_id] : []), rowsAtOnce],
    );
    if (rows.length < rowsAtOnce) return true;
    last = rows.at(-1);
  }
  return false;
}
