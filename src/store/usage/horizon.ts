import type { Knex } from 'knex';

/*
 * The time before which attempts have been deleted. It never moves back: if USAGE_RETENTION is shortened and lengthened
 * again, the attempts of the time between are deleted. They are neither read for a report nor accepted a second time.
 */

/** The time before which attempts have been deleted, in ms since 1970; 0: no attempts have been deleted. */
export async function usageHorizon(db: Knex): Promise<number> {
  const row: { deleted_before: Date } | undefined = await db('llm_usage_horizon').first('deleted_before');
  return row?.deleted_before.getTime() ?? 0;
}

/** Records that attempts before a time are deleted from now on. */
export async function raiseHorizon(db: Knex, deletedBefore: Date): Promise<void> {
  await db.raw(
    `insert into llm_usage_horizon as h (id, deleted_before) values (1, ?)
         on conflict (id) do update set deleted_before = greatest(h.deleted_before, excluded.deleted_before)`,
    [deletedBefore],
  );
}
