import type { Knex } from 'knex';
import { type Counter, type CounterKey, emptyCounter } from '../../domain/budget_counter.js';
import type { Budget } from '../../domain/rows.js';

/** A counter that is read or created, with its budget and the end of its period. */
export interface RequiredCounter {
  readonly budget: Budget;
  readonly key: CounterKey;
  /** The end of the period; undefined for total and rolling budgets. */
  readonly end: Date | undefined;
}

interface CounterRow extends CounterKey {
  readonly spent: string;
  readonly committed: string;
  readonly reserved: string;
  readonly unpriced: number;
  readonly open: number;
  readonly hours: readonly string[] | null;
  readonly newest_hour: number | null;
}

const COLUMNS = `c.budget_id, c.run_id, c.period_start, c.spent_nano_usd::text as spent,
  c.committed_nano_usd::text as committed, c.reserved_nano_usd::text as reserved, c.unpriced_attempts as unpriced,
  c.open_reservations as open, c.spent_by_hour::text[] as hours, c.newest_hour`;

const KEYS = 'unnest(?::int[], ?::text[], ?::timestamptz[]) as w (budget_id, run_id, period_start)';

/** The three columns of keys, as bindings. */
export const keyColumns = (keys: readonly CounterKey[]): [number[], string[], Date[]] => [
  keys.map(({ budget_id }) => budget_id),
  keys.map(({ run_id }) => run_id),
  keys.map(({ period_start }) => period_start),
];

/** The counters of these keys that exist, in the order of their keys. @param lock locks their rows in this order. */
export async function readCounters(db: Knex, keys: readonly CounterKey[], lock = false): Promise<Counter[]> {
  if (keys.length === 0) return [];
  const { rows } = await db.raw<{ rows: CounterRow[] }>(
    `select ${COLUMNS} from llm_budget_counters c join ${KEYS} using (budget_id, run_id, period_start)
      order by c.budget_id, c.run_id collate "C", c.period_start ${lock ? 'for update of c' : ''}`,
    keyColumns(keys),
  );
  return rows.map(counterOf);
}

const counterOf = ({ hours, newest_hour, ...row }: CounterRow): Counter => ({
  budget_id: row.budget_id,
  run_id: row.run_id,
  period_start: row.period_start,
  spent: BigInt(row.spent),
  committed: BigInt(row.committed),
  reserved: BigInt(row.reserved),
  unpriced: row.unpriced,
  open: row.open,
  hours: hours?.map(BigInt),
  newestHour: newest_hour ?? undefined,
});

/**
 * Creates missing counters, except those of budgets that have been deleted meanwhile. The lock on the row of a budget
 * prevents its deletion until the transaction ends.
 */
export async function createCounters(db: Knex, required: readonly RequiredCounter[]): Promise<void> {
  if (required.length === 0) return;
  const empty = required.map(({ budget, key }) => emptyCounter(budget, key));
  await db.raw(
    `insert into llm_budget_counters (budget_id, run_id, period_start, period_end, spent_by_hour, newest_hour)
     select w.budget_id, w.run_id, w.period_start, w.period_end,
            case when w.hours is not null then array_fill(0::numeric, array[w.hours]) end,
            case when w.hours is not null then 0 end
       from unnest(?::int[], ?::text[], ?::timestamptz[], ?::timestamptz[], ?::int[])
              as w (budget_id, run_id, period_start, period_end, hours)
       join llm_budgets b on b.id = w.budget_id
      order by w.budget_id, w.run_id collate "C", w.period_start for key share of b
     on conflict do nothing`,
    [
      ...keyColumns(empty),
      required.map(({ end }) => end ?? null) as Date[],
      empty.map(({ hours }) => hours?.length ?? null) as number[],
    ],
  );
}

/** Stores the amounts of counters whose rows are locked. */
export async function writeCounters(db: Knex, counters: readonly Counter[]): Promise<void> {
  if (counters.length === 0) return;
  await db.raw(
    `update llm_budget_counters c
        set spent_nano_usd = w.spent, committed_nano_usd = w.committed, reserved_nano_usd = w.reserved,
            unpriced_attempts = w.unpriced, spent_by_hour = w.hours::numeric[], newest_hour = w.newest_hour,
            updated_at = clock_timestamp()
       from unnest(?::int[], ?::text[], ?::timestamptz[], ?::numeric[], ?::numeric[], ?::bigint[], ?::bigint[],
                   ?::text[], ?::bigint[])
              as w (budget_id, run_id, period_start, spent, committed, reserved, unpriced, hours, newest_hour)
      where c.budget_id = w.budget_id and c.run_id = w.run_id and c.period_start = w.period_start`,
    [
      ...keyColumns(counters),
      counters.map(({ spent }) => String(spent)),
      counters.map(({ committed }) => String(committed)),
      counters.map(({ reserved }) => String(reserved)),
      counters.map(({ unpriced }) => unpriced),
      counters.map(({ hours }) => (hours ? `{${hours.join(',')}}` : null)) as string[],
      counters.map(({ newestHour }) => newestHour ?? null) as number[],
    ],
  );
}

/**
 * The counters that have changed since a time, oldest change first, and the time of the last change. Budgets for runs
 * are included only with runs that may be exhausted.
 */
export async function changedCounters(
  db: Knex,
  since: Date,
): Promise<{ readonly counters: Counter[]; readonly next: Date | undefined }> {
  const { rows } = await db.raw<{ rows: (CounterRow & { updated_at: Date })[] }>(
    `select ${COLUMNS}, c.updated_at from llm_budget_counters c join llm_budgets b on b.id = c.budget_id
      where c.updated_at >= ? and (c.period_end is null or c.period_end > now())
        and (c.run_id = '' or c.spent_nano_usd >= b.limit_nano_usd)
      order by c.updated_at limit ?`,
    [since, CHANGED_AT_ONCE],
  );
  return { counters: rows.map(counterOf), next: rows.at(-1)?.updated_at };
}
const CHANGED_AT_ONCE = 5000;
