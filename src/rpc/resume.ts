import { ServiceError } from '../errors.js';
import type { Feed } from '../feed/feed.js';
import type { Filter } from '../feed/filter.js';
import type { Watches } from '../feed/watches.js';
import { horizonOf, oldestKept } from '../store/compact.js';
import { databaseFailure } from '../store/failure.js';
import type { Store } from '../store/store.js';
import { isOf, type ResumePoint, readResumeToken } from './resume_token.js';

interface Place {
  readonly store: Store;
  readonly feed: Feed;
  readonly watches: Watches;
}

/**
 * The revision behind which a stream goes on; throws why it cannot, each with a reason of its own. What looks wrong may
 * only be newer than what this replica has seen, so it looks at the database before it refuses.
 */
export async function resumeAt(place: Place, token: string, filter: Filter, retentionMs: number): Promise<number> {
  const point = readResumeToken(token);
  if (point.mark !== filter.mark) throw ServiceError.of('RESUME_TOKEN_FILTER_CHANGED', {});
  const { store, feed } = place;
  if (!isOf(point.identity, store.state.identity) || point.revision > store.state.revision) await feed.poll();
  if (!isOf(point.identity, store.state.identity)) throw ServiceError.of('STORE_CHANGED', {});
  const { revision } = store.state;
  if (point.revision > revision) throw aheadOf(feed, point.revision, revision);
  if (point.revision < revision) await checkKept(place, point.revision, retentionMs);
  if (!isOf(point.nonce, await nonceAt(place, point))) throw ServiceError.of('STORE_CHANGED', {});
  return point.revision;
}

function aheadOf(feed: Feed, revision: number, newest: number): ServiceError {
  // With the database away nobody knows how far the store is.
  if (!feed.isWritable) return ServiceError.of('REVISION_NOT_REACHED', { wanted: `${revision}`, reached: `${newest}` });
  return ServiceError.of('REVISION_IN_FUTURE', { revision: `${revision}`, newest: `${newest}` });
}

async function checkKept({ store }: Place, revision: number, retentionMs: number): Promise<void> {
  const oldest = await horizons.of(store, retentionMs);
  if (revision < oldest) throw ServiceError.of('REVISION_COMPACTED', { revision: `${revision}`, oldest: `${oldest}` });
}

/** The oldest place to resume at, asked for once for all who come in the same moment: a restarted replica sees all of its watchers at once. */
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
/** Just before the first revision that is kept for watches, as long as the log still tells by which nonce to know it. */
async function oldestPlace({ database: { knex } }: Store, retentionMs: number): Promise<number> {
  const [first, known] = await Promise.all([horizonOf(knex, retentionMs), oldestKept(knex)]);
  return Math.max(first - 1, known);
}

const SAME_MOMENT_MS = 200;
const horizons = new Horizons();

async function nonceAt({ store, watches }: Place, { revision }: ResumePoint): Promise<string> {
  const { state } = store;
  return revision === state.revision ? state.nonce : (await watches.entryAt(revision)).nonce;
}
