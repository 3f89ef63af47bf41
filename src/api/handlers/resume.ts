import { ServiceError } from '../../errors.js';
import type { Feed } from '../../feed/feed.js';
import type { Filter } from '../../feed/filter.js';
import type { ResumePosition, Watches } from '../../feed/watches.js';
import { limits } from '../../limits.js';
import { databaseFailure, onDatabase } from '../../store/failure.js';
import { horizonOf, oldestKept } from '../../store/history/compaction.js';
import type { Store } from '../../store/store.js';
import { readHead } from '../../store/write/head.js';
import { isOf, type ResumePoint, readResumeToken } from '../messages/resume_token.js';

interface Where {
  readonly store: Store;
  readonly feed: Feed;
  readonly watches: Watches;
  /** Of the caller. */
  readonly signal: AbortSignal;
}

/**
 * The revision behind which a stream goes on; throws why it cannot, each with a reason of its own. What looks wrong may
 * only be newer than what this replica has seen, so it looks at the database before it refuses.
 */
export async function resumeAt(
  where: Where,
  token: string,
  filter: Filter,
  retentionMs: number,
): Promise<ResumePosition> {
  const point = readResumeToken(token);
  if (point.mark !== filter.mark) throw ServiceError.of('RESUME_TOKEN_FILTER_CHANGED', {});
  const { store } = where;
  const isHere = () => isOf(point.identity, store.state.identity) && point.revision <= store.state.revision;
  if (!isHere()) await lookAhead(where, point);
  const { revision } = store.state;
  if (point.revision < revision) await checkKept(where, point.revision, retentionMs);
  const nonce = await nonceAt(where, point);
  // The store may have been put back while the log was read.
  if (!isOf(point.identity, store.state.identity) || !isOf(point.nonce, nonce))
    throw ServiceError.of('STORE_CHANGED', {});
  return { revision: point.revision, nonce };
}

/**
 * Waits for what the database has; refuses what it has not either. A look that runs already may have begun too early.
 */
async function lookAhead({ store, feed, signal }: Where, { identity, revision }: ResumePoint): Promise<void> {
  const head = await onDatabase(store, (db) => readHead(db));
  if (!isOf(identity, head.identity)) throw ServiceError.of('STORE_CHANGED', {});
  if (revision > head.revision)
    throw ServiceError.of('REVISION_IN_FUTURE', { revision: `${revision}`, newest: `${head.revision}` });
  if (!isOf(identity, store.state.identity)) await feed.poll();
  await feed.reached(revision, AbortSignal.any([signal, AbortSignal.timeout(limits.maxCallMs)]));
}

async function checkKept({ store }: Where, revision: number, retentionMs: number): Promise<void> {
  const oldest = await horizons.of(store, retentionMs);
  if (revision < oldest) throw ServiceError.of('REVISION_COMPACTED', { revision: `${revision}`, oldest: `${oldest}` });
}

/**
 * The oldest place to resume at, asked for once for all who come in the same moment: a restarted replica sees all of
 * its watchers at once.
 */
class Horizons {
  private readonly asked = new WeakMap<Store, { readonly at: number; readonly answer: Promise<number> }>();

  of(store: Store, retentionMs: number): Promise<number> {
    const known = this.asked.get(store);
    const at = performance.now();
    if (known && at - known.at < SAME_MOMENT_MS) return known.answer;
    const answer = oldestPlace(store, retentionMs).catch((error) => {
      const failure = databaseFailure(error);
      // While the database is away, what is in memory is all there is, and it is served.
      if (failure instanceof ServiceError && failure.reason === 'DATABASE_UNAVAILABLE') return 0;
      throw failure;
    });
    this.asked.set(store, { at, answer });
    return answer;
  }
}
/**
 * Just before the first revision that is kept for watches, as long as the log still tells by which nonce to know it.
 */
async function oldestPlace({ database: { knex } }: Store, retentionMs: number): Promise<number> {
  const [first, known] = await Promise.all([horizonOf(knex, retentionMs), oldestKept(knex)]);
  return Math.max(first - 1, known);
}

const SAME_MOMENT_MS = 200;
const horizons = new Horizons();

async function nonceAt({ store, watches }: Where, { revision }: ResumePoint): Promise<string> {
  const { state } = store;
  return revision === state.revision ? state.nonce : (await watches.entryAt(revision)).nonce;
}
