import { randomUUID } from 'node:crypto';
import type { Store } from '../store.js';
import { catchUp } from '../write/change_log.js';
import type { Head } from '../write/head.js';
import { setTimeouts } from '../write/revision_counter.js';

/**
 * Makes the database a store of its own, as it has to be after it was put back: the numbers behind its head were used
 * before, for other contents. Replicas that run on it read everything anew, and etags from before match no more. Its
 * revision stays and the log gets no entry, because the configuration has not changed.
 */
export async function renewStoreIdentity(store: Store): Promise<Pick<Head, 'revision' | 'identity'>> {
  const nonce = randomUUID();
  const head = await store.database.knex.transaction(async (tx) => {
    await setTimeouts(tx, store.database.listenUrl !== undefined ? '' : undefined);
    // The counter row first, as in every write: nobody else has a revision in hand now.
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
