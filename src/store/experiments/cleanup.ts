import type { Knex } from 'knex';
import { EXPERIMENT_DATA } from '../../../migrations/0022_experiments.js';
import { type BatchOptions, deleteInBatches } from '../batched_delete.js';
import type { Database } from '../database.js';
import { oldestAccepted } from '../usage/retention.js';

/**
 * As for usage, rows are deleted this long after their retention has ended, so that none of them is still being stored.
 */
const SLACK_MS = 3_600_000;

/**
 * Deletes outcomes and runs after their retention; their sums stay. Then deletes the rows of experiments that no longer
 * exist.
 */
export async function deleteOldExperimentRows(
  { database: { knex: db } }: { readonly database: Pick<Database, 'knex'> },
  retentionMs: number,
  options: BatchOptions = {},
): Promise<void> {
  if (retentionMs !== Number.POSITIVE_INFINITY) {
    const { rows } = await db.raw<{ rows: { now: Date }[] }>('select now() as now');
    const oldest = new Date(oldestAccepted((rows[0]?.now.getTime() ?? 0) - SLACK_MS, retentionMs));
    await deleteInBatches(db, 'llm_experiment_outcomes', ['observed_at < ?', [oldest]], options);
    await deleteInBatches(db, 'llm_experiment_runs', ['last_at < ?', [oldest]], options);
  }
  for (const id of await orphans(db)) await deleteData(db, id, options);
}

/** The sums of variants are deleted last, because deleted experiments are found by these rows. */
const LAST = 'llm_experiment_variants';

async function deleteData(db: Knex, id: number, options: BatchOptions): Promise<void> {
  const tables = [...EXPERIMENT_DATA.filter((table) => table !== LAST), LAST];
  for (const table of tables) {
    if (options.signal?.aborted) return;
    await deleteInBatches(db, table, ['experiment_id = ?', [id]], options);
  }
}

/** The ids of deleted experiments that still have sums. */
async function orphans(db: Knex): Promise<number[]> {
  const { rows } = await db.raw<{ rows: { experiment_id: number }[] }>(
    `select distinct experiment_id from llm_experiment_variants as v
      where not exists (select from llm_experiments as e where e.id = v.experiment_id) order by 1`,
  );
  return rows.map(({ experiment_id }) => experiment_id);
}
