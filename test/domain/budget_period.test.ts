import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type BudgetPeriods,
  budgetPeriod,
  type CalendarUnit,
  calendarPeriod,
  calendarPeriods,
  hourOf,
} from '../../src/domain/budget_period.js';

const CREATED = new Date('2026-01-15T08:30:00.000Z');
const budget = (fields: Partial<BudgetPeriods>): BudgetPeriods => ({
  period: 'BUDGET_PERIOD_DAY',
  time_zone: '',
  rolling_hours: null,
  created_at: CREATED,
  ...fields,
});
const range = ({ start, end }: { readonly start: Date; readonly end: Date | undefined }) => [
  start.toISOString(),
  end?.toISOString(),
];
const periodAt = (fields: Partial<BudgetPeriods>, at: string) => range(budgetPeriod(budget(fields), new Date(at)));
const hours = ({ start, end }: { readonly start: Date; readonly end: Date }) =>
  (end.getTime() - start.getTime()) / 3_600_000;

describe('a budget of a day', () => {
  it('has the days of UTC if it has no time zone', () => {
    expect(periodAt({}, '2026-11-29T00:00:00.000Z')).toEqual(['2026-11-29T00:00:00.000Z', '2026-11-30T00:00:00.000Z']);
    expect(periodAt({}, '2026-11-28T23:59:59.999Z')).toEqual(['2026-11-28T00:00:00.000Z', '2026-11-29T00:00:00.000Z']);
  });

  const time_zone = 'Europe/Berlin';

  it('has 23 hours when daylight saving time begins', () => {
    const day = ['2026-03-28T23:00:00.000Z', '2026-03-29T22:00:00.000Z'];
    expect(periodAt({ time_zone }, '2026-03-28T23:00:00.000Z')).toEqual(day);
    expect(periodAt({ time_zone }, '2026-03-29T21:59:59.999Z')).toEqual(day);
    expect(periodAt({ time_zone }, '2026-03-29T22:00:00.000Z')[0]).toBe(day[1]);
    expect(periodAt({ time_zone }, '2026-03-28T22:59:59.999Z')[1]).toBe(day[0]);
  });

  it('has 25 hours when daylight saving time ends', () => {
    const day = ['2026-10-24T22:00:00.000Z', '2026-10-25T23:00:00.000Z'];
    for (const at of ['2026-10-24T22:00:00.000Z', '2026-10-25T00:30:00.000Z', '2026-10-25T01:30:00.000Z'])
      expect(periodAt({ time_zone }, at)).toEqual(day);
    expect(periodAt({ time_zone }, '2026-10-25T22:59:59.999Z')).toEqual(day);
    expect(periodAt({ time_zone }, '2026-10-25T23:00:00.000Z')[0]).toBe(day[1]);
  });

  it('begins at the change when the zone skips midnight', () => {
    expect(periodAt({ time_zone: 'Africa/Cairo' }, '2026-04-24T12:00:00.000Z')).toEqual([
      '2026-04-23T22:00:00.000Z',
      '2026-04-24T21:00:00.000Z',
    ]);
  });

  it('is followed by the day after the next one when the zone skips a date', () => {
    expect(periodAt({ time_zone: 'Pacific/Apia' }, '2011-12-30T09:59:59.999Z')).toEqual([
      '2011-12-29T10:00:00.000Z',
      '2011-12-30T10:00:00.000Z',
    ]);
    expect(periodAt({ time_zone: 'Pacific/Apia' }, '2011-12-30T10:00:00.000Z')).toEqual([
      '2011-12-30T10:00:00.000Z',
      '2011-12-31T10:00:00.000Z',
    ]);
  });

  it('contains the hour that is repeated across midnight', () => {
    // At 00:01 the clock was set back to 23:01 of the day before.
    const day = ['2010-11-07T02:30:00.000Z', '2010-11-08T03:30:00.000Z'];
    for (const at of ['2010-11-07T02:30:30.000Z', '2010-11-07T02:45:00.000Z', '2010-11-07T03:31:00.000Z'])
      expect(periodAt({ time_zone: 'America/St_Johns' }, at)).toEqual(day);
  });
});

