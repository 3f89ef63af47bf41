/* A confidence interval drawn as one line of text. */

/** A difference with its interval, if there is one. */
export interface Interval {
  readonly value: number;
  readonly low?: number | undefined;
  readonly high?: number | undefined;
}

/** The number of columns; odd, so that 0 is in the middle. */
const WIDTH = 31;
const MIDDLE = (WIDTH - 1) / 2;

/** The heading of a column of charts. */
export const CHART_HEAD = `lower${'0'.padStart(MIDDLE - 4)}${'higher'.padStart(WIDTH - MIDDLE - 1)}`;

/** The largest distance from 0, which is the common scale of the charts of one metric. */
export function extentOf(intervals: readonly Interval[]): number {
  const ends = intervals.flatMap(({ value, low, high }) => [value, low, high]);
  const finite = ends.filter((end): end is number => end !== undefined && Number.isFinite(end));
  return Math.max(0, ...finite.map(Math.abs)) || 1;
}

/**
 * `   ├──●──┤  │      `: the interval, the value and 0. If there is no interval, `○` marks the value.
 * @param extent the distance from 0 of both ends of the line.
 */
export function intervalChart(interval: Interval | undefined, extent: number): string {
  const cells: string[] = Array.from({ length: WIDTH }, () => ' ');
  cells[MIDDLE] = '│';
  if (!interval) return cells.join('').trimEnd();
  const column = (value: number) => Math.min(WIDTH - 1, Math.max(0, Math.round((value / extent + 1) * MIDDLE)));
  const { value, low, high } = interval;
  if (low === undefined || high === undefined) {
    cells[column(value)] = '○';
    return cells.join('').trimEnd();
  }
  const [from, to] = [column(low), column(high)];
  for (let at = from; at <= to; at++) cells[at] = at === MIDDLE ? '┼' : '─';
  cells[from] = '├';
  cells[to] = '┤';
  cells[column(value)] = '●';
  return cells.join('').trimEnd();
}
