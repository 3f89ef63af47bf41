import { forgetAnswers } from '../write/idempotency.js';
import { forgetEvents } from '../history/audit.js';
import { forgetHistory } from '../history/compaction.js';
import type { Store } from '../store.js';
import { checkTokens } from '../keys/vault.js';
import { forgetWatchers } from '../watchers.js';

/**
 * What is done once an hour.
 * @param historyMs how long the history is kept.
 */
export async function tidy(store: Store, historyMs: number): Promise<void> {
  const { knex, kind } = store.database;
  await forgetAnswers(knex);
  await forgetHistory(store, historyMs);
  await forgetEvents(knex, historyMs);
  await checkTokens(store);
  await forgetWatchers(knex);
  // PGlite has no autovacuum: without this, tables whose rows are updated often keep growing.
  if (kind === 'embedded') await knex.raw('vacuum (analyze)');
}
