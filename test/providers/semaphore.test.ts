import { describe, expect, it } from 'vitest';
import { Semaphore } from '../../src/providers/semaphore.js';

const never = new AbortController().signal;

describe('semaphore', () => {
  /** Takes a turn for each name, which is written down when it comes. */
  function queue(semaphore: Semaphore, names: string, signals: Readonly<Record<string, AbortSignal>> = {}) {
    const came: string[] = [];
    const all = [...names].map((name) =>
      semaphore.acquire(signals[name] ?? never).then(
        () => came.push(name),
        (reason: unknown) => came.push(`${name}: ${reason}`),
      ),
    );
    return { came, all, settle: () => new Promise((resolve) => setImmediate(resolve)) };
  }

  it('come at once to so many, and to the others in their order', async () => {
    const semaphore = new Semaphore(2);
    const { came, settle } = queue(semaphore, 'abcde');
    await settle();
    expect(came.join('')).toBe('ab');
    for (const expected of ['abc', 'abcd', 'abcde']) {
      semaphore.release();
      await settle();
      expect(came.join('')).toBe(expected);
    }
  });

  it('come to nobody who has gone, and are not lost with them', async () => {
    const semaphore = new Semaphore(1);
    const gone = new AbortController();
    const { came, settle } = queue(semaphore, 'abc', { b: gone.signal });
    gone.abort('gone');
    await settle();
    expect(came).toEqual(['a', 'b: gone']);
    semaphore.release();
    await settle();
    expect(came).toEqual(['a', 'b: gone', 'c']);
  });

  it('do not come to who has gone before', async () => {
    const semaphore = new Semaphore(1);
    await expect(semaphore.acquire(AbortSignal.abort('gone'))).rejects.toBe('gone');
    await semaphore.acquire(never);
  });

  it('do not pass those by who wait', async () => {
    const semaphore = new Semaphore(1);
    const { came, settle } = queue(semaphore, 'ab');
    await settle();
    semaphore.release();
    const late = queue(semaphore, 'c');
    await settle();
    expect([came, late.came]).toEqual([['a', 'b'], []]);
    semaphore.release();
    await settle();
    semaphore.release();
    semaphore.release();
    await semaphore.acquire(never);
    expect(late.came).toEqual(['c']);
  });

  it('leave nothing on the signal of who has had one', async () => {
    const semaphore = new Semaphore(1);
    const controller = new AbortController();
    const { came, all } = queue(semaphore, 'ab', { b: controller.signal });
    await all[0];
    semaphore.release();
    await all[1];
    controller.abort();
    semaphore.release();
    await semaphore.acquire(never);
    expect(came).toEqual(['a', 'b']);
  });
});
