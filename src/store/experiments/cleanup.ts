import type { Knex } from 'knex';
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

/** Deleted first: a replica that has not applied the deletion yet stores no outcome without an assignment. */
const OF_SUBJECTS = [
  'llm_experiment_assignments',
  'llm_experiment_runs',
  'llm_experiment_outcomes',
  'llm_experiment_subject_outcomes',
];
/** Deleted last: deleted experiments are found by their sums of variants. */
const SUMS = [
  'llm_experiment_outcome_sums',
  'llm_experiment_latency',
  'llm_experiment_exposures',
  'llm_experiment_variants',
];

/**
 * A rollback can restore the experiment while its rows are deleted. The sums are therefore deleted last, in one
 * transaction: until then they are complete, and the remaining rows of subjects agree with them.
 */
async function deleteData(db: Knex, id: number, options: BatchOptions): Promise<void> {
  const condition = [
    'experiment_id = ? and not exists (select from llm_experiments as e where e.id = ?)',
    [id, id],
  ] as const;
  for (const table of OF_SUBJECTS) await deleteInBatches(db, table, condition, options);
  if (options.signal?.aborted) return;
  await db.transaction(async (tx) => {
    // Waits for a rollback that restores the experiment, and keeps later ones waiting.
    await tx.raw('lock table llm_experiments in share mode');
    for (const table of SUMS) await deleteInBatches(tx, table, condition, options);
  });
}

/** The ids of deleted experiments that still have sums. */
async function orphans(db: Knex): Promise<number[]> {
  const { rows } = await db.raw<{ rows: { experiment_id: number }[] }>(
    `select distinct experiment_id from llm_experiment_variants as v
      where not exists (select from llm_experiments as e where e.id = v.experiment_id) order by 1`,
  );
  return rows.map(({ experiment_id }) => experiment_id);
}
