import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { databaseFailure } from '../store/failure.js';
import { oldestKept } from '../store/history/compaction.js';
import { stateAt } from '../store/history/time_travel.js';
import type { CommittedRevision } from '../store/replica_state.js';
import type { Store } from '../store/store.js';
import { REVISIONS_PER_PAGE, readRevisions } from '../store/write/change_log.js';
import { inSlices } from '../time_slice.js';
import { type ChangeEvent, changeEventOf, sizeOf } from './change_event.js';

/** Consecutive events that are in memory. */
interface Page {
  readonly from: number;
  readonly events: readonly ChangeEvent[];
  readonly items: number;
}

/** A page that is being read, or waits to be read. It ends at or before the last revision of a full page. */
interface RequestedPage {
  readonly from: number;
  readonly events: Promise<readonly ChangeEvent[]>;
}

/** Reads events from a revision on: at least one, and at most a page. */
export type ReadPage = (from: number) => Promise<readonly ChangeEvent[]>;

/** Maximum number of pages in memory; `limits.ringChanges` limits their items. */
const PAGES = 8;

/**
 * Reads revisions that are no longer in the ring from the change log. Watches at the same position share a page, and
 * only one page is read at a time, so many reconnecting clients cause the same load on the database as one reader. The
 * pages that were used least recently are dropped, and only once they are read, so every watch that waits for a page
 * gets its event. A watch does not hold a page: a client that does not read would keep it in memory.
 */
export class Replay {
  private readonly requested = new Set<RequestedPage>();
  /** The least recently used page is the first. */
  private readonly pages = new Set<Page>();
  private items = 0;
  private lastRead: Promise<unknown> = Promise.resolve();

  constructor(private readonly readPage: ReadPage) {}

  /**
   * The event of a revision, which must not be newer than the state.
   * @throws REVISION_COMPACTED when the change log no longer contains the revision.
   */
  async at(revision: number): Promise<ChangeEvent> {
    for (;;) {
      const event = this.inMemory(revision);
      if (event) return event;
      const requested = this.requestedWith(revision);
      if (!requested) return (await this.request(revision))[0] as ChangeEvent;
      const events = await requested.events.catch(() => []);
      const found = events[revision - requested.from];
      if (found) return found;
    }
  }

  /** Drops all pages. */
  clear(): void {
    this.requested.clear();
    this.pages.clear();
    this.items = 0;
  }

  private inMemory(revision: number): ChangeEvent | undefined {
    for (const page of this.pages) {
      const event = page.events[revision - page.from];
      if (!event) continue;
      this.pages.delete(page);
      this.pages.add(page);
      return event;
    }
    return undefined;
  }

  private requestedWith(revision: number): RequestedPage | undefined {
    for (const page of this.requested)
      if (page.from <= revision && revision < page.from + REVISIONS_PER_PAGE) return page;
    return undefined;
  }

  private request(from: number): Promise<readonly ChangeEvent[]> {
    const events = this.lastRead
      .then(() => this.readPage(from))
      .then((read) => {
        if (this.requested.has(page))
          this.keep({ from, events: read, items: read.reduce((n, one) => n + sizeOf(one), 0) });
        return read;
      })
      // A page that could not be read is requested again by the next call.
      .finally(() => this.requested.delete(page));
    const page: RequestedPage = { from, events };
    this.requested.add(page);
    this.lastRead = events.catch(() => {});
    return events;
  }

  private keep(page: Page): void {
    this.pages.add(page);
    this.items += page.items;
    for (const oldest of this.pages) {
      if (oldest === page || (this.pages.size <= PAGES && this.items <= limits.ringChanges)) return;
      this.pages.delete(oldest);
      this.items -= oldest.items;
    }
  }
}

/** Reads the events of a page from the change log. */
export async function readEvents(store: Store, from: number): Promise<readonly ChangeEvent[]> {
  const { knex } = store.database;
  try {
    const revisions = await readRevisions(knex, from, store.state.revision);
    const state = await stateAt(knex, from - 1, { agents: agentsOf(revisions), catalogue: true });
    // Read last, because a compaction during the reads above may have deleted some of the entries.
    const oldest = await oldestKept(knex);
    if (from < oldest || revisions[0]?.revision !== from)
      throw ServiceError.of('REVISION_COMPACTED', { revision: `${from}`, oldest: `${oldest}` });
    const events: ChangeEvent[] = [];
    for await (const revision of inSlices(revisions)) {
      state.apply(revision.revision, revision.nonce, revision.changes);
      events.push(changeEventOf(state, revision));
    }
    return events;
  } catch (error) {
    throw databaseFailure(error);
  }
}

function agentsOf(revisions: readonly CommittedRevision[]): number[] {
  const ids = new Set<number>();
  for (const { changes } of revisions)
    for (const change of changes) {
      if (change.entity === 'agent') ids.add(change.id);
      const row = change.after ?? change.before;
      if ((change.entity === 'config' || change.entity === 'budget') && row) {
        const { agent_id } = row as { readonly agent_id: number | null };
        if (agent_id !== null) ids.add(agent_id);
      }
    }
  return [...ids];
}
