import { describe, expect, it } from 'vitest';
import { Semaphore } from '../../src/providers/semaphore.js';

const never = new AbortController().signal;

describe('Semaphore', () => {
  /** Acquires the semaphore for each name and records the names in the order of the results. */
  function acquireAll(semaphore: Semaphore, names: string, signals: Readonly<Record<string, AbortSignal>> = {}) {
    const settled: string[] = [];
    const acquisitions = [...names].map((name) =>
      semaphore.acquire(signals[name] ?? never).then(
        () => settled.push(name),
        (reason: unknown) => settled.push(`${name}: ${reason}`),
      ),
    );
    return { settled, acquisitions, settle: () => new Promise((resolve) => setImmediate(resolve)) };
  }

  it('admits up to its limit immediately and the others in order', async () => {
    const semaphore = new Semaphore(2);
    const { settled, settle } = acquireAll(semaphore, 'abcde');
    await settle();
    expect(settled.join('')).toBe('ab');
    for (const expected of ['abc', 'abcd', 'abcde']) {
      semaphore.release();
      await settle();
      expect(settled.join('')).toBe(expected);
    }
  });

  it('skips a waiting caller whose signal aborts and admits the next one', async () => {
    const semaphore = new Semaphore(1);
    const controller = new AbortController();
    const { settled, settle } = acquireAll(semaphore, 'abc', { b: controller.signal });
    controller.abort('gone');
    await settle();
    expect(settled).toEqual(['a', 'b: gone']);
    semaphore.release();
    await settle();
    expect(settled).toEqual(['a', 'b: gone', 'c']);
  });

  it('rejects a caller whose signal is already aborted', async () => {
    const semaphore = new Semaphore(1);
    await expect(semaphore.acquire(AbortSignal.abort('gone'))).rejects.toBe('gone');
    await semaphore.acquire(never);
  });

  it('does not admit a new caller before the waiting ones', async () => {
    const semaphore = new Semaphore(1);
    const { settled, settle } = acquireAll(semaphore, 'ab');
    await settle();
    semaphore.release();
    const late = acquireAll(semaphore, 'c');
    await settle();
    expect([settled, late.settled]).toEqual([['a', 'b'], []]);
    semaphore.release();
    await settle();
    semaphore.release();
    semaphore.release();
    await semaphore.acquire(never);
    expect(late.settled).toEqual(['c']);
  });

  it('ignores the signal of a caller that has been admitted', async () => {
    const semaphore = new Semaphore(1);
    const controller = new AbortController();
    const { settled, acquisitions } = acquireAll(semaphore, 'ab', { b: controller.signal });
    await acquisitions[0];
    semaphore.release();
    await acquisitions[1];
    controller.abort();
    semaphore.release();
    await semaphore.acquire(never);
    expect(settled).toEqual(['a', 'b']);
  });
});
