import { describe, expect, it } from 'vitest';
import { ConcurrencyLimiter, type Refusal } from '../src/concurrency_limiter.js';
import { ServiceError } from '../src/errors.js';

const limitError: Refusal = (count, scope) => ServiceError.of('TOO_MANY_CALLS', { calls: `${scope} ${count}` });
const rejectedWith = (calls: string) => expect.objectContaining({ reason: 'TOO_MANY_CALLS', metadata: { calls } });

describe('ConcurrencyLimiter', () => {
  it('rejects an entry over the total limit, with or without a key', () => {
    const limiter = new ConcurrencyLimiter({ total: () => 2 });
    limiter.enter(1, limitError);
    limiter.enter(undefined, limitError);
    expect(() => limiter.enter(1, limitError)).toThrow(rejectedWith('total 2'));
    expect(() => limiter.enter(undefined, limitError)).toThrow(rejectedWith('total 2'));
    expect(limiter.tryEnter()).toBe(false);
    expect(limiter.count).toBe(2);
  });

  it('rejects an entry over the limit of its key and admits other keys', () => {
    const limiter = new ConcurrencyLimiter({ total: () => 10, perKey: () => 2 });
    limiter.enter(1, limitError);
    limiter.enter(1, limitError);
    expect(() => limiter.enter(1, limitError)).toThrow(rejectedWith('key 2'));
    expect([limiter.tryEnter(2), limiter.tryEnter(), limiter.tryEnter(), limiter.tryEnter()]).not.toContain(false);
    expect(limiter.count).toBe(6);
  });

  it('does not count a rejected entry and admits again after each leave', () => {
    const limiter = new ConcurrencyLimiter({ total: () => 2, perKey: () => 1 });
    for (let round = 0; round < 3; round++) {
      expect(limiter.tryEnter(7)).toBe(true);
      expect(limiter.tryEnter(7)).toBe(false);
      expect(limiter.tryEnter()).toBe(true);
      expect(limiter.tryEnter(8)).toBe(false);
      limiter.leave();
      limiter.leave(7);
    }
    expect(limiter.count).toBe(0);
  });

  it('admits every entry when no limit is set', () => {
    const limiter = new ConcurrencyLimiter({});
    expect(Array.from({ length: 1000 }, () => limiter.tryEnter(1))).not.toContain(false);
  });
});
