import { ServiceError } from '../errors.js';
import { databaseFailure } from '../store/failure.js';
import { oldestKept } from '../store/history/compaction.js';
import { stateAt } from '../store/history/time_travel.js';
import type { CommittedRevision } from '../store/replica_state.js';
import type { Store } from '../store/store.js';
import { REVISIONS_PER_PAGE, readRevisions } from '../store/write/change_log.js';
import { inSlices } from '../time_slice.js';
import { type ChangeEvent, changeEventOf } from './change_event.js';

interface Page {
  readonly from: number;
  /** The page ends at this revision or earlier. */
  readonly to: number;
  readonly events: Promise<readonly ChangeEvent[]>;
}

const PAGES = 8;

/**
 * Reads revisions that are no longer in the ring from the change log. Watches at the same position share a page, and
 * only one page is read at a time, so many reconnecting clients cause the same load on the database as one reader.
 */
export class Replay {
  private readonly pages: Page[] = [];
  private lastRead: Promise<unknown> = Promise.resolve();

  constructor(private readonly store: Store) {}

  /**
   * The event of a revision, which must not be newer than the state.
   * @throws REVISION_COMPACTED when the change log no longer contains the revision.
   */
  async at(revision: number): Promise<ChangeEvent> {
    const visited = new Set<Page>();
    for (;;) {
      const page = this.pages.find(
        (candidate) => candidate.from <= revision && revision <= candidate.to && !visited.has(candidate),
      );
      if (!page) return (await this.read(revision))[0] as ChangeEvent;
      visited.add(page);
      const events = await page.events.catch(() => []);
      const found = events[revision - page.from];
      if (found) return found;
    }
  }

  clear(): void {
    this.pages.length = 0;
  }

  private read(from: number): Promise<readonly ChangeEvent[]> {
    const events = this.lastRead.then(() => this.load(from));
    this.lastRead = events.catch(() => {});
    const page = { from, to: from + REVISIONS_PER_PAGE, events };
    this.pages.unshift(page);
    this.pages.length = Math.min(this.pages.length, PAGES);
    // A failed page is dropped, so that the next call reads it again.
    events.catch(() => {
      const index = this.pages.indexOf(page);
      if (index >= 0) this.pages.splice(index, 1);
    });
    return events;
  }

  private async load(from: number): Promise<readonly ChangeEvent[]> {
    const { knex } = this.store.database;
    try {
      const revisions = await readRevisions(knex, from, this.store.state.revision);
      const state = await stateAt(knex, from - 1, {
        agents: agentsOf(revisions),
        catalogue: true,
      });
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
}

function agentsOf(revisions: readonly CommittedRevision[]): number[] {
  const ids = new Set<number>();
  for (const { changes } of revisions)
    for (const change of changes) {
      if (change.entity === 'agent') ids.add(change.id);
      if (change.entity === 'config') ids.add((change.after ?? change.before)?.agent_id as number);
    }
  return [...ids];
}
