import { type SummedUnit, type TimeRange, unitStarts } from '../../domain/usage_period.js';
import { timeArray } from '../array_literal.js';
import type { Condition } from './filter.js';

/**
 * The condition that a unit is in one of the ranges. The bounds are written into the statement and not joined as rows,
 * because the planner would estimate a ninth of the table for each row.
 */
export function inRanges(unit: SummedUnit, ranges: readonly TimeRange[]): Condition {
  const [first, last] = [ranges[0], ranges.at(-1)];
  if (!first || !last) return ['false', []];
  const between = `${unit} >= ? and ${unit} < ?`;
  const covered = ranges.reduce((sum, { from, to }) => sum + to - from, 0);
  // In a zone whose days begin within an hour of UTC, there is a gap for each day.
  if (covered > (last.to - first.from) / 2) {
    const gaps = ranges.slice(1).flatMap(({ from }, at) => [...unitStarts(unit, ranges[at]?.to ?? from, from)]);
    const outside = gaps.length > 0 ? ` and ${unit} <> all(?::timestamptz[])` : '';
    const dates = gaps.length > 0 ? [timeArray(gaps.map((ms) => new Date(ms)))] : [];
    return [between + outside, [new Date(first.from), new Date(last.to), ...dates]];
  }
  const each = ranges.map(() => `(${between})`).join(' or ');
  return [`(${each})`, ranges.flatMap(({ from, to }) => [new Date(from), new Date(to)])];
}
