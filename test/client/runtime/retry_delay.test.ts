import { describe, expect, it } from 'vitest';
import { retryAfter, retryDelay } from '../../../src/client/runtime/retry_delay.js';

const NOW = new Date('2026-11-28T12:00:00Z');
const after = (headers: Record<string, string>) => retryAfter(new Headers(headers), NOW);

describe('retryAfter', () => {
  it.each([
    [{ 'retry-after-ms': '1500', 'retry-after': '99' }, 1500],
    [{ 'retry-after': '2' }, 2000],
    [{ 'retry-after': '0.5' }, 500],
    [{ 'retry-after': '0' }, 0],
    [{ 'retry-after': 'Sat, 28 Nov 2026 12:00:30 GMT' }, 30_000],
    [{ 'retry-after': 'Sat, 28 Nov 2026 11:00:00 GMT' }, 0],
    [{}, undefined],
    [{ 'retry-after': '-5' }, undefined],
    [{ 'retry-after': 'soon' }, undefined],
    [{ 'retry-after': '1e9' }, undefined],
    [{ 'retry-after': '' }, undefined],
  ])('reads %j as %s ms', (headers, expected) => {
    expect(after(headers as Record<string, string>)).toBe(expected);
  });
});

describe('retryDelay', () => {
  it('is a random part of a bound that doubles up to 8 s', () => {
    expect([0, 1, 2, 3, 9].map((retries) => retryDelay(retries, undefined, () => 1))).toEqual([
      500, 1000, 2000, 4000, 8000,
    ]);
    expect(retryDelay(3, undefined, () => 0)).toBe(0);
  });

  it('is never below Retry-After', () => {
    expect(retryDelay(0, 2000, () => 0)).toBe(2000);
    expect(retryDelay(0, 60_000, () => 1)).toBe(60_250);
  });
});