describe('a budget of a month', () => {
  const period = 'BUDGET_PERIOD_MONTH';

  it('has the months of its time zone', () => {
    expect(periodAt({ period, time_zone: 'America/New_York' }, '2026-03-01T04:59:59.999Z')).toEqual([
      '2026-02-01T05:00:00.000Z',
      '2026-03-01T05:00:00.000Z',
    ]);
    expect(periodAt({ period, time_zone: 'America/New_York' }, '2026-03-01T05:00:00.000Z')).toEqual([
      '2026-03-01T05:00:00.000Z',
      '2026-04-01T04:00:00.000Z',
    ]);
  });

  it('ends with the year and has a leap day', () => {
    expect(periodAt({ period }, '2027-12-31T23:59:59.999Z')[1]).toBe('2028-01-01T00:00:00.000Z');
    expect(periodAt({ period }, '2028-02-29T12:00:00.000Z')).toEqual([
      '2028-02-01T00:00:00.000Z',
      '2028-03-01T00:00:00.000Z',
    ]);
  });
});

describe('a budget of rolling hours', () => {
  const period = 'BUDGET_PERIOD_ROLLING_HOURS';

  it.each([
    [1, '2026-11-29T12:00:00.000Z', '2026-11-29T12:00:00.000Z', '2026-11-29T13:00:00.000Z'],
    [24, '2026-11-29T12:59:59.999Z', '2026-11-28T13:00:00.000Z', '2026-11-29T13:00:00.000Z'],
    [24, '2026-11-29T13:00:00.000Z', '2026-11-28T14:00:00.000Z', '2026-11-29T14:00:00.000Z'],
  ])('of %i contains at %s the range from %s to %s', (rolling_hours, at, start, end) => {
    expect(periodAt({ period, rolling_hours }, at)).toEqual([start, end]);
  });

  it('is not affected by daylight saving time', () => {
    const found = budgetPeriod(
      budget({ period, rolling_hours: 24, time_zone: 'Europe/Berlin' }),
      new Date('2026-10-25T12:00:00Z'),
    );
    expect(hours(found as { start: Date; end: Date })).toBe(24);
  });

  it('throws when it has no number of hours', () => {
    expect(() => budgetPeriod(budget({ period }), CREATED)).toThrow(/rolling hours/);
  });
});

describe('a total budget', () => {
  it('has one period from its creation, which never ends', () => {
    for (const at of ['2026-01-15T08:30:00.000Z', '2040-01-01T00:00:00.000Z', '2026-01-15T08:29:00.000Z'])
      expect(periodAt({ period: 'BUDGET_PERIOD_TOTAL' }, at)).toEqual([CREATED.toISOString(), undefined]);
  });
});

describe('calendarPeriod', () => {
  const zone = fc.constantFrom(
    'UTC',
    'Europe/Berlin',
    'America/New_York',
    'Asia/Kolkata',
    'Africa/Cairo',
    'Australia/Lord_Howe',
  );
  const unit = fc.constantFrom<CalendarUnit>('day', 'month');
  const time = fc.integer({ min: Date.UTC(2015, 0), max: Date.UTC(2030, 0) }).map((ms) => new Date(ms));

  it('contains its instant and meets its neighbours without a gap, for any zone', () => {
    fc.assert(
      fc.property(unit, zone, time, (one, name, at) => {
        const period = calendarPeriod(one, name, at);
        expect(period.start <= at && at < period.end).toBe(true);
        expect(calendarPeriod(one, name, period.end).start).toEqual(period.end);
        expect(calendarPeriod(one, name, new Date(period.start.getTime() - 1)).end).toEqual(period.start);
      }),
    );
  });

  it('lists the days of a range with both changes of daylight saving time', () => {
    const days = (since: string, until: string) =>
      [...calendarPeriods('day', 'Europe/Berlin', { since: new Date(since), until: new Date(until) })].map(hours);
    expect(days('2026-03-27T23:00:00Z', '2026-03-30T22:00:00Z')).toEqual([24, 23, 24]);
    expect(days('2026-10-23T22:00:00Z', '2026-10-26T23:00:00Z')).toEqual([24, 25, 24]);
  });

  it('lists the periods that a range begins and ends in', () => {
    const since = new Date('2026-01-31T12:00:00Z');
    const months = (until: string) => [...calendarPeriods('month', 'UTC', { since, until: new Date(until) })].length;
    expect([months('2026-02-01T00:00:00.000Z'), months('2026-02-01T00:00:00.001Z')]).toEqual([1, 2]);
    expect(months('2026-01-31T12:00:00Z')).toBe(0);
  });
});

describe('hourOf', () => {
  it('counts the hours of UTC since 1970', () => {
    expect([0, 3_599_999, 3_600_000].map((ms) => hourOf(new Date(ms)))).toEqual([0, 0, 1]);
  });
});
