import type { Knex } from 'knex';
import { errorCode } from '../../error_properties.js';
import { limits } from '../../limits.js';
import { prepared } from '../session.js';
import { createCounters, keyColumns, type WantedCounter } from './counters.js';
import type { StoredReservation } from './reservations.js';

/** A reservation to make. Amounts are in nano-USD. */
export interface ReservationRequest {
  readonly reservation_id: string;
  readonly agent_id: number;
  readonly run_id: string;
  readonly actor: string;
  /** The budgets to hold the amount in. */
  readonly wanted: readonly WantedCounter[];
  /** The highest cost of one attempt. */
  readonly cost: bigint;
  /** The number of attempts to reserve for; fewer are granted if the budgets have less room. */
  readonly attempts: number;
  readonly lifetimeMs: number;
  /** The latest end: that of the first period; undefined: none. */
  readonly until: Date | undefined;
  /** The hour of UTC, counted since 1970, that ends the window of rolling budgets. */
  readonly hour: number;
}

/** What a statement found. */
export interface ReserveOutcome {
  readonly granted: StoredReservation | undefined;
  /** A reservation with this id existed before. */
  readonly exists: boolean;
  /** The agent has too many open reservations. */
  readonly tooMany: boolean;
  /** The ids of the budgets that have no room for one attempt. */
  readonly full: readonly number[];
}

/** The cost of the current window of a rolling budget; otherwise the spent amount. */
const SPENT = `case when c.spent_by_hour is null then c.spent_nano_usd else (
    select coalesce(sum(u.cost), 0) from unnest(c.spent_by_hour) with ordinality as u (cost, slot)
     where c.newest_hour - mod(c.newest_hour - (u.slot - 1) + cardinality(c.spent_by_hour) , cardinality(c.spent_by_hour))
           > w.hour - cardinality(c.spent_by_hour)) end`;

/**
 * A reservation takes at most this part of the room, so that the first of many processes does not take all of it; but
 * always enough for one attempt.
 */
const SHARE = 8;

/**
 * One statement locks the counters of all budgets in the order of their keys, checks the room of each, and holds the
 * amount in all of them or in none. A row that was changed while the statement waited for its lock is read again by
 * PostgreSQL, so the check is about the newest amounts.
 */
const RESERVE = `
with wanted as (
  select * from unnest(?::int[], ?::text[], ?::timestamptz[], ?::bigint[], ?::bigint[])
    as w (budget_id, run_id, period_start, limit_nano_usd, hour)),
asked as (
  select ?::uuid as reservation_id, ?::int as agent_id, ?::text as run_id, ?::numeric as cost, ?::int as attempts),
known as (
  select exists (select from llm_budget_reservations r, asked a where r.reservation_id = a.reservation_id) as is_known,
         (select count(*) from (select from llm_budget_reservations r, asked a
           where r.agent_id = a.agent_id and r.state = 'open' limit ?) as few) >= ? as too_many),
locked as materialized (
  select c.budget_id, c.run_id, c.period_start, w.limit_nano_usd - c.reserved_nano_usd - ${SPENT} as room
    from llm_budget_counters c join wanted w using (budget_id, run_id, period_start)
   order by c.budget_id, c.run_id collate "C", c.period_start for update of c),
granted as materialized (
  select case
      when (select is_known or too_many from known) or count(*) < (select count(*) from wanted) then 0
      when count(*) = 0 then (select attempts from asked)
      when min(room) < greatest((select cost from asked), 1) then 0
      when (select cost from asked) = 0 then (select attempts from asked)
      else greatest(1, least((select attempts from asked), floor(min(room) / ((select cost from asked) * ${SHARE}))))
    end::int as attempts from locked),
held as (
  update llm_budget_counters c
     set reserved_nano_usd = c.reserved_nano_usd + g.attempts * a.cost, open_reservations = c.open_reservations + 1,
         updated_at = clock_timestamp()
    from locked l, granted g, asked a
   where g.attempts > 0 and c.budget_id = l.budget_id and c.run_id = l.run_id and c.period_start = l.period_start),
reserved as (
  insert into llm_budget_reservations (reservation_id, agent_id, run_id, budget_ids, period_starts, amount_nano_usd,
      held_nano_usd, attempts, actor, expires_at)
  select a.reservation_id, a.agent_id, a.run_id,
         coalesce((select array_agg(budget_id order by budget_id) from wanted), '{}'),
         coalesce((select array_agg(period_start order by budget_id) from wanted), '{}'),
         g.attempts * a.cost, g.attempts * a.cost, g.attempts, ?,
         least(now() + ? * interval '1 millisecond', ?::timestamptz)
    from granted g, asked a where g.attempts > 0
  returning amount_nano_usd::text as amount, attempts, expires_at)
select k.is_known, k.too_many, r.amount, r.attempts, r.expires_at, now() as now,
       (select count(*)::int from locked) as found,
       (select array_agg(budget_id) from locked l, asked a where l.room < greatest(a.cost, 1)) as "full"
  from known k left join reserved r on true`;

