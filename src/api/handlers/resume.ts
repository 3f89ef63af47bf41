import { ServiceError } from '../../errors.js';
import type { Feed } from '../../feed/feed.js';
import type { Filter } from '../../feed/filter.js';
import type { ResumePosition, Watches } from '../../feed/watches.js';
import { limits } from '../../limits.js';
import { databaseFailure, onDatabase } from '../../store/failure.js';
import { horizonOf, oldestKept } from '../../store/history/compaction.js';
import type { Store } from '../../store/store.js';
import { readHead } from '../../store/write/head.js';
import { isPrefixOf, type ResumePoint, readResumeToken } from '../messages/resume_token.js';

interface ResumeContext {
  readonly store: Store;
  readonly feed: Feed;
  readonly watches: Watches;
  /** Aborts when the caller disconnects. */
  readonly signal: AbortSignal;
}

/**
 * The revision after which a watch continues; throws an error with a specific reason if the watch cannot continue. A
 * token that seems invalid may have a revision that this replica has not read yet, so the database is read before the
 * token is rejected.
 */
export async function resumeAt(
  context: ResumeContext,
  token: string,
  filter: Filter,
  retentionMs: number,
): Promise<ResumePosition> {
  const point = readResumeToken(token);
  if (point.hash !== filter.hash) throw ServiceError.of('RESUME_TOKEN_FILTER_CHANGED', {});
  const { store } = context;
  const isReached = () => isPrefixOf(point.identity, store.state.identity) && point.revision <= store.state.revision;
  if (!isReached()) await awaitRevision(context, point);
  const { revision } = store.state;
  if (point.revision < revision) await checkKept(context, point.revision, retentionMs);
  const nonce = await nonceAt(context, point);
  // The store may have been restored from a backup while the log was read.
  if (!isPrefixOf(point.identity, store.state.identity) || !isPrefixOf(point.nonce, nonce))
    throw ServiceError.of('STORE_CHANGED', {});
  return { revision: point.revision, nonce };
}

/** Waits until this replica has a revision that the database has; throws if the database does not have it. */
async function awaitRevision(
  { store, feed, signal }: ResumeContext,
  { identity, revision }: ResumePoint,
): Promise<void> {
  const head = await onDatabase(store, (db) => readHead(db));
  if (!isPrefixOf(identity, head.identity)) throw ServiceError.of('STORE_CHANGED', {});
  if (revision > head.revision)
    throw ServiceError.of('REVISION_IN_FUTURE', { revision: `${revision}`, newest: `${head.revision}` });
  if (!isPrefixOf(identity, store.state.identity)) await feed.poll();
  await waitForRevision(feed, revision, signal);
}

/** Waits until this replica has a revision, at most as long as a call may take: a stream has no deadline. */
export async function waitForRevision(feed: Feed, revision: number | bigint, signal: AbortSignal): Promise<void> {
  await feed.reached(revision, AbortSignal.any([signal, AbortSignal.timeout(limits.maxCallMs)]));
}

async function checkKept({ store }: ResumeContext, revision: number, retentionMs: number): Promise<void> {
  const oldest = await horizons.of(store, retentionMs);
  if (revision < oldest) throw ServiceError.of('REVISION_COMPACTED', { revision: `${revision}`, oldest: `${oldest}` });
}

/**
 * Caches the oldest revision that a watch can resume from, because all watchers of a restarted replica reconnect at
 * the same time.
 */
class Horizons {
  private readonly cache = new WeakMap<Store, { readonly at: number; readonly oldest: Promise<number> }>();

  of(store: Store, retentionMs: number): Promise<number> {
    const cached = this.cache.get(store);
    const at = performance.now();
    if (cached && at - cached.at < CACHE_MS) return cached.oldest;
    const oldest = oldestResumable(store, retentionMs).catch((error) => {
      const failure = databaseFailure(error);
      // While the database is unavailable, a watch resumes from the revisions in memory.
      if (failure instanceof ServiceError && failure.reason === 'DATABASE_UNAVAILABLE') return 0;
      throw failure;
    });
    this.cache.set(store, { at, oldest });
    return oldest;
  }
}

/**
 * The oldest revision that a watch can resume from: the one before the first revision that is kept for watches. The
 * change log must contain it, because the log has its nonce.
 */
async function oldestResumable({ database: { knex } }: Store, retentionMs: number): Promise<number> {
  const [firstKept, oldestLogged] = await Promise.all([horizonOf(knex, retentionMs), oldestKept(knex)]);
  return Math.max(firstKept - 1, oldestLogged);
}

const CACHE_MS = 200;
const horizons = new Horizons();

async function nonceAt({ store, watches }: ResumeContext, { revision }: ResumePoint): Promise<string> {
  const { state } = store;
  return revision === state.revision ? state.nonce : (await watches.eventAt(revision)).nonce;
}
