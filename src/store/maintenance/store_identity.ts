import { randomUUID } from 'node:crypto';
import type { Store } from '../store.js';
import { catchUp } from '../write/change_log.js';
import type { Head } from '../write/head.js';
import { setTimeouts } from '../write/revision_counter.js';

/**
 * Gives the store a new identity. This is necessary after a restore, because the revision numbers after its head were
 * already used for other contents. Running replicas reload the state, and earlier etags no longer match. The revision
 * does not change and the log gets no entry, because the configuration has not changed.
 */
export async function renewStoreIdentity(store: Store): Promise<Pick<Head, 'revision' | 'identity'>> {
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
