/*
 * Dates in a time zone, with the database of time zones of the JavaScript engine. A wall time is a number like
 * Date.UTC(2026, 2, 29, 2): the date and time that a clock of the zone shows, as if the zone were UTC.
 */

const DAY_MS = 86_400_000;

/** Formats by the name of the zone; only existing zones are kept, so their number is bounded. */
const formats = new Map<string, Intl.DateTimeFormat>();

function formatOf(zone: string): Intl.DateTimeFormat {
  const key = zone.toLowerCase();
  const known = formats.get(key);
  if (known) return known;
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone: zone,
    calendar: 'gregory',
    numberingSystem: 'latn',
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    minute: 'numeric',
    second: 'numeric',
  });
  formats.set(key, format);
  return format;
}

/**
 * The reason why a name is not a time zone of the IANA database; undefined if it is. Offsets such as +01:00 are not
 * names.
 */
export function timeZoneProblem(zone: string): string | undefined {
  const problem = 'must be a time zone of the IANA database, for example Europe/Berlin';
  if (!/^[A-Za-z][A-Za-z0-9+_/-]*$/.test(zone)) return problem;
  try {
    formatOf(zone);
    return undefined;
  } catch {
    return problem;
  }
}

/** The wall time of an instant. */
export function wallTime(zone: string, at: number): number {
  const parts: Record<string, number> = {};
  for (const { type, value } of formatOf(zone).formatToParts(at)) parts[type] = Number(value);
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  const ms = ((at % 1000) + 1000) % 1000;
  return Date.UTC(year, month - 1, day, hour, minute, second, ms);
}

/**
 * The first instant at which a clock of the zone shows a wall time or a later one. If daylight saving time skips the
 * wall time, this is the instant of the change; if it occurs twice, the first occurrence.
 */
export function instantOf(zone: string, wall: number): number {
  const offsetAt = (at: number) => wallTime(zone, at) - at;
  // The zone's clock shows `wall` within a day of this instant, and at most one change of the offset is that near.
  const offsets = [offsetAt(wall - DAY_MS), offsetAt(wall + DAY_MS)];
  const exact = offsets.map((offset) => wall - offset).filter((at) => wallTime(zone, at) === wall);
  if (exact.length > 0) return Math.min(...exact);
  let [before, after] = [wall - Math.max(...offsets), wall - Math.min(...offsets)];
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2);
    if (wallTime(zone, middle) < wall) before = middle;
    else after = middle;
  }
  return after;
}
