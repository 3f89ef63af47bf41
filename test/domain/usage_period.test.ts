import { describe, expect, it } from 'vitest';
import { hasWholeHours, type PeriodUnit, periodStarts, reportedHours } from '../../src/domain/usage_period.js';

const ms = (text: string) => Date.parse(text);
const starts = (unit: PeriodUnit, zone: string, since: string, until: string) =>
  [...periodStarts(unit, zone, ms(since), ms(until))].map((at) => new Date(at).toISOString().replace(':00.000Z', 'Z'));

describe('periodStarts', () => {
  it('begins with the period that contains the start of the range', () => {
    expect(starts('day', 'UTC', '2026-11-28T13:00Z', '2026-11-30T00:00Z')).toEqual([
      '2026-11-28T00:00Z',
      '2026-11-29T00:00Z',
    ]);
    expect(starts('month', 'Europe/Berlin', '2026-11-28T13:00Z', '2027-01-01T00:00Z')).toEqual([
      '2026-10-31T23:00Z',
      '2026-11-30T23:00Z',
      '2026-12-31T23:00Z',
    ]);
  });

  it('makes a day of 23 hours when daylight saving time begins, and of 25 hours when it ends', () => {
    expect(starts('day', 'Europe/Berlin', '2026-03-28T23:00Z', '2026-03-30T22:00Z')).toEqual([
      '2026-03-28T23:00Z',
      '2026-03-29T22:00Z',
    ]);
    expect(starts('day', 'Europe/Berlin', '2026-10-24T22:00Z', '2026-10-26T23:00Z')).toEqual([
      '2026-10-24T22:00Z',
      '2026-10-25T23:00Z',
    ]);
  });

  it('has no period for a date that a zone skips', () => {
    // Samoa skipped 30 December 2011.
    expect(starts('day', 'Pacific/Apia', '2011-12-29T10:00Z', '2011-12-31T10:00Z')).toEqual([
      '2011-12-29T10:00Z',
      '2011-12-30T10:00Z',
    ]);
  });

  it('begins hours at the full hour of the clock in a zone with an offset of 45 minutes', () => {
    expect(starts('hour', 'Asia/Kathmandu', '2026-01-01T00:00Z', '2026-01-01T02:00Z')).toEqual([
      '2025-12-31T23:15Z',
      '2026-01-01T00:15Z',
      '2026-01-01T01:15Z',
    ]);
  });

  it('repeats the hour of a clock that is set back, and skips none', () => {
    expect(starts('hour', 'Europe/Berlin', '2026-10-25T00:00Z', '2026-10-25T03:00Z')).toEqual([
      '2026-10-25T00:00Z',
      '2026-10-25T01:00Z',
      '2026-10-25T02:00Z',
    ]);
    expect(starts('hour', 'Australia/Lord_Howe', '2026-04-04T14:00Z', '2026-04-04T17:00Z')).toEqual([
      '2026-04-04T14:00Z',
      '2026-04-04T15:00Z',
      '2026-04-04T15:30Z',
      '2026-04-04T16:30Z',
    ]);
  });
});

describe('hasWholeHours', () => {
  it.each([
    ['UTC', true],
    ['America/New_York', true],
    ['Asia/Kolkata', false],
    ['Australia/Lord_Howe', false],
  ])('of %s is %s', (zone, expected) => {
    expect(hasWholeHours(zone, ms('2026-01-01T00:00Z'), ms('2026-12-31T00:00Z'))).toBe(expected);
  });
});

describe('reportedHours', () => {
  const HOUR = 3_600_000;
  it('uses whole hours of UTC, and parts where the range begins or ends within an hour', () => {
    const { whole, divided, parts } = reportedHours(0.5 * HOUR, 3.25 * HOUR, []);
    expect(whole).toEqual({ from: HOUR, to: 3 * HOUR });
    expect(divided).toEqual([]);
    expect(parts).toEqual([
      { from: 0.5 * HOUR, to: HOUR },
      { from: 3 * HOUR, to: 3.25 * HOUR },
    ]);
  });

  it('has one part when a range is within one hour', () => {
    const { whole, parts } = reportedHours(0.25 * HOUR, 0.5 * HOUR, []);
    expect(whole.from).toBeGreaterThan(whole.to);
    expect(parts).toEqual([{ from: 0.25 * HOUR, to: 0.5 * HOUR }]);
  });

  it('divides the hours in which a period begins', () => {
    const { divided, parts } = reportedHours(0, 4 * HOUR, [-0.5 * HOUR, 1.5 * HOUR]);
    expect(divided).toEqual([HOUR]);
    expect(parts).toEqual([{ from: HOUR, to: 2 * HOUR }]);
  });
});
