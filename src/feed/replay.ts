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
  /** It has no revision behind this one. */
  readonly to: number;
  readonly entries: Promise<readonly ChangeEvent[]>;
}

const PAGES = 8;

/**
 * Revisions that are no longer in the ring, out of the log. Watchers that are equally far behind share a page, and one
 * page is read at a time, so that a crowd that comes back is one reader to the database.
 */
export class Replay {
  private readonly pages: Page[] = [];
  private turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly store: Store) {}

  /** The entry of a revision that is not newer than the state; rejects with REVISION_COMPACTED when the log has lost it. */
  async at(revision: number): Promise<ChangeEvent> {
    const tried = new Set<Page>();
    for (;;) {
      const page = this.pages.find((one) => one.from <= revision && revision <= one.to && !tried.has(one));
      if (!page) return (await this.read(revision))[0] as ChangeEvent;
      tried.add(page);
      const entries = await page.entries.catch(() => []);
      const found = entries[revision - page.from];
      if (found) return found;
    }
  }

  clear(): void {
    this.pages.length = 0;
  }

  private read(from: number): Promise<readonly ChangeEvent[]> {
    const entries = this.turn.then(() => this.load(from));
    this.turn = entries.catch(() => {});
    const page = { from, to: from + REVISIONS_PER_PAGE, entries };
    this.pages.unshift(page);
    this.pages.length = Math.min(this.pages.length, PAGES);
    // What failed is read again by whoever asks next.
    entries.catch(() => {
      const at = this.pages.indexOf(page);
      if (at >= 0) this.pages.splice(at, 1);
    });
    return entries;
  }

  private async load(from: number): Promise<readonly ChangeEvent[]> {
    const { knex } = this.store.database;
    try {
      const revisions = await readRevisions(knex, from, this.store.state.revision);
      const state = await stateAt(knex, from - 1, {
        agents: agentsOf(revisions),
        catalogue: true,
      });
      // Asked last: of what is forgotten, also while we read, some entries stay and others do not.
      const oldest = await oldestKept(knex);
      if (from < oldest || revisions[0]?.revision !== from)
        throw ServiceError.of('REVISION_COMPACTED', { revision: `${from}`, oldest: `${oldest}` });
      const entries: ChangeEvent[] = [];
      for await (const made of inSlices(revisions)) {
        state.apply(made.revision, made.nonce, made.changes);
        entries.push(changeEventOf(state, made));
      }
      return entries;
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
