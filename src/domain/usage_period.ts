import { instantOf, wallTime } from './time_zone.js';

/* The hours, days and months of a time zone, as reports group by them. All times are in ms since 1970. */

export type PeriodUnit = 'hour' | 'day' | 'month';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** A zone keeps an offset for longer than this. */
const SAMPLE_MS = 7 * DAY_MS;

/** Whether the hours of a zone are those of UTC in a range, so that no hour has to be split. */
export function hasWholeHours(zone: string, since: number, until: number): boolean {
  const isWhole = (at: number) => (wallTime(zone, at) - at) % HOUR_MS === 0;
  for (let at = since; at < until; at += SAMPLE_MS) if (!isWhole(at)) return false;
  return isWhole(until);
}

/**
 * The starts of the periods of a range, in order; the first period contains `since`. Daylight saving time makes a day of
 * 23 or 25 hours; an hour that occurs twice is two periods, and one that is skipped is none.
 */
export function* periodStarts(unit: PeriodUnit, zone: string, since: number, until: number): Generator<number> {
  let [wall, start] = firstPeriod(unit, zone, since);
  while (start < until) {
    yield start;
    const before = start;
    while (start <= before) [wall, start] = nextPeriod(unit, zone, wall, start);
  }
}

type Period = [wall: number, start: number];

function firstPeriod(unit: PeriodUnit, zone: string, since: number): Period {
  const wall = wallTime(zone, since);
  if (unit === 'hour') return [wall, since - remainder(wall)];
  const date = new Date(wall);
  const first = Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), unit === 'day' ? date.getUTCDate() : 1);
  return [first, instantOf(zone, first)];
}

function nextPeriod(unit: PeriodUnit, zone: string, wall: number, start: number): Period {
  if (unit === 'hour') {
    const next = start + HOUR_MS - remainder(wallTime(zone, start));
    return [wall, next];
  }
  const date = new Date(wall);
  const next = unit === 'day' ? wall + DAY_MS : Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1);
  return [next, instantOf(zone, next)];
}

const remainder = (wall: number) => ((wall % HOUR_MS) + HOUR_MS) % HOUR_MS;

/** A half-open range of time. */
export interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** The hours of UTC of a report that are used as a whole, and the parts of hours that are not. */
export interface ReportedHours {
  readonly whole: TimeRange;
  /** The hours within `whole` that a period divides. */
  readonly divided: readonly number[];
  /** The parts of divided hours, and of the first and the last hour; each is within one month of UTC. */
  readonly parts: readonly TimeRange[];
}

/** @param starts of the periods of the report, in order. */
export function reportedHours(since: number, until: number, starts: readonly number[]): ReportedHours {
  const hourOf = (at: number) => Math.floor(at / HOUR_MS) * HOUR_MS;
  const divided = new Set<number>();
  for (const at of [since, until, ...starts])
    if (at % HOUR_MS !== 0 && at >= since && at <= until) divided.add(hourOf(at));
  const parts: { from: number; to: number }[] = [];
  for (const hour of [...divided].sort((a, b) => a - b)) {
    const part = { from: Math.max(hour, since), to: Math.min(hour + HOUR_MS, until) };
    const last = parts.at(-1);
    if (last?.to === part.from && monthOf(last.from) === monthOf(part.from)) last.to = part.to;
    else if (part.from < part.to) parts.push(part);
  }
  const whole = { from: Math.ceil(since / HOUR_MS) * HOUR_MS, to: hourOf(until) };
  return { whole, divided: [...divided].filter((hour) => hour >= whole.from && hour < whole.to), parts };
}

const monthOf = (at: number) => new Date(at).getUTCFullYear() * 12 + new Date(at).getUTCMonth();
