import type { Segment } from './segment.js';

/** One attempt that the service has not acknowledged. */
export interface Entry {
  /** The encoded UsageRecord. */
  readonly content: Uint8Array;
  /** The position in the order of recording; 0: the entry was read from a segment. */
  readonly number: number;
  /** The segment that contains the entry; undefined while the entry is only in memory. */
  segment: Segment | undefined;
  isAcknowledged: boolean;
  /** Whether the content is removed from memory after it is written to disk, to free memory for other entries. */
  isSpilled: boolean;
}

/** The first entries of a set: as many as fit into the bounds, and at least one. */
export function firstEntries(
  entries: ReadonlySet<Entry>,
  most: { readonly records: number; readonly bytes: number },
  fits: (entry: Entry, first: Entry) => boolean = () => true,
): Entry[] {
  const taken: Entry[] = [];
  let bytes = 0;
  for (const entry of entries) {
    bytes += entry.content.length;
    const [first] = taken;
    if (first && (taken.length === most.records || bytes > most.bytes || !fits(entry, first))) break;
    taken.push(entry);
  }
  return taken;
}
