import { amountsAt, counterKey, keyText } from '../../domain/budget_counter.js';
import type { Budget } from '../../domain/rows.js';
import type { BudgetStatus } from '../../feed/budget_monitor.js';
import { readCounters } from '../../store/budgets/counters.js';
import { onDatabase } from '../../store/failure.js';
import type { Backend } from './backend.js';

/** Reads the current amounts of budgets from the database. Budgets for runs have no amounts here. */
export async function currentStatuses(
  { store }: Pick<Backend, 'store'>,
  budgets: readonly Budget[],
  runId = '',
): Promise<ReadonlyMap<number, BudgetStatus>> {
  const now = new Date();
  const counted = budgets.filter(({ scope }) => runId !== '' || scope !== 'BUDGET_SCOPE_RUN');
  const keys = counted.map((budget) => counterKey(budget, runId, now));
  const counters = await onDatabase(store, (db) => readCounters(db, keys));
  const byKey = new Map(counters.map((counter) => [keyText(counter), counter]));
  return new Map(
    counted.map((budget, at) => {
      const key = keys[at] as (typeof keys)[number];
      const amounts = amountsAt(budget, byKey.get(keyText(key)), now);
      return [budget.id, { budget, run_id: key.run_id, amounts }];
    }),
  );
}
