import { deleteOldBudgetRows, expireReservations } from '../budgets/reservations.js';
import { deleteOldExperimentRows } from '../experiments/cleanup.js';
import { deleteOldEvents } from '../history/audit.js';
import { compactHistory } from '../history/compaction.js';
import type { Store } from '../store.js';
import { deleteOldUsage } from '../usage/retention.js';
import { deleteExpiredWatchers } from '../watchers.js';
import { deleteExpiredResponses } from '../write/idempotency.js';

/**
 * The hourly maintenance of a store.
 * @param retention how long the history and the attempts are kept, in ms.
 * @param signal ends the maintenance between two statements; the next one continues.
 * @throws AggregateError with an error for each step that failed; the other steps are done.
 */
export async function runMaintenance(
  store: Store,
  { historyMs, usageMs }: { readonly historyMs: number; readonly usageMs: number },
  signal?: AbortSignal,
): Promise<void> {
  const { knex, vacuum } = store.database;
  const steps: readonly (readonly [name: string, run: () => Promise<void> | undefined])[] = [
    ['delete expired responses', () => deleteExpiredResponses(knex, { signal })],
    ['compact the history', () => compactHistory(store, historyMs, { signal })],
    ['delete old audit events', () => deleteOldEvents(knex, historyMs, { signal })],
    ['delete old usage', () => deleteOldUsage(store, usageMs, { signal })],
    ['delete old rows of experiments', () => deleteOldExperimentRows(store, usageMs, { signal })],
    ['delete expired watchers', () => deleteExpiredWatchers(knex, { signal })],
    ['expire reservations', () => expireReservations(knex, { signal }).then(() => {})],
    ['delete old reservations', () => deleteOldBudgetRows(knex, { signal })],
    ['vacuum the database', () => vacuum?.(signal)],
  ];
  const errors: Error[] = [];
  for (const [name, run] of steps) {
    if (signal?.aborted) break;
    try {
      await run();
    } catch (cause) {
      errors.push(new Error(`the maintenance could not ${name}`, { cause }));
    }
  }
  if (errors.length > 0) throw new AggregateError(errors, 'steps of the maintenance have failed');
}
