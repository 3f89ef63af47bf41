import type { Knex } from 'knex';
import { StoreLostError } from '../failure.js';

/** The counter row: which store this is and how far it has come. */
export interface Head {
  readonly revision: number;
  readonly nonce: string;
  readonly identity: string;
  /** Key of the hashes by which requests are told apart. */
  readonly hash_key: Buffer;
}

/** Whether a database has come as far as to be a store: what is older has no identity and no history. */
export const holdsStore = (db: Knex): Promise<boolean> => db.schema.hasTable('store_state');

/** @param connection the one to ask on; without it any of the pool. */
export async function readHead(db: Knex, connection?: unknown): Promise<Head> {
  const query = db('store_state').select<Head[]>('revision', 'nonce', 'identity', 'hash_key');
  const [head] = await (connection === undefined ? query : query.connection(connection as never));
  if (!head) throw new StoreLostError('store_state has no row');
  return head;
}
