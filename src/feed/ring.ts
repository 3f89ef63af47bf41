import { limits } from '../limits.js';
import type { ChangeEvent } from './change_event.js';

/**
 * The newest revisions, once for all watchers: who is behind reads from here at a pace of its own, and who is further
 * behind reads the log. It is bounded in revisions and in what they touched.
 */
export class Ring {
  /** In the order of the revisions, which have no gaps. */
  private readonly entries = new Map<number, ChangeEvent>();
  private touched = 0;

  push(entry: ChangeEvent): void {
    // What does not follow makes everything before it useless.
    if (!this.entries.has(entry.revision - 1)) this.clear();
    this.entries.set(entry.revision, entry);
    this.touched += sizeOf(entry);
    for (const [revision, oldest] of this.entries) {
      if (this.entries.size <= limits.ringRevisions && this.touched <= limits.ringChanges) return;
      if (oldest === entry) return;
      this.entries.delete(revision);
      this.touched -= sizeOf(oldest);
    }
  }

  /** The entry of a revision, if it is still here. */
  at(revision: number): ChangeEvent | undefined {
    return this.entries.get(revision);
  }

  clear(): void {
    this.entries.clear();
    this.touched = 0;
  }
}

const sizeOf = ({ agents, catalogue }: ChangeEvent) => agents.length + catalogue.length;
