import type { Knex } from 'knex';
import { type BatchOptions, deleteInBatches } from '../batched_delete.js';

/** A row of `llm_budget_reservations`. Amounts are in nano-USD. */
export interface StoredReservation {
  readonly reservation_id: string;
  readonly agent_id: number;
  readonly run_id: string;
  readonly budget_ids: readonly number[];
  readonly period_starts: readonly Date[];
  readonly amount: bigint;
  readonly held: bigint;
  readonly attempts: number;
  readonly state: 'open' | 'committed' | 'released' | 'expired';
  readonly expires_at: Date;
  /** The time of the database when the row was read. */
  readonly now: Date;
}

type ReservationRow = Omit<StoredReservation, 'amount' | 'held'> & { readonly amount: string; readonly held: string };

const COLUMNS = `r.reservation_id, r.agent_id, r.run_id, r.budget_ids, r.period_starts,
  r.amount_nano_usd::text as amount, r.held_nano_usd::text as held, r.attempts, r.expires_at, now() as now,
  case when r.state = 'open' and r.expires_at <= now() then 'expired' else r.state end as state`;

const reservationOf = (row: ReservationRow | undefined): StoredReservation | undefined =>
  row && { ...row, amount: BigInt(row.amount), held: row.state === 'open' ? BigInt(row.held) : 0n };

/**
 * A reservation of an agent; undefined if the agent has no reservation with this id. An expired reservation has the
 * state `expired`.
 */
export async function readReservation(db: Knex, id: string, agentId: number): Promise<StoredReservation | undefined> {
  const { rows } = await db.raw<{ rows: ReservationRow[] }>(
    `select ${COLUMNS} from llm_budget_reservations r where r.reservation_id = ? and r.agent_id = ?`,
    [id, agentId],
  );
  return reservationOf(rows[0]);
}

/** Extends an open reservation; undefined if it is not open. @param until the latest end. */
export async function renewReservation(
  db: Knex,
  { id, agentId, lifetimeMs, until }: { id: string; agentId: number; lifetimeMs: number; until: Date | undefined },
): Promise<StoredReservation | undefined> {
  const { rows } = await db.raw<{ rows: ReservationRow[] }>(
    `update llm_budget_reservations r set expires_at = least(now() + ? * interval '1 millisecond', ?::timestamptz)
      where r.reservation_id = ? and r.agent_id = ? and r.state = 'open' and r.expires_at > now() returning ${COLUMNS}`,
    [lifetimeMs, until ?? null, id, agentId] as Knex.RawBinding[],
  );
  return reservationOf(rows[0]);
}

/**
 * Ends open reservations and releases the amounts that they hold. As in all statements, rows of reservations are locked
 * before rows of counters, and counters in the order of their keys. The counter of a deleted budget no longer exists.
 */
const endAll = (condition: string) => `
with due as materialized (
  select r.reservation_id, r.run_id, r.budget_ids, r.period_starts, r.held_nano_usd as held
    from llm_budget_reservations r where r.state = 'open' and ${condition}),
ended as (
  update llm_budget_reservations r
     set held_nano_usd = 0, ended_at = now(), state = case when r.expires_at <= now() then 'expired' else ? end
    from due where r.reservation_id = due.reservation_id),
sums as (
  select c.budget_id, c.run_id, c.period_start, sum(d.held) as held, count(*) as reservations
    from due d cross join lateral unnest(d.budget_ids, d.period_starts) as b (budget_id, period_start)
    join llm_budget_counters c
      on c.budget_id = b.budget_id and c.period_start = b.period_start and c.run_id in ('', d.run_id)
   group by c.budget_id, c.run_id, c.period_start),
locked as materialized (
  select c.budget_id, c.run_id, c.period_start, s.held, s.reservations
    from llm_budget_counters c join sums s using (budget_id, run_id, period_start)
   order by c.budget_id, c.run_id collate "C", c.period_start for update of c),
released as (
  update llm_budget_counters c
     set reserved_nano_usd = c.reserved_nano_usd - l.held, open_reservations = c.open_reservations - l.reservations,
         updated_at = clock_timestamp()
    from locked l where c.budget_id = l.budget_id and c.run_id = l.run_id and c.period_start = l.period_start)
select reservation_id, held::text as held from due`;

const END = endAll(`(r.reservation_id, r.agent_id) in (select * from unnest(?::uuid[], ?::int[]))
  order by r.reservation_id for update of r`);
const EXPIRE = endAll(`r.expires_at <= now() order by r.expires_at limit ? for update of r skip locked`);

/** A reservation and the agent to which it must belong. */
export interface OwnReservation {
  readonly id: string;
  readonly agentId: number;
}

/**
 * Ends reservations with one statement, which locks them in one order. Returns the released amounts of the reservations
 * that were open.
 */
export async function endReservations(
  db: Knex,
  reservations: readonly OwnReservation[],
  state: 'committed' | 'released',
): Promise<ReadonlyMap<string, bigint>> {
  const ids = reservations.map(({ id }) => id);
  const agents = reservations.map(({ agentId }) => agentId);
  const { rows } = await db.raw<{ rows: { reservation_id: string; held: string }[] }>(END, [ids, agents, state]);
  return new Map(rows.map(({ reservation_id, held }) => [reservation_id, BigInt(held)]));
}

/** Ends a reservation. Returns the released amount; 0 if the reservation had already ended. */
export async function endReservation(
  db: Knex,
  { id, agentId, state }: OwnReservation & { state: 'committed' | 'released' },
): Promise<bigint> {
  return (await endReservations(db, [{ id, agentId }], state)).get(id) ?? 0n;
}

/** Locks the rows of open reservations, in the order of their ids. */
export async function lockReservations(tx: Knex, ids: readonly string[]): Promise<void> {
  await tx.raw(
    `select from llm_budget_reservations where reservation_id = any(?::uuid[]) and state = 'open'
      order by reservation_id for update`,
    [ids.filter((id) => id !== '')],
  );
}

const EXPIRED_AT_ONCE = 500;

/** Ends expired reservations. Returns their number. */
export async function expireReservations(db: Knex, { signal, rowsAtOnce = EXPIRED_AT_ONCE }: BatchOptions = {}) {
  let count = 0;
  for (let ended = rowsAtOnce; ended === rowsAtOnce && !signal?.aborted; count += ended) {
    const { rows } = await db.raw<{ rows: unknown[] }>(EXPIRE, [rowsAtOnce, 'expired']);
    ended = rows.length;
  }
  return count;
}

/** How long ended reservations and the amounts of past periods are kept. */
const RESERVATIONS_KEPT = '7 days';
const RUNS_KEPT = '90 days';

/** Deletes ended reservations and unchanged amounts of runs after RESERVATIONS_KEPT. */
export async function deleteOldBudgetRows(db: Knex, options: BatchOptions = {}): Promise<void> {
  await deleteInBatches(
    db,
    'llm_budget_reservations',
    [`ended_at < now() - ?::interval`, [RESERVATIONS_KEPT]],
    options,
  );
  await deleteInBatches(
    db,
    'llm_budget_counters',
    [`run_id <> '' and open_reservations = 0 and updated_at < now() - ?::interval`, [RUNS_KEPT]],
    options,
  );
}
