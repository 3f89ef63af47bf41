import type { Knex } from 'knex';
import { keyText } from '../../domain/budget_counter.js';
import { errorCode } from '../../error_properties.js';
import { limits } from '../../limits.js';
import { numberArray, timeArray } from '../array_literal.js';
import { isAboutValues } from '../failure.js';
import { prepared } from '../session.js';
import { createCounters, keyColumns, type RequiredCounter } from './counters.js';
import type { StoredReservation } from './reservations.js';

/** A reservation to make. Amounts are in nano-USD. */
export interface ReservationRequest {
  readonly reservation_id: string;
  readonly agent_id: number;
  readonly run_id: string;
  readonly actor: string;
  /** The budgets to hold the amount in. */
  readonly required: readonly RequiredCounter[];
  /** The highest cost of one attempt. */
  readonly cost: bigint;
  /** The requested number of attempts; fewer are granted if the budgets have less left. */
  readonly attempts: number;
  readonly lifetimeMs: number;
  /** The latest end of the reservation: the earliest end of a period; undefined: no period ends. */
  readonly until: Date | undefined;
  /** The last hour of the window of rolling budgets, in hours of UTC since 1970. */
  readonly hour: number;
}

/** The result of a reservation. */
export interface ReserveOutcome {
  readonly granted: StoredReservation | undefined;
  /** A reservation with this id existed before. */
  readonly exists: boolean;
  /** The agent has too many open reservations. */
  readonly tooMany: boolean;
  /** The ids of the budgets whose remaining amount does not cover one attempt. */
  readonly insufficient: readonly number[];
}

/** The cost of the current window of a rolling budget; otherwise the spent amount. */
const SPENT = `case when c.spent_by_hour is null then c.spent_nano_usd else (
    select coalesce(sum(u.cost), 0) from unnest(c.spent_by_hour) with ordinality as u (cost, slot)
     where c.newest_hour - mod(c.newest_hour - (u.slot - 1) + cardinality(c.spent_by_hour) , cardinality(c.spent_by_hour))
           > w.hour - cardinality(c.spent_by_hour)) end`;

/**
 * A reservation takes at most one part in SHARE of the remaining amount, so that other processes can reserve too. It
 * always covers at least one attempt if the remaining amount does.
 */
const SHARE = 8;

/** More than any request can state. */
const ALL_ATTEMPTS = limits.maxInt32;

/**
 * One statement locks the counters of all budgets in the order of their keys, checks the remaining amount of each, and
 * holds the amounts in all budgets or in none. PostgreSQL reads a row again if it was changed while the statement
 * waited for its lock, so the check uses the newest amounts. If the remaining amounts cover all requests together, the
 * statement makes all reservations as requested. Otherwise it makes no reservation, or a single reservation with fewer
 * attempts.
 *
 * The limits are the numbers of rows and have no effect on the result. For a limit that is a parameter, PostgreSQL plans
 * with a tenth of the rows, so the plan that it keeps uses the indexes. Without the limits, the plan of a connection that
 * was opened while the tables were small scanned them: the throughput fell to a half within ten seconds (issue 14).
 */
