import { CountedIds } from '../../domain/draft.js';
import { ServiceError } from '../../errors.js';
import { databaseFailure } from '../failure.js';
import type { Store } from '../store.js';
import { advance } from './change_log.js';
import { readHead } from './head.js';
import { bodyHash, matchingResponse, readResponses } from './idempotency.js';
import { dryRun, planOf, type Ready, type Write } from './planned_write.js';

/** Does all the checks of a write and answers what it would do, without writing anything. */
export async function rehearse<T>(store: Store, write: Write<T>): Promise<Uint8Array> {
  try {
    // A request id that was used is refused for another request, and has its first answer for the same one.
    const kept = write.requestId ? await lookBack(store, write) : undefined;
    if (kept) return kept;
    const look = await lookAhead(store, write);
    if ('kept' in look) return look.kept;
    return write.answer(planOf(store.state, write, new CountedIds()).result, store.state.revision);
  } catch (error) {
    throw databaseFailure(error);
  }
}

/**
 * Carries out a write: the one way in which configuration changes. It is planned
 * dry first, so that bad requests end at once, and then waits in the line of the
 * store, where `commitTogether` takes it. Resolves when the local state has it.
 */
export async function transact<T>(store: Store, write: Write<T>): Promise<Uint8Array> {
  try {
    const look = await lookAhead(store, write);
    if ('kept' in look) return look.kept;
    return await store.writeQueue.add({ item: look as Ready, weight: look.changes, signal: write.signal });
  } catch (error) {
    throw databaseFailure(error);
  }
}

/** What a write needs, or the answer that was kept for its request id. */
type Look<T> = Ready<T> | { readonly kept: Uint8Array };

/**
 * Makes the plan dry, so that bad requests end without a lock. What seems wrong
 * may be right at a later revision that another replica has written, and a
 * retry finds its own first try in the way, so before a request is refused the
 * state is brought up to date and the kept answers are looked through.
 */
async function lookAhead<T>(store: Store, write: Write<T>): Promise<Look<T>> {
  try {
    return dryRun(store.state, write);
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const kept = await lookBack(store, write).catch((away) => {
      // Without the database, what is wrong with the fields themselves is still worth saying.
      throw error.reason === 'INVALID_FIELDS' ? error : away;
    });
    return kept ? { kept } : dryRun(store.state, write);
  }
}

/** Brings the state up to date; returns the answer that was kept for the write's request id, if any. */
async function lookBack<T>(store: Store, write: Write<T>): Promise<Uint8Array | undefined> {
  const { knex } = store.database;
  const head = await readHead(knex);
  await advance(store, knex, head);
  if (!write.requestId) return undefined;
  const hash = bodyHash(head.hash_key, write.body());
  const kept = (await readResponses(knex, [write])).of(write);
  return kept && matchingResponse(write, kept, hash);
}
