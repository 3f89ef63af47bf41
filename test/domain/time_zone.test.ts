import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { instantOf, timeZoneProblem, wallTime } from '../../src/domain/time_zone.js';

const shownIn = (zone: string, at: string) => new Date(wallTime(zone, Date.parse(at))).toISOString();
const instant = (zone: string, wall: string) => new Date(instantOf(zone, Date.parse(`${wall}Z`))).toISOString();

describe('timeZoneProblem', () => {
  it.each(['UTC', 'Europe/Berlin', 'America/Argentina/Buenos_Aires', 'Etc/GMT+5', 'Asia/Kolkata'])(
    'accepts the name %s',
    (zone) => expect(timeZoneProblem(zone)).toBeUndefined(),
  );

  it.each(['', 'Mars/Olympus', '+01:00', '-0100', 'Europe/Berlin\n', ' UTC', '../etc/passwd', '1'])(
    'rejects %j',
    (zone) => expect(timeZoneProblem(zone)).toMatch(/^must be a time zone/),
  );
});

describe('wallTime', () => {
  it.each([
    ['UTC', '2026-11-29T12:00:00.123Z', '2026-11-29T12:00:00.123Z'],
    ['Europe/Berlin', '2026-03-29T00:59:59.999Z', '2026-03-29T01:59:59.999Z'],
    ['Europe/Berlin', '2026-03-29T01:00:00.000Z', '2026-03-29T03:00:00.000Z'],
    ['Asia/Kathmandu', '2026-11-28T18:15:00.000Z', '2026-11-29T00:00:00.000Z'],
    ['America/New_York', '2026-11-29T04:59:59.000Z', '2026-11-28T23:59:59.000Z'],
  ])('in %s at %s is %s', (zone, at, expected) => expect(shownIn(zone, at)).toBe(expected));
});

describe('instantOf', () => {
  it.each([
    ['Europe/Berlin', '2026-07-01T00:00:00', '2026-06-30T22:00:00.000Z'],
    // Skipped: the clock goes from 02:00 to 03:00.
    ['Europe/Berlin', '2026-03-29T02:30:00', '2026-03-29T01:00:00.000Z'],
    // Twice: the clock goes from 03:00 back to 02:00.
    ['Europe/Berlin', '2026-10-25T02:30:00', '2026-10-25T00:30:00.000Z'],
    // Midnight is skipped: the clock goes from 00:00 to 01:00.
    ['Africa/Cairo', '2026-04-24T00:00:00', '2026-04-23T22:00:00.000Z'],
    // The whole date is skipped.
    ['Pacific/Apia', '2011-12-30T00:00:00', '2011-12-30T10:00:00.000Z'],
    ['Pacific/Apia', '2011-12-31T00:00:00', '2011-12-30T10:00:00.000Z'],
    // The clock shows midnight, and goes back to 23:01 a minute later.
    ['America/St_Johns', '2010-11-07T00:00:00', '2010-11-07T02:30:00.000Z'],
  ])('in %s of %s is %s', (zone, wall, expected) => expect(instant(zone, wall)).toBe(expected));

  it('is the first instant that shows the wall time or a later one, for any zone and time', () => {
    const zones = [
      'UTC',
      'Europe/Berlin',
      'America/New_York',
      'Asia/Kolkata',
      'Australia/Lord_Howe',
      'Africa/Casablanca',
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...zones),
        fc.integer({ min: Date.UTC(2015, 0), max: Date.UTC(2030, 0) }),
        (zone, wall) => {
          const found = instantOf(zone, wall);
          expect(wallTime(zone, found)).toBeGreaterThanOrEqual(wall);
          expect(wallTime(zone, found - 1)).toBeLessThan(wall);
        },
      ),
    );
  });
});