const RESERVE = `
with required as (
  select * from unnest(?::int[], ?::text[], ?::timestamptz[], ?::bigint[], ?::bigint[], ?::numeric[], ?::numeric[], ?::int[])
    as w (budget_id, run_id, period_start, limit_nano_usd, hour, amount, needed, reservations) limit ?),
requested as (
  select * from unnest(?::uuid[], ?::int[], ?::text[], ?::numeric[], ?::int[], ?::text[], ?::text[], ?::text[],
                       ?::bigint[], ?::timestamptz[])
    as a (reservation_id, agent_id, run_id, cost, attempts, budget_ids, period_starts, actor, lifetime_ms, latest_end)
   limit ?),
known as (
  select exists (select from llm_budget_reservations join requested using (reservation_id)) as is_known,
         exists (select from (select agent_id, count(*) as count from requested group by agent_id) a
           where a.count + (select count(*) from (select from llm_budget_reservations r
             where r.agent_id = a.agent_id and r.state = 'open' limit ?) as few) > ?) as too_many,
         greatest(max(cost), 1) as cost, count(*) as count from requested),
locked as materialized (
  select c.budget_id, c.run_id, c.period_start, w.amount, w.needed, w.reservations,
         w.limit_nano_usd - c.reserved_nano_usd - ${SPENT} as room
    from llm_budget_counters c join required w using (budget_id, run_id, period_start)
   order by c.budget_id, c.run_id collate "C", c.period_start for update of c),
granted as materialized (
  select case
      when (select is_known or too_many from known) or count(*) < (select count(*) from required) then 0
      when bool_and(room >= needed) is not false then ${ALL_ATTEMPTS}
      when (select count > 1 or min(room) < cost from known) then 0
      else greatest(1, floor(min(room) / ((select cost from known) * ${SHARE})))
    end::int as attempts from locked),
held as (
  update llm_budget_counters c
     set reserved_nano_usd = c.reserved_nano_usd + least(l.amount, g.attempts * k.cost),
         open_reservations = c.open_reservations + l.reservations, updated_at = clock_timestamp()
    from locked l, granted g, known k
   where g.attempts > 0 and c.budget_id = l.budget_id and c.run_id = l.run_id and c.period_start = l.period_start),
reserved as (
  insert into llm_budget_reservations (reservation_id, agent_id, run_id, budget_ids, period_starts, amount_nano_usd,
      held_nano_usd, attempts, actor, expires_at)
  select a.reservation_id, a.agent_id, a.run_id, a.budget_ids::int[], a.period_starts::timestamptz[],
         least(a.attempts, g.attempts) * a.cost, least(a.attempts, g.attempts) * a.cost, least(a.attempts, g.attempts),
         a.actor, least(now() + a.lifetime_ms * interval '1 millisecond', a.latest_end)
    from granted g, requested a where g.attempts > 0
  returning reservation_id, amount_nano_usd::text as amount, attempts, expires_at)
select k.is_known, k.too_many, r.reservation_id, r.amount, r.attempts, r.expires_at, now() as now,
       (select count(*)::int from locked) as found,
       (select array_agg(budget_id) from locked l where l.room < k.cost) as insufficient
  from known k left join reserved r on true`;

/** The result of the statement: one row for each new reservation, or one row without a reservation. */
interface ReserveRow {
  readonly is_known: boolean;
  readonly too_many: boolean;
  readonly reservation_id: string | null;
  readonly amount: string;
  readonly attempts: number;
  readonly expires_at: Date;
  readonly now: Date;
  readonly found: number;
  readonly insufficient: number[] | null;
}
type ReserveRows = readonly [ReserveRow, ...ReserveRow[]];

/**
 * The number of tries. A deleted budget has no counter, but a state that is one revision behind may still contain the
 * budget.
 */
const TRIES = 3;

/** Makes each reservation in all of its budgets or in none. If possible, one statement makes all reservations. */
export async function reserve(
  db: Knex,
  requests: readonly ReservationRequest[],
): Promise<PromiseSettledResult<ReserveOutcome>[]> {
  const rows = requests.length > 1 ? await reserveTogether(db, requests) : undefined;
  if (rows) return requests.map((request) => ({ status: 'fulfilled', value: outcomeOf(request, rows) }));
  const outcomes: PromiseSettledResult<ReserveOutcome>[] = [];
  for (const request of requests) outcomes.push(...(await Promise.allSettled([reserveOne(db, request)])));
  return outcomes;
}

/**
 * @returns undefined if no amount was reserved, because the remaining amounts do not cover all requests or one of them
 * would fail.
 */
async function reserveTogether(db: Knex, requests: readonly ReservationRequest[]): Promise<ReserveRows | undefined> {
  const sums = sumsOf(requests);
  const run = () =>
    runReserve(db, requests, sums).catch((error: unknown) => {
      if (isAboutValues(error)) return undefined;
      throw error;
    });
  let rows = await run();
  if (rows && isMissing(rows, sums)) {
    await createCounters(db, sums);
    rows = await run();
  }
  return rows?.[0].reservation_id ? rows : undefined;
}

async function reserveOne(db: Knex, request: ReservationRequest): Promise<ReserveOutcome> {
  let { required } = request;
  for (let tries = 1; ; tries++) {
    const own = { ...request, required };
    const sums = sumsOf([own]);
    const rows = await runReserve(db, [own], sums).catch((error: unknown) => {
      // The same reservation was made at the same time.
      if (errorCode(error) === '23505') return undefined;
      throw error;
    });
    if (!rows) return { granted: undefined, exists: true, tooMany: false, insufficient: [] };
    if (!isMissing(rows, sums)) return outcomeOf(own, rows);
    await createCounters(db, required);
    if (tries >= TRIES) required = await existing(db, required);
  }
}