interface ReserveRow {
  readonly is_known: boolean;
  readonly too_many: boolean;
  readonly amount: string | null;
  readonly attempts: number;
  readonly expires_at: Date;
  readonly now: Date;
  readonly found: number;
  readonly full: number[] | null;
}

/** A deleted budget has no counter, and a state that is one revision old may still have the budget. */
const ATTEMPTS = 3;

/** Makes a reservation in all budgets, or in none. */
export async function reserve(db: Knex, request: ReservationRequest): Promise<ReserveOutcome> {
  let { wanted } = request;
  for (let attempt = 1; ; attempt++) {
    const row = await tryReserve(db, { ...request, wanted });
    if (!row) return { granted: undefined, exists: true, tooMany: false, full: [] };
    if (row.found === wanted.length || row.is_known || row.too_many) return outcomeOf({ ...request, wanted }, row);
    await createCounters(db, wanted);
    if (attempt >= ATTEMPTS) wanted = await existing(db, wanted);
  }
}

async function existing(db: Knex, wanted: readonly WantedCounter[]): Promise<readonly WantedCounter[]> {
  const ids: number[] = await db('llm_budgets')
    .whereRaw('id = any(?::int[])', [wanted.map(({ budget }) => budget.id)])
    .pluck('id');
  return wanted.filter(({ budget }) => ids.includes(budget.id));
}

/** @returns undefined if the same reservation was made at the same time. */
async function tryReserve(db: Knex, request: ReservationRequest): Promise<ReserveRow | undefined> {
  const { wanted, hour } = request;
  const bindings = [
    ...keyColumns(wanted.map(({ key }) => key)),
    wanted.map(({ budget }) => String(budget.limit_nano_usd)),
    wanted.map(() => hour),
    request.reservation_id,
    request.agent_id,
    request.run_id,
    String(request.cost),
    request.attempts,
    limits.reservationsPerAgent,
    limits.reservationsPerAgent,
    request.actor,
    request.lifetimeMs,
    request.until ?? null,
  ];
  try {
    const { rows } = await prepared(db.raw(RESERVE, bindings as Knex.RawBinding[]) as never as Prepared);
    return rows[0];
  } catch (error) {
    if (errorCode(error) === '23505') return undefined;
    throw error;
  }
}
type Prepared = PromiseLike<{ rows: [ReserveRow] }> & { options(options: object): Prepared };

function outcomeOf(request: ReservationRequest, row: ReserveRow): ReserveOutcome {
  const { reservation_id, agent_id, run_id, wanted } = request;
  const sorted = [...wanted].sort((a, b) => a.budget.id - b.budget.id);
  const granted = row.amount !== null && {
    reservation_id,
    agent_id,
    run_id,
    budget_ids: sorted.map(({ budget }) => budget.id),
    period_starts: sorted.map(({ key }) => key.period_start),
    amount: BigInt(row.amount),
    held: BigInt(row.amount),
    attempts: row.attempts,
    state: 'open' as const,
    expires_at: row.expires_at,
    now: row.now,
  };
  return { granted: granted || undefined, exists: row.is_known, tooMany: row.too_many, full: row.full ?? [] };
}
