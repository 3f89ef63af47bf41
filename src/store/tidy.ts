import { forgetAnswers } from './answers.js';
import type { Store } from './store.js';
import { checkTokens } from './vault.js';

/** What is done once an hour. */
export async function tidy(store: Store): Promise<void> {
  const { knex, kind } = store.database;
  await forgetAnswers(knex);
  await checkTokens(store);
  // PGlite has no autovacuum: without this, tables whose rows are updated often keep growing.
  if (kind === 'embedded') await knex.raw('vacuum (analyze)');
}
