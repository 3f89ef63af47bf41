import type { Knex } from 'knex';
import { StoreLostError } from '../failure.js';

/** The counter row: the identity of the store and its newest revision. */
export interface Head {
  readonly revision: number;
  readonly nonce: string;
  readonly identity: string;
  /** HMAC key for the hashes of stored requests. */
  readonly hash_key: Buffer;
}

/** @param connection the connection to use; undefined: any connection of the pool. */
export async function readHead(db: Knex, connection?: unknown): Promise<Head> {
  const query = db('store_state').select<Head[]>('revision', 'nonce', 'identity', 'hash_key');
  const [head] = await (connection === undefined ? query : query.connection(connection as never));
  if (!head) throw new StoreLostError('store_state has no row');
  return head;
}
