import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { TokenBucket } from '../../../src/api/dispatch/token_bucket.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

/** The number of events that a bucket admits now. */
function admitted(bucket: TokenBucket): number {
  let count = 0;
  while (bucket.take()) count++;
  return count;
}

it('a token bucket admits its burst at once, and then its rate', () => {
  const bucket = new TokenBucket(60, 5);
  expect(admitted(bucket)).toBe(5);
  vi.advanceTimersByTime(999);
  expect(admitted(bucket)).toBe(0);
  vi.advanceTimersByTime(1);
  expect(admitted(bucket)).toBe(1);
});

it('a token bucket keeps at most its burst while it is not used', () => {
  const bucket = new TokenBucket(60, 5);
  vi.advanceTimersByTime(3_600_000);
  expect(admitted(bucket)).toBe(5);
});
