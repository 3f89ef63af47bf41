import { CountedIds } from '../../domain/draft.js';
import { ServiceError } from '../../errors.js';
import { databaseFailure } from '../failure.js';
import type { Store } from '../store.js';
import { advance } from './change_log.js';
import { readHead } from './head.js';
import { bodyHash, matchingResponse, readResponses } from './idempotency.js';
import { type CheckedWrite, dryRun, planOf, type Write } from './planned_write.js';

/** Runs all checks of a write and returns the response that it would have, without writing anything. */
export async function validateWrite<T>(store: Store, write: Write<T>): Promise<Uint8Array> {
  try {
    // The dry run comes first, because a request with invalid fields may have no encoding to hash.
    const prepared = await prepare(store, write);
    if ('stored' in prepared) return prepared.stored;
    // A used request id returns the stored response for the same request and is rejected for a different one.
    const stored = write.requestId ? await readStoredResponse(store, write) : undefined;
    if (stored) return stored;
    return write.encodeResponse(planOf(store.state, write, new CountedIds()).result, store.state.revision);
  } catch (error) {
    throw databaseFailure(error);
  }
}

/**
 * Executes a write. All changes of the configuration go through this function. A dry run first rejects invalid
 * requests. Then the write waits in the write queue for `commitTogether`. Resolves when the local state contains the
 * write.
 */
export async function transact<T>(store: Store, write: Write<T>): Promise<Uint8Array> {
  try {
    const prepared = await prepare(store, write);
    if ('stored' in prepared) return prepared.stored;
    return await store.writeQueue.add({
      item: prepared as CheckedWrite,
      weight: prepared.changes,
      signal: write.signal,
    });
  } catch (error) {
    throw databaseFailure(error);
  }
}

/** A write after its dry run, or the stored response of its request id. */
type Prepared<T> = CheckedWrite<T> | { readonly stored: Uint8Array };

/**
 * Runs the plan without a lock, so that invalid requests fail early. A request that fails may be valid at a newer
 * revision of another replica, and a retry may conflict with its own first attempt. Therefore the state is updated and
 * the stored responses are read before a request is rejected.
 */
async function prepare<T>(store: Store, write: Write<T>): Promise<Prepared<T>> {
  try {
    return dryRun(store.state, write);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const stored = await readStoredResponse(store, write).catch((failure) => {
      // Invalid fields are reported even while the database is unavailable.
      throw error.reason === 'INVALID_FIELDS' ? error : failure;
    });
    return stored ? { stored } : dryRun(store.state, write);
  }
}

/** Updates the state and returns the stored response of the write's request id, if there is one. */
async function readStoredResponse<T>(store: Store, write: Write<T>): Promise<Uint8Array | undefined> {
  const { knex } = store.database;
  const head = await readHead(knex);
  await advance(store, knex, head);
  if (!write.requestId) return undefined;
  const hash = bodyHash(head.hash_key, write.body());
  const stored = (await readResponses(knex, [write])).of(write);
  return stored && matchingResponse(write, stored, hash);
}
