import { limits } from '../../limits.js';

/** Rows that were read. */
export interface BoundedRows<Row> {
  readonly rows: Row[];
  /** false: there may be more, because reading stopped when the rows had enough bytes. */
  readonly complete: boolean;
}

/** Rows of the first batch: rows of the largest size are a few MiB together. */
const FIRST_ROWS = 32;

/**
 * Reads rows in batches until there are `limit` of them, or they have `limits.readBytes`. Rows of a page differ in size by
 * a factor of a thousand, so their number alone does not bound the memory that one call needs.
 * @param next reads at most `limit` rows after the last one that was read.
 */
export async function readBounded<Row extends object>(
  limit: number,
  next: (last: Row | undefined, limit: number) => PromiseLike<Row[]>,
): Promise<BoundedRows<Row>> {
  const rows: Row[] = [];
  let bytes = 0;
  let size = FIRST_ROWS;
  while (rows.length < limit) {
    const wanted = Math.min(size, limit - rows.length);
    const batch = await next(rows.at(-1), wanted);
    for (const row of batch) {
      rows.push(row);
      bytes += sizeOf(row);
    }
    if (batch.length < wanted) return { rows, complete: true };
    if (bytes >= limits.readBytes) return { rows, complete: rows.length >= limit };
    // As many as should fit, by the size of those that were read.
    size = Math.max(1, Math.floor((limits.readBytes - bytes) / (bytes / rows.length)));
  }
  return { rows, complete: true };
}

/** About how many bytes a value takes. */
function sizeOf(value: unknown): number {
  if (typeof value === 'string') return value.length;
  if (typeof value !== 'object' || value === null || value instanceof Date) return 8;
  let size = 8;
  for (const part of Object.values(value)) size += sizeOf(part);
  return size;
}
