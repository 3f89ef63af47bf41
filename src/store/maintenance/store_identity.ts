import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { hasTable } from '../../../migrations/import_tables.js';
import type { Store } from '../store.js';
import { catchUp } from '../write/change_log.js';
import type { Head } from '../write/head.js';
import { setTimeouts } from '../write/revision_counter.js';
import { missingForRenewal, refuseMissing } from './privileges.js';

/** Whether a database contains a store. A schema from before migration 0006 has no identity and no history. */
export const holdsStore = (db: Knex): Promise<boolean> => hasTable(db, 'store_state');

/**
 * Gives the store a new identity. This is necessary after a restore, because the revision numbers after its head were
 * already used for other contents. Running replicas reload the state, and earlier etags no longer match. The revision
 * does not change and the log gets no entry, because the configuration has not changed.
 * @throws StartError that names a missing privilege.
 */
export async function renewStoreIdentity(store: Store): Promise<Pick<Head, 'revision' | 'identity'>> {
  refuseMissing(await missingForRenewal(store.database.knex));
  const nonce = randomUUID();
  const head = await store.database.knex.transaction(async (tx) => {
    await setTimeouts(tx, store.database.listenTarget !== undefined ? '' : undefined);
    // The counter row is locked first, as in every write, so that no write is in progress.
    const [renewed] = await tx<Head>('store_state')
      .update({ identity: randomUUID(), nonce })
      .returning(['revision', 'identity']);
    if (!renewed) throw new Error('store_state has lost its row; restore the database from a backup');
    await tx('config_revisions').where({ revision: renewed.revision }).update({ nonce });
    return renewed;
  });
  if (store.state.identity !== '') await catchUp(store);
  return head;
}
