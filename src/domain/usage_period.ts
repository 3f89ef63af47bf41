import { instantOf, wallTime } from './time_zone.js';

/* The hours, days and months of a time zone by which reports are grouped. All times are in ms since 1970. */

export type PeriodUnit = 'hour' | 'day' | 'month';

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** A sampling interval that is shorter than the time for which any zone keeps an offset. */
const SAMPLE_MS = 7 * DAY_MS;

/** Whether the hours of a zone coincide with the hours of UTC in a range, so that no hour has to be split. */
export function hasWholeHours(zone: string, since: number, until: number): boolean {
  const isWhole = (at: number) => (wallTime(zone, at) - at) % HOUR_MS === 0;
  for (let at = since; at < until; at += SAMPLE_MS) if (!isWhole(at)) return false;
  return isWhole(until);
}

/**
 * The starts of the periods of a range, in order; the first period contains `since`. With daylight saving time, a day
 * can have 23 or 25 hours; an hour that occurs twice is two periods, and a skipped hour has no period.
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

/** A range of time with an exclusive end. */
export interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** The units of UTC by which sums of usage are stored, largest first. */
export const SUMMED_UNITS = ['month', 'day', 'hour'] as const;
export type SummedUnit = (typeof SUMMED_UNITS)[number];

/**
 * The ranges of a report: whole months, days and hours of UTC, and the remaining parts of hours. Each list is in order,
 * without overlap.
 */
export interface ReportedRanges extends Readonly<Record<SummedUnit, readonly TimeRange[]>> {
  /** Each is within one month of UTC. */
  readonly parts: readonly TimeRange[];
}

/**
 * Divides a report into the largest units of UTC that lie within a single period.
 * @param starts of the periods of the report, in order; `hours`: the hours of UTC.
 */
export function reportedRanges(since: number, until: number, starts: readonly number[] | 'hours'): ReportedRanges {
  const ranges = { month: [] as Range[], day: [] as Range[], hour: [] as Range[], parts: [] as Range[] };
  const units = starts === 'hours' ? (['hour'] as const) : SUMMED_UNITS;
  const limits = [...(starts === 'hours' ? [] : starts.filter((start) => start > since && start < until)), until];
  let at = since;
  for (const limit of limits)
    while (at < limit) {
      const unit = units.find((one) => UNITS[one].startOf(at) === at && UNITS[one].next(at) <= limit);
      const to = unit ? UNITS[unit].next(at) : Math.min(UNITS.hour.next(at), limit);
      append(ranges[unit ?? 'parts'], { from: at, to }, unit !== undefined);
      at = to;
    }
  return ranges;
}

interface Range {
  from: number;
  to: number;
}

/** Extends the last range or adds a new one. A range of parts stays within one month. */
function append(ranges: Range[], range: Range, isWhole: boolean): void {
  const last = ranges.at(-1);
  const isNext = last?.to === range.from && (isWhole || UNITS.month.startOf(range.from) <= last.from);
  if (last && isNext) last.to = range.to;
  else ranges.push(range);
}

/** A unit of a fixed length. */
const unitOf = (length: number) => ({
  startOf: (at: number) => Math.floor(at / length) * length,
  next: (at: number) => Math.floor(at / length) * length + length,
});

const monthStart = (at: number, months: number) => {
  const date = new Date(at);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + months, 1);
};

const UNITS: Readonly<Record<SummedUnit, ReturnType<typeof unitOf>>> = {
  month: { startOf: (at) => monthStart(at, 0), next: (at) => monthStart(at, 1) },
  day: unitOf(DAY_MS),
  hour: unitOf(HOUR_MS),
};

/** The starts of the units of a range that begins and ends with a unit. */
export function* unitStarts(unit: SummedUnit, from: number, to: number): Generator<number> {
  for (let at = from; at < to; at = UNITS[unit].next(at)) yield at;
}
