import { budgetPeriod, hourOf, type Period } from './budget_period.js';
import type { Budget } from './rows.js';

/** Identifies the amounts of one period of a budget. */
export interface CounterKey {
  readonly budget_id: number;
  /** The run, for BUDGET_SCOPE_RUN; otherwise empty. */
  readonly run_id: string;
  readonly period_start: Date;
}

/** A row of `llm_budget_counters`. Amounts are in nano-USD. */
export interface Counter extends CounterKey {
  /** The spent amount; for a rolling budget, the cost since its creation. */
  readonly spent: bigint;
  /** The part of the spent amount that was taken from reservations. */
  readonly committed: bigint;
  readonly reserved: bigint;
  readonly unpriced: number;
  readonly open: number;
  /** The cost by hour of a rolling budget. The cost of an hour is at the index `hour % length`. */
  readonly hours: readonly bigint[] | undefined;
  readonly newestHour: number | undefined;
}

/** A charge to the counter of a period. */
export interface Charge {
  /** undefined: the cost is unknown. */
  readonly cost: bigint | undefined;
  /** The part of the cost that was taken from a reservation in this counter. */
  readonly taken: bigint;
  /** The start of the attempt. */
  readonly at: Date;
}

/** The key of the counter for an attempt or a reservation at an instant. */
export function counterKey(budget: Budget, runId: string, at: Date): CounterKey {
  const run_id = budget.scope === 'BUDGET_SCOPE_RUN' ? runId : '';
  // The hours of a rolling budget are in one row, whose period begins with the budget.
  const isRolling = budget.period === 'BUDGET_PERIOD_ROLLING_HOURS';
  return { budget_id: budget.id, run_id, period_start: isRolling ? budget.created_at : budgetPeriod(budget, at).start };
}

export const keyText = ({ budget_id, run_id, period_start }: CounterKey): string =>
  `${budget_id} ${period_start.getTime()} ${run_id}`;

/** The order in which all statements lock the rows of counters. */
export const byKey = (a: CounterKey, b: CounterKey): number =>
  a.budget_id - b.budget_id ||
  (a.run_id < b.run_id ? -1 : a.run_id > b.run_id ? 1 : 0) ||
  a.period_start.getTime() - b.period_start.getTime();

/** A counter whose amounts are 0. */
export const emptyCounter = (budget: Budget, key: CounterKey): Counter => ({
  ...key,
  spent: 0n,
  committed: 0n,
  reserved: 0n,
  unpriced: 0,
  open: 0,
  hours: budget.rolling_hours === null ? undefined : new Array<bigint>(budget.rolling_hours).fill(0n),
  newestHour: budget.rolling_hours === null ? undefined : 0,
});

/** A counter after charges. Amounts that the charges take from reservations are no longer reserved. */
export function charged(counter: Counter, charges: readonly Charge[]): Counter {
  let { spent, committed, reserved, unpriced, hours, newestHour } = counter;
  for (const { cost, taken, at } of charges) {
    if (cost === undefined) {
      unpriced++;
      continue;
    }
    spent += cost;
    committed += taken;
    reserved -= taken;
    if (hours && newestHour !== undefined) {
      hours = withHour(hours, newestHour, hourOf(at), cost);
      newestHour = Math.max(newestHour, hourOf(at));
    }
  }
  return { ...counter, spent, committed, reserved, unpriced, hours, newestHour };
}

/** Adds the cost of an hour to the costs by hour. An hour that is older than the oldest slot is ignored. */
function withHour(hours: readonly bigint[], newest: number, hour: number, cost: bigint): readonly bigint[] {
  const length = hours.length;
  if (hour <= newest - length) return hours;
  const next = [...hours];
  // The slots of the hours in between still contain the costs of hours that have left the window.
  for (let empty = Math.max(newest + 1, hour - length + 1); empty <= hour; empty++) next[empty % length] = 0n;
  const slot = hour % length;
  next[slot] = (next[slot] as bigint) + cost;
  return next;
}

/**
 * The spent amount of the period that contains an instant. It includes hours after the instant, because the clocks of
 * reporters differ.
 */
export function spentAt({ spent, hours, newestHour }: Counter, at: Date): bigint {
  if (!hours || newestHour === undefined) return spent;
  const { length } = hours;
  const oldest = hourOf(at) - length + 1;
  let sum = 0n;
  for (let hour = Math.max(oldest, newestHour - length + 1); hour <= newestHour; hour++)
    sum += hours[((hour % length) + length) % length] as bigint;
  return sum;
}

/** The amounts of a budget in one period. */
export interface BudgetAmounts {
  readonly period: Period;
  readonly spent: bigint;
  readonly reserved: bigint;
  readonly left: bigint;
  readonly unreserved: bigint;
  readonly unpriced: number;
  readonly open: number;
  readonly exhausted: boolean;
  readonly warning: boolean;
}

/** @param counter undefined: nothing was spent or reserved in the period. */
export function amountsAt(budget: Budget, counter: Counter | undefined, at: Date): BudgetAmounts {
  const period = budgetPeriod(budget, at);
  const spent = counter ? spentAt(counter, at) : 0n;
  const { reserved = 0n, unpriced = 0, open = 0 } = counter ?? {};
  const left = budget.limit_nano_usd - spent - reserved;
  return {
    // For a rolling budget, the cost without a reservation is known only since its creation.
    period,
    spent,
    reserved,
    left: left > 0n ? left : 0n,
    unreserved: counter ? counter.spent - counter.committed : 0n,
    unpriced,
    open,
    exhausted: spent >= budget.limit_nano_usd,
    warning: spent * 100n >= budget.limit_nano_usd * BigInt(budget.warn_percent),
  };
}
