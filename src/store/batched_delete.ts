import type { Knex } from 'knex';

/** Options of work that is done in batches. */
export interface BatchOptions {
  /** Ends the work after the current batch. */
  readonly signal?: AbortSignal | undefined;
  /** Rows of one statement, so that no statement takes long and no lock is held for long. */
  readonly rowsAtOnce?: number;
}

export const ROWS_AT_ONCE = 5000;

/** Deletes the rows of a table that meet a condition, as SQL with bindings. */
export async function deleteInBatches(
  db: Knex,
  table: string,
  [condition, bindings]: readonly [string, readonly Knex.RawBinding[]],
  { signal, rowsAtOnce = ROWS_AT_ONCE }: BatchOptions = {},
): Promise<void> {
  for (let deleted = rowsAtOnce; deleted === rowsAtOnce && !signal?.aborted; ) {
    const batch = db(table).select('ctid').whereRaw(condition, bindings).limit(rowsAtOnce);
    deleted = await db(table).whereRaw('ctid = any(array(?))', [batch]).delete();
  }
}
