import { describe, expect, it } from 'vitest';
import {
  hasWholeHours,
  type PeriodUnit,
  periodStarts,
  reportedRanges,
  SUMMED_UNITS,
} from '../../src/domain/usage_period.js';

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

describe('reportedRanges', () => {
  const HOUR = 3_600_000;
  const range = (from: string, to: string) => ({ from: ms(from), to: ms(to) });

  it('uses the largest units of UTC, and parts where the range begins or ends within an hour', () => {
    expect(reportedRanges(ms('2026-01-30T22:30Z'), ms('2026-04-02T01:15Z'), [])).toEqual({
      parts: [range('2026-01-30T22:30Z', '2026-01-30T23:00Z'), range('2026-04-02T01:00Z', '2026-04-02T01:15Z')],
      hour: [range('2026-01-30T23:00Z', '2026-01-31T00:00Z'), range('2026-04-02T00:00Z', '2026-04-02T01:00Z')],
      day: [range('2026-01-31T00:00Z', '2026-02-01T00:00Z'), range('2026-04-01T00:00Z', '2026-04-02T00:00Z')],
      month: [range('2026-02-01T00:00Z', '2026-04-01T00:00Z')],
    });
  });

  it('has one part when a range is within one hour', () => {
    const parts = [{ from: 0.25 * HOUR, to: 0.5 * HOUR }];
    expect(reportedRanges(0.25 * HOUR, 0.5 * HOUR, [])).toEqual({ parts, hour: [], day: [], month: [] });
  });

  it('divides the units in which a period begins', () => {
    const since = ms('2026-02-01T00:00Z');
    expect(reportedRanges(since, since + 48 * HOUR, [since - HOUR, since + 1.5 * HOUR])).toEqual({
      parts: [{ from: since + HOUR, to: since + 2 * HOUR }],
      hour: [
        { from: since, to: since + HOUR },
        { from: since + 2 * HOUR, to: since + 24 * HOUR },
      ],
      day: [{ from: since + 24 * HOUR, to: since + 48 * HOUR }],
      month: [],
    });
  });

  it('uses whole days between the months of a zone, and hours where a month begins', () => {
    const [since, until] = [ms('2026-02-28T23:00Z'), ms('2026-04-30T22:00Z')];
    const starts = [...periodStarts('month', 'Europe/Berlin', since, until)];
    expect(reportedRanges(since, until, starts)).toEqual({
      parts: [],
      hour: [
        range('2026-02-28T23:00Z', '2026-03-01T00:00Z'),
        range('2026-03-31T00:00Z', '2026-04-01T00:00Z'),
        range('2026-04-30T00:00Z', '2026-04-30T22:00Z'),
      ],
      day: [range('2026-03-01T00:00Z', '2026-03-31T00:00Z'), range('2026-04-01T00:00Z', '2026-04-30T00:00Z')],
      month: [],
    });
  });

  it('uses only hours for hours of UTC', () => {
    const [since, until] = [ms('2026-01-01T00:00Z'), ms('2027-01-01T00:00Z')];
    const hour = [{ from: since, to: until }];
    expect(reportedRanges(since, until, 'hours')).toEqual({ parts: [], hour, day: [], month: [] });
  });

  it.each(['UTC', 'Europe/Berlin', 'Asia/Kolkata', 'Australia/Lord_Howe'])(
    'covers a year by the periods of %s without a gap, and no range contains the start of another period',
    (zone) => {
      const [since, until] = [ms('2026-01-05T07:20Z'), ms('2027-01-05T07:20Z')];
      for (const unit of ['month', 'day', 'hour'] as const) {
        const starts = [...periodStarts(unit, zone, since, until)];
        const { parts, ...whole } = reportedRanges(since, until, starts);
        const all = [...parts, ...SUMMED_UNITS.flatMap((one) => whole[one])].sort((a, b) => a.from - b.from);
        expect(all[0]?.from).toBe(since);
        expect(all.at(-1)?.to).toBe(until);
        for (const [at, { from }] of all.entries()) if (at > 0) expect(from).toBe(all[at - 1]?.to);
        const lengths = { month: Number.NaN, day: 24 * HOUR, hour: HOUR };
        for (const one of ['day', 'hour'] as const)
          for (const { from, to } of whole[one])
            expect(starts.filter((start) => start > from && start < to && (start - from) % lengths[one] !== 0)).toEqual(
              [],
            );
      }
    },
  );
});
