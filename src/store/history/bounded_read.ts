import { limits } from '../../limits.js';

/** The result of a bounded read. */
export interface BoundedRows<Row> {
  readonly rows: Row[];
  /** false: there may be more rows, because reading stopped at the byte limit. */
  readonly complete: boolean;
}

/** Number of rows of the first batch. This many rows of the largest size take a few MiB. */
const FIRST_ROWS = 32;

/**
 * Reads rows in batches up to `limit` rows or `limits.readBytes`. Rows differ in size by a factor of a thousand, so a
 * limit on their number alone does not bound the memory of a call.
 * @param next reads at most `limit` rows after the given last row.
 */
export async function readBounded<Row extends object>(
  limit: number,
  next: (last: Row | undefined, limit: number) => PromiseLike<Row[]>,
): Promise<BoundedRows<Row>> {
  const rows: Row[] = [];
  let bytes = 0;
  let size = FIRST_ROWS;
  while (rows.length < limit) {
    const requested = Math.min(size, limit - rows.length);
    const batch = await next(rows.at(-1), requested);
    for (const row of batch) {
      rows.push(row);
      bytes += sizeOf(row);
    }
    if (batch.length < requested) return { rows, complete: true };
    if (bytes >= limits.readBytes) return { rows, complete: rows.length >= limit };
    // The number of rows that should fit, by the average size so far.
    size = Math.max(1, Math.floor((limits.readBytes - bytes) / (bytes / rows.length)));
  }
  return { rows, complete: true };
}

/** Approximate size of a value in bytes. */
function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null || value instanceof Date) return 8;
  let size = 8;
  for (const part of Object.values(value)) size += sizeOf(part);
  return size;
}
