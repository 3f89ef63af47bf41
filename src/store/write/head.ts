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

/** The head as a reader finds it. */
export interface ReadHead extends Head {
  /** Whether a transaction can write nothing: the database is read-only, or the transaction is. */
  readonly read_only: boolean;
}

/** @param connection the connection to use; undefined: any connection of the pool. */
export async function readHead(db: Knex, connection?: unknown): Promise<ReadHead> {
  const readOnly = db.raw(`current_setting('transaction_read_only') = 'on' as read_only`);
  const query = db('store_state').select<ReadHead[]>('revision', 'nonce', 'identity', 'hash_key', readOnly);
  const [head] = await (connection === undefined ? query : query.connection(connection as never));
  if (!head) throw new StoreLostError('store_state has no row');
  return head;
}
