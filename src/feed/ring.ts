import { limits } from '../limits.js';
import { type ChangeEvent, sizeOf } from './change_event.js';

/**
 * The newest revisions, shared by all watches. A watch that is catching up reads them at its own pace; one that needs
 * older revisions reads the change log. The ring is bounded in revisions and in the number of changed items.
 */
export class Ring {
  /** Consecutive revisions, oldest first. */
  private readonly events = new Map<number, ChangeEvent>();
  private changedItems = 0;

  push(event: ChangeEvent): void {
    // After a gap the earlier revisions cannot be used, because a watch needs consecutive revisions.
    if (!this.events.has(event.revision - 1)) this.clear();
    this.events.set(event.revision, event);
    this.changedItems += sizeOf(event);
    for (const [revision, oldest] of this.events) {
      if (this.events.size <= limits.ringRevisions && this.changedItems <= limits.ringChanges) return;
      if (oldest === event) return;
      this.events.delete(revision);
      this.changedItems -= sizeOf(oldest);
    }
  }

  /** The event of a revision; undefined when the ring does not contain it. */
  at(revision: number): ChangeEvent | undefined {
    return this.events.get(revision);
  }

  clear(): void {
    this.events.clear();
    this.changedItems = 0;
  }
}
