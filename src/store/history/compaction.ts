import type { Knex } from 'knex';
import type { Database } from '../database.js';

/*
 * How far back the log goes. Of what is older than HISTORY_RETENTION as much is kept as it takes to tell every state
 * since; `history_from` says from where on. It is moved before anything is deleted, so whoever reads the log and then
 * finds it below what was read has read all of it.
 */

/** The oldest revision whose state, and everything after it, the log still tells. */
export async function oldestKept(db: Knex): Promise<number> {
  const [row] = await db('store_state').select('history_from');
  return Math.max(1, row?.history_from ?? 1);
}

/** The oldest revision that is kept for watches: of those within the retention by the database's clock; else the head. */
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
 * Deletes what of the log is older than the retention, except of everything that stood before the horizon the entry that
 * made it so: from there on, every state can be told as before, and every revision is whole.
 * @param rowsAtOnce how many are looked at in one statement, more where one revision has more: nothing waits for long.
 */
export async function compactHistory(
  { database: { knex: db } }: { readonly database: Database },
  retentionMs: number,
  rowsAtOnce = 5000,
): Promise<void> {
  if (retentionMs === Number.POSITIVE_INFINITY) return;
  const horizon = await firstSince(db, retentionMs);
  await db('store_state').where('history_from', '<', horizon).update({ history_from: horizon });
  // From the oldest on: a deletion must not be forgotten before what it deleted.
  for (let from = 0; ; ) {
    const window: { revision: number }[] = await db('config_revisions')
      .select('revision')
      .where('revision', '>', from)
      .where('revision', '<', horizon)
      .orderBy('revision')
      .limit(rowsAtOnce);
    const last = window.at(-1)?.revision;
    if (last === undefined) return;
    await forgetBetween(db, from, last, horizon);
    from = last;
  }
}

/** Deletes what the state before the horizon does not need: deletions, and what a later entry has replaced. */
const forgetBetween = (db: Knex, from: number, last: number, horizon: number) =>
  db.raw(
    `delete from config_revisions as old
      where old.revision > ? and old.revision <= ?
        and (old.action = 'delete' or exists (
          select from config_revisions as newer
           where newer.entity = old.entity and newer.entity_id = old.entity_id and newer.revision < ?
             and (newer.revision, newer.position) > (old.revision, old.position)))`,
    [from, last, horizon],
  );
