import { describe, expect, it } from 'vitest';
import { Semaphore } from '../../src/providers/semaphore.js';

const never = new AbortController().signal;

describe('turns', () => {
  /** Takes a turn for each name, which is written down when it comes. */
  function queue(turns: Semaphore, names: string, signals: Readonly<Record<string, AbortSignal>> = {}) {
    const came: string[] = [];
    const all = [...names].map((name) =>
      turns.take(signals[name] ?? never).then(
        () => came.push(name),
        (reason: unknown) => came.push(`${name}: ${reason}`),
      ),
    );
    return { came, all, settle: () => new Promise((resolve) => setImmediate(resolve)) };
  }

  it('come at once to so many, and to the others in their order', async () => {
    const turns = new Semaphore(2);
    const { came, settle } = queue(turns, 'abcde');
    await settle();
    expect(came.join('')).toBe('ab');
    for (const expected of ['abc', 'abcd', 'abcde']) {
      turns.end();
      await settle();
      expect(came.join('')).toBe(expected);
    }
  });

  it('come to nobody who has gone, and are not lost with them', async () => {
    const turns = new Semaphore(1);
    const gone = new AbortController();
    const { came, settle } = queue(turns, 'abc', { b: gone.signal });
    gone.abort('gone');
    await settle();
    expect(came).toEqual(['a', 'b: gone']);
    turns.end();
    await settle();
    expect(came).toEqual(['a', 'b: gone', 'c']);
  });

  it('do not come to who has gone before', async () => {
    const turns = new Semaphore(1);
    await expect(turns.take(AbortSignal.abort('gone'))).rejects.toBe('gone');
    await turns.take(never);
  });

  it('do not pass those by who wait', async () => {
    const turns = new Semaphore(1);
    const { came, settle } = queue(turns, 'ab');
    await settle();
    turns.end();
    const late = queue(turns, 'c');
    await settle();
    expect([came, late.came]).toEqual([['a', 'b'], []]);
    turns.end();
    await settle();
    turns.end();
    turns.end();
    await turns.take(never);
    expect(late.came).toEqual(['c']);
  });

  it('leave nothing on the signal of who has had one', async () => {
    const turns = new Semaphore(1);
    const controller = new AbortController();
    const { came, all } = queue(turns, 'ab', { b: controller.signal });
    await all[0];
    turns.end();
    await all[1];
    controller.abort();
    turns.end();
    await turns.take(never);
    expect(came).toEqual(['a', 'b']);
  });
});
