import type { Knex } from 'knex';
import {
  byKey,
  type Charge,
  type Counter,
  type CounterKey,
  charged,
  counterKey,
  keyText,
} from '../../domain/budget_counter.js';
import { budgetPeriod } from '../../domain/budget_period.js';
import type { Budget } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { createCounters, type RequiredCounter, readCounters, writeCounters } from './counters.js';

/** A new attempt with its cost. */
export interface PricedUsage {
  readonly agent_id: number;
  /** Empty: the call has no run. */
  readonly run_id: string;
  readonly started_at: Date;
  /** In nano-USD; null: unknown. */
  readonly cost_nano_usd: bigint | null;
  /** Empty: none. */
  readonly reservation_id: string;
}

interface HeldReservation {
  readonly reservation_id: string;
  readonly agent_id: number;
  readonly run_id: string;
  readonly keys: readonly CounterKey[];
  held: bigint;
}

/**
 * Counts attempts in all budgets that cover them, and takes their cost from their reservations. It is called in the
 * transaction that stores the attempts, only with attempts that were not stored before. An attempt counts in the period
 * in which it began. Cost without a reservation, beyond a reservation, or with an ended reservation also counts as
 * spent.
 * @param ending the reservations that end in the same transaction. Their counters are locked here together with all
 * other counters in one order, so that two transactions do not wait for each other.
 */
export async function chargeBudgets(
  tx: Knex,
  state: State,
  attempts: readonly PricedUsage[],
  ending: readonly string[] = [],
): Promise<void> {
  if (attempts.length === 0) return;
  const reservations = await lockReservations(tx, attempts, ending);
  const ledger = new Ledger(state);
  for (const attempt of attempts) ledger.add(attempt, reservations.get(attempt.reservation_id));
  await store(
    tx,
    ledger,
    ending.flatMap((id) => reservations.get(id)?.keys ?? []),
  );
  await writeReservations(tx, [...reservations.values()]);
}

async function store(tx: Knex, ledger: Ledger, others: readonly CounterKey[]): Promise<void> {
  const required = [...ledger.required.values()].sort((a, b) => byKey(a.key, b.key));
  if (required.length === 0) return;
  const keys = required.map(({ key }) => key);
  const locked = [...new Map([...keys, ...others].map((key) => [keyText(key), key])).values()];
  const read = async () =>
    (await readCounters(tx, locked, true)).filter((counter) => ledger.required.has(keyText(counter)));
  let counters = await read();
  if (counters.length < keys.length) {
    await createCounters(tx, required);
    counters = await read();
  }
  await writeCounters(
    tx,
    counters.map((counter) => ledger.applyTo(counter)),
  );
}

/** The charges of a batch by counter. */
class Ledger {
  readonly required = new Map<string, RequiredCounter>();
  private readonly charges = new Map<string, Charge[]>();
  /** Amounts that are released but not spent in a period, because the attempt began in another period. */
  private readonly released = new Map<string, bigint>();

  constructor(private readonly state: State) {}

  add(attempt: PricedUsage, reservation: HeldReservation | undefined): void {
    const { agent_id, run_id, started_at: at } = attempt;
    const cost = attempt.cost_nano_usd ?? undefined;
    const isOwn = reservation?.agent_id === agent_id && reservation.run_id === run_id;
    const taken = isOwn && cost !== undefined ? take(reservation, cost) : 0n;
    const heldKeys = new Map(taken > 0n ? reservation?.keys.map((key) => [keyText(key), key]) : []);
    const agent = this.state.agents.get(agent_id);
    for (const budget of this.state.budgets.covering(agent, run_id !== '')) {
      const key = counterKey(budget, run_id, at);
      const text = keyText(key);
      this.addRequired(budget, key, at);
      this.addCharge(text, { cost, taken: heldKeys.delete(text) ? taken : 0n, at });
    }
    for (const [text, key] of heldKeys) this.release(text, key, taken);
  }

  applyTo(counter: Counter): Counter {
    const text = keyText(counter);
    const next = charged(counter, this.charges.get(text) ?? []);
    return { ...next, reserved: next.reserved - (this.released.get(text) ?? 0n) };
  }

  private addCharge(text: string, charge: Charge): void {
    const charges = this.charges.get(text);
    if (charges) charges.push(charge);
    else this.charges.set(text, [charge]);
  }

  private addRequired(budget: Budget, key: CounterKey, at: Date): void {
    const isRolling = budget.rolling_hours !== null;
    this.required.set(keyText(key), { budget, key, end: isRolling ? undefined : budgetPeriod(budget, at).end });
  }

  private release(text: string, key: CounterKey, taken: bigint): void {
    const budget = this.state.budgets.withId(key.budget_id);
    if (!budget) return;
    this.addRequired(budget, key, key.period_start);
    this.released.set(text, (this.released.get(text) ?? 0n) + taken);
  }
}

/** Takes a cost from a reservation, at most the amount that the reservation still holds. */
function take(reservation: HeldReservation, cost: bigint): bigint {
  const taken = cost < reservation.held ? cost : reservation.held;
  reservation.held -= taken;
  return taken;
}

/** Locks the open reservations of the attempts, before any counter is locked. */
async function lockReservations(
  tx: Knex,
  attempts: readonly PricedUsage[],
  ending: readonly string[],
): Promise<Map<string, HeldReservation>> {
  const reservationIds = attempts.map(({ reservation_id }) => reservation_id).filter((id) => id !== '');
  const ids = [...new Set([...reservationIds, ...ending])].sort();
  if (ids.length === 0) return new Map();
  const { rows } = await tx.raw<{ rows: ReservationRow[] }>(
    `select reservation_id, agent_id, run_id, budget_ids, period_starts, held_nano_usd::text as held,
            (select array_agg(b.id) from llm_budgets b where b.id = any(budget_ids) and b.scope = 'BUDGET_SCOPE_RUN') as runs
       from llm_budget_reservations where reservation_id = any(?::uuid[]) and state = 'open'
      order by reservation_id for update`,
    [ids],
  );
  return new Map(rows.map((row) => [row.reservation_id, heldOf(row)]));
}

interface ReservationRow {
  readonly reservation_id: string;
  readonly agent_id: number;
  readonly run_id: string;
  readonly budget_ids: readonly number[];
  readonly period_starts: readonly Date[];
  readonly held: string;
  /** The ids of the budgets for runs. */
  readonly runs: readonly number[] | null;
}

const heldOf = ({ budget_ids, period_starts, runs, ...row }: ReservationRow): HeldReservation => ({
  reservation_id: row.reservation_id,
  agent_id: row.agent_id,
  run_id: row.run_id,
  held: BigInt(row.held),
  keys: budget_ids.map((budget_id, at) => ({
    budget_id,
    run_id: runs?.includes(budget_id) ? row.run_id : '',
    period_start: period_starts[at] as Date,
  })),
});

async function writeReservations(tx: Knex, reservations: readonly HeldReservation[]): Promise<void> {
  if (reservations.length === 0) return;
  await tx.raw(
    `update llm_budget_reservations r set held_nano_usd = w.held
       from unnest(?::uuid[], ?::bigint[]) as w (reservation_id, held) where r.reservation_id = w.reservation_id`,
    [reservations.map(({ reservation_id }) => reservation_id), reservations.map(({ held }) => String(held))],
  );
}
