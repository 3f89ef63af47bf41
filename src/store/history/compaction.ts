import type { Knex } from 'knex';
import { type BatchOptions, ROWS_AT_ONCE } from '../batched_delete.js';
import type { Database } from '../database.js';

/*
 * Compaction of the log. Of the entries older than HISTORY_RETENTION, only those are kept that are needed to
 * reconstruct every state since. `history_from` is the oldest revision that can be reconstructed. It is advanced before
 * anything is deleted: a reader first reads the log from a revision on and then `history_from`. If `history_from` is
 * not greater than that revision, the reader has read complete revisions.
 */

/** The oldest revision such that the log can reconstruct its state and every later one. */
export async function oldestKept(db: Knex): Promise<number> {
  const [row] = await db('store_state').select('history_from');
  return Math.max(1, row?.history_from ?? 1);
}

/**
 * The oldest revision from which a watch can resume: the first one within the retention, or the head if there is none.
 */
export async function horizonOf(db: Knex, retentionMs: number): Promise<number> {
  const oldest = await oldestKept(db);
  return retentionMs === Number.POSITIVE_INFINITY ? oldest : Math.max(oldest, await firstSince(db, retentionMs));
}

async function firstSince(db: Knex, retentionMs: number): Promise<number> {
  const [first] = await db('config_revisions')
    .select('revision')
    .where('created_at', '>=', db.raw(`now() - ? * interval '1 millisecond'`, [retentionMs]))
    .orderBy(['created_at', 'revision'])
    .limit(1);
  if (first) return first.revision;
  const [head] = await db('store_state').select('revision');
  return head?.revision ?? 0;
}

/**
 * Deletes entries older than the retention, except the newest entry of each row that existed before the horizon. So
 * every state from the horizon on can still be reconstructed, and every revision from there on is complete.
 * @param options.rowsAtOnce rows of one statement; a revision with more rows is one statement, too.
 */
export async function compactHistory(
  { database: { knex: db } }: { readonly database: Database },
  retentionMs: number,
  { signal, rowsAtOnce = ROWS_AT_ONCE }: BatchOptions = {},
): Promise<void> {
  if (retentionMs === Number.POSITIVE_INFINITY) return;
  const horizon = await firstSince(db, retentionMs);
  await db('store_state').where('history_from', '<', horizon).update({ history_from: horizon });
  // Oldest first: the entry of a deletion must not be deleted before the entries of the deleted row.
  for (let from = 0; !signal?.aborted; ) {
    const window: { revision: number }[] = await db('config_revisions')
      .select('revision')
      .where('revision', '>', from)
      .where('revision', '<', horizon)
      .orderBy('revision')
      .limit(rowsAtOnce);
    const last = window.at(-1)?.revision;
    if (last === undefined) return;
    await deleteBetween(db, from, last, horizon);
    from = last;
  }
}

/**
 * Deletes the entries that are not needed to reconstruct the state before the horizon: deletions, and entries that a
 * later entry of the same row replaces.
 */
const deleteBetween = (db: Knex, from: number, last: number, horizon: number) =>
  db.raw(
    `delete from config_revisions as old
      where old.revision > ? and old.revision <= ?
        and (old.action = 'delete' or exists (
          select from config_revisions as newer
           where newer.entity = old.entity and newer.entity_id = old.entity_id and newer.revision < ?
             and (newer.revision, newer.position) > (old.revision, old.position)))`,
    [from, last, horizon],
  );
