import { afterEach, describe, expect, it, vi } from 'vitest';
import { Backoff } from '../../src/client/backoff.js';

afterEach(() => {
  vi.restoreAllMocks();
});

/** The values that Math.random can return, at its limits. */
const LOWEST = 0;
const HIGHEST = 1 - Number.EPSILON;

describe('the pause before a retry', () => {
  const pauses = (random: number, count: number) => {
    vi.spyOn(Math, 'random').mockReturnValue(random);
    const backoff = new Backoff();
    return Array.from({ length: count }, () => Math.round(backoff.next()));
  };

  it('is at least 100 ms and at most a bound that doubles up to 5 s', () => {
    expect(pauses(LOWEST, 8)).toEqual(Array(8).fill(100));
    expect(pauses(HIGHEST, 8)).toEqual([200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
  });

  it('starts again with a short bound after a reset', () => {
    vi.spyOn(Math, 'random').mockReturnValue(HIGHEST);
    const backoff = new Backoff();
    for (let failures = 0; failures < 20; failures++) backoff.next();
    backoff.reset();
    expect(Math.round(backoff.next())).toBe(200);
  });

  it('is at least the time that the service requests, up to a minute', () => {
    vi.spyOn(Math, 'random').mockReturnValue(HIGHEST);
    expect(new Backoff().next(1_500)).toBe(1_500);
    expect(Math.round(new Backoff().next(50))).toBe(200);
    expect(new Backoff().next(3_600_000)).toBe(60_000);
  });

  it.each([
    [LOWEST, 4_000],
    [HIGHEST, 5_000],
  ])('is between 4 and 5 s after a failure that persists (%d)', (random, ms) => {
    vi.spyOn(Math, 'random').mockReturnValue(random);
    expect(Math.round(new Backoff().longest())).toBe(ms);
  });
});
