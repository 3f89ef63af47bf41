import type { Knex } from 'knex';
import { limits } from '../limits.js';
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

/** Deletes answers that are past their time. */
export async function forgetAnswers(db: Knex): Promise<void> {
  await db('idempotent_answers')
    .where('created_at', '<', db.raw(`now() - ? * interval '1 hour'`, [limits.requestIdHours]))
    .delete();
}
