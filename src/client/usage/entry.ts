import type { Segment } from './segment.js';

/** One attempt that the service has not acknowledged. */
export interface Entry {
  /** The encoded UsageRecord. */
  readonly content: Uint8Array;
  /** The order of recording; 0: read from a segment. */
  readonly number: number;
  /** Where it is on disk; undefined while it is only in memory. */
  segment: Segment | undefined;
  isAcknowledged: boolean;
  /** Whether its content leaves the memory when it is on disk, because the memory is needed for others. */
  isSpilled: boolean;
}

/** The first entries of a set, as many as the bounds permit and at least one, up to the first that does not fit. */
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
