import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { inSlices, timeSlice } from '../src/time_slice.js';

const work = (ms: number) => {
  for (const until = performance.now() + ms; performance.now() < until; );
};

describe('a loop in slices', () => {
  it('gives the event loop turns although nothing in it waits', async () => {
    let turns = 0;
    let running = true;
    const others = (async () => {
      for (; running; turns++) await turn();
    })();
    for await (const _ of inSlices(Array(50).fill(0))) work(2);
    running = false;
    await others;
    expect(turns).toBeGreaterThan(10);
  });

  it('ends when it is over, and takes no further items', async () => {
    let taken = 0;
    function* items() {
      for (;;) yield ++taken;
    }
    let over = false;
    for await (const item of inSlices(items(), () => over)) if (item === 5) over = true;
    expect(taken).toBe(6);
  });

  it('shares the slice with others: each gets its turn', async () => {
    const done: number[] = [];
    const loop = async (id: number) => {
      for await (const _ of inSlices(Array(10).fill(0))) work(2);
      done.push(id);
    };
    let longest = 0;
    let last = performance.now();
    const watch = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
    }, 1);
    await Promise.all(Array.from({ length: 20 }, (_, id) => loop(id)));
    clearInterval(watch);
    expect(done.sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, id) => id));
    // 400 ms of work: the event loop had turns all the time.
    expect(longest).toBeLessThan(200);
  });

  it('resumes those that wait in their order', async () => {
    while (!timeSlice.isSpent) work(1);
    const order: number[] = [];
    await Promise.all([1, 2, 3].map((id) => timeSlice.next().then(() => order.push(id))));
    expect(order).toEqual([1, 2, 3]);
  });
});
