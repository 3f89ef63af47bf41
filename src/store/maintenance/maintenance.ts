import { deleteOldEvents } from '../history/audit.js';
import { compactHistory } from '../history/compaction.js';
import { checkCiphertexts } from '../keys/vault.js';
import type { Store } from '../store.js';
import { deleteExpiredWatchers } from '../watchers.js';
import { deleteExpiredResponses } from '../write/idempotency.js';

/**
 * The hourly maintenance of a store.
 * @param historyMs how long the history is kept, in ms.
 */
export async function runMaintenance(store: Store, historyMs: number): Promise<void> {
  const { knex, kind } = store.database;
  await deleteExpiredResponses(knex);
  await compactHistory(store, historyMs);
  await deleteOldEvents(knex, historyMs);
  await checkCiphertexts(store);
  await deleteExpiredWatchers(knex);
  // PGlite has no autovacuum: without this, tables whose rows are updated often keep growing.
  if (kind === 'embedded') await knex.raw('vacuum (analyze)');
}