/** Whether a counter is missing, which is the only case in which the statement makes no decision. */
const isMissing = ([row]: ReserveRows, sums: readonly CounterSum[]): boolean =>
  row.found < sums.length && !row.is_known && !row.too_many;

async function existing(db: Knex, required: readonly RequiredCounter[]): Promise<readonly RequiredCounter[]> {
  const ids: number[] = await db('llm_budgets')
    .whereRaw('id = any(?::int[])', [required.map(({ budget }) => budget.id)])
    .pluck('id');
  return required.filter(({ budget }) => ids.includes(budget.id));
}

/** The amount that a statement holds in one counter. */
interface CounterSum extends RequiredCounter {
  readonly hour: number;
  readonly reservations: number;
  readonly amount: bigint;
  readonly largest: bigint;
}

/** The counters of all requests, each once. */
function sumsOf(requests: readonly ReservationRequest[]): readonly CounterSum[] {
  const sums = new Map<string, CounterSum>();
  for (const { required, cost, attempts, hour } of requests) {
    const own = cost * BigInt(attempts);
    for (const counter of required) {
      const id = keyText(counter.key);
      const { amount, largest, reservations } = sums.get(id) ?? { amount: 0n, largest: 0n, reservations: 0 };
      const sum = { amount: amount + own, largest: own > largest ? own : largest, reservations: reservations + 1 };
      sums.set(id, { ...counter, hour, ...sum });
    }
  }
  return [...sums.values()];
}

/** The remaining amount that is needed so that every reservation is made in full, in any order. */
const neededRoom = ({ amount, largest }: CounterSum): bigint => {
  const needed = amount + largest * BigInt(SHARE - 1);
  return needed > 0n ? needed : 1n;
};

async function runReserve(
  db: Knex,
  requests: readonly ReservationRequest[],
  sums: readonly CounterSum[],
): Promise<ReserveRows> {
  const counters = [
    ...keyColumns(sums.map(({ key }) => key)),
    sums.map(({ budget }) => String(budget.limit_nano_usd)),
    sums.map(({ hour }) => hour),
    sums.map(({ amount }) => String(amount)),
    sums.map((sum) => String(neededRoom(sum))),
    sums.map(({ reservations }) => reservations),
    sums.length,
  ];
  const reservations = [
    requests.map(({ reservation_id }) => reservation_id),
    requests.map(({ agent_id }) => agent_id),
    requests.map(({ run_id }) => run_id),
    requests.map(({ cost }) => String(cost)),
    requests.map(({ attempts }) => attempts),
    requests.map(({ required }) => numberArray(byId(required).map(({ budget }) => budget.id))),
    requests.map(({ required }) => timeArray(byId(required).map(({ key }) => key.period_start))),
    requests.map(({ actor }) => actor),
    requests.map(({ lifetimeMs }) => lifetimeMs),
    requests.map(({ until }) => until ?? null),
    requests.length,
  ];
  const { reservationsPerAgent: most } = limits;
  const bindings = [...counters, ...reservations, most, most] as Knex.RawBinding[];
  const { rows } = await prepared(db.raw<{ rows: ReserveRows }>(RESERVE, bindings));
  return rows;
}

const byId = (required: readonly RequiredCounter[]) => [...required].sort((a, b) => a.budget.id - b.budget.id);

function outcomeOf(request: ReservationRequest, rows: ReserveRows): ReserveOutcome {
  const { reservation_id, agent_id, run_id } = request;
  const [{ is_known, too_many, insufficient, now }] = rows;
  const row = rows.find((one) => one.reservation_id === reservation_id);
  const required = byId(request.required);
  const granted = row && {
    reservation_id,
    agent_id,
    run_id,
    budget_ids: required.map(({ budget }) => budget.id),
    period_starts: required.map(({ key }) => key.period_start),
    amount: BigInt(row.amount),
    held: BigInt(row.amount),
    attempts: row.attempts,
    state: 'open' as const,
    expires_at: row.expires_at,
    now,
  };
  return { granted, exists: is_known, tooMany: too_many, insufficient: insufficient ?? [] };
}
