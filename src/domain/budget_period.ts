import type { BudgetPeriod } from '../../gen/ts/agentllm/v1/budget.js';
import { instantOf, wallTime } from './time_zone.js';

/*
 * The periods of budgets, and the days and months of reports. Periods of one kind have no gaps and no overlap: each
 * instant is in exactly one period. A day begins at the first instant of its date, so a day in which daylight saving time
 * begins or ends has 23 or 25 hours, and a date that a zone skips has no period.
 */

/** A range of time that contains its start and not its end. */
export interface Period {
  readonly start: Date;
  /** undefined: the period never ends. */
  readonly end: Date | undefined;
}

/** A unit of the calendar. */
export type CalendarUnit = 'day' | 'month';

const HOUR_MS = 3_600_000;

/** The day or month in a time zone that contains an instant. */
export function calendarPeriod(unit: CalendarUnit, zone: string, at: Date): Period & { readonly end: Date } {
  const time = at.getTime();
  const shown = new Date(wallTime(zone, time));
  const [year, month, date] = [shown.getUTCFullYear(), shown.getUTCMonth(), unit === 'day' ? shown.getUTCDate() : 1];
  const startOf = (offset: number) => {
    const wall = unit === 'day' ? Date.UTC(year, month, date + offset) : Date.UTC(year, month + offset, 1);
    return instantOf(zone, wall);
  };
  // When a clock is set back across midnight, it shows the earlier date again. This hour belongs to the later date.
  let offset = 0;
  while (startOf(offset + 1) <= time) offset += 1;
  return { start: new Date(startOf(offset)), end: new Date(startOf(offset + 1)) };
}

/** The days or months that overlap a range, in order; the first one can begin before the range. */
export function* calendarPeriods(
  unit: CalendarUnit,
  zone: string,
  range: { readonly since: Date; readonly until: Date },
): Generator<{ readonly start: Date; readonly end: Date }> {
  for (let at = range.since; at < range.until; ) {
    const period = calendarPeriod(unit, zone, at);
    yield period;
    at = period.end;
  }
}

/** The number of the hour of UTC since 1970 that contains an instant. */
export const hourOf = (at: Date): number => Math.floor(at.getTime() / HOUR_MS);

/** The columns of a budget that determine its periods. */
export interface BudgetPeriods {
  readonly period: BudgetPeriod;
  /** Empty: UTC. */
  readonly time_zone: string;
  readonly rolling_hours: number | null;
  readonly created_at: Date;
}

/**
 * The period of a budget that contains an instant. The period of rolling hours consists of the hour of UTC that
 * contains the instant and of the hours before it; it ends with this hour. The only period of a total budget also
 * contains instants before its creation, because the clocks of reporters differ.
 */
export function budgetPeriod(budget: BudgetPeriods, at: Date): Period {
  const { period, time_zone, rolling_hours, created_at } = budget;
  if (period === 'BUDGET_PERIOD_DAY') return calendarPeriod('day', time_zone || 'UTC', at);
  if (period === 'BUDGET_PERIOD_MONTH') return calendarPeriod('month', time_zone || 'UTC', at);
  if (period === 'BUDGET_PERIOD_TOTAL') return { start: created_at, end: undefined };
  if (period !== 'BUDGET_PERIOD_ROLLING_HOURS' || rolling_hours === null)
    throw new Error(`a budget has the period ${period} and ${rolling_hours} rolling hours`);
  const end = hourOf(at) + 1;
  return { start: new Date((end - rolling_hours) * HOUR_MS), end: new Date(end * HOUR_MS) };
}
