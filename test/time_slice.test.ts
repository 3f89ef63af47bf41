import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { inSlices, timeSlice } from '../src/time_slice.js';
import { measureLoopLag } from './support/processor.js';

const work = (ms: number) => {
  for (const until = performance.now() + ms; performance.now() < until; );
};

describe('a loop over inSlices', () => {
  it('yields to the event loop although its body never waits', async () => {
    let turns = 0;
    let running = true;
    const eventLoop = (async () => {
      for (; running; turns++) await turn();
    })();
    for await (const _ of inSlices(Array(50).fill(0))) work(2);
    running = false;
    await eventLoop;
    expect(turns).toBeGreaterThan(10);
  });

  it('ends when its stop condition is met and reads no further items', async () => {
    let itemsRead = 0;
    function* items() {
      for (;;) yield ++itemsRead;
    }
    let stopped = false;
    for await (const item of inSlices(items(), () => stopped)) if (item === 5) stopped = true;
    expect(itemsRead).toBe(6);
  });

  it('shares the time slice with concurrent loops without blocking the event loop', async () => {
    const finished: number[] = [];
    const loop = async (id: number) => {
      for await (const _ of inSlices(Array(10).fill(0))) work(2);
      finished.push(id);
    };
    const longestLag = measureLoopLag();
    await Promise.all(Array.from({ length: 20 }, (_, id) => loop(id)));
    expect(finished.sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, id) => id));
    // 400 ms of work in total: the event loop never waits for more than half of it.
    expect(longestLag()).toBeLessThan(200);
  });

  it('resumes waiting loops in the order in which they began to wait', async () => {
    while (!timeSlice.isSpent) work(1);
    const order: number[] = [];
    await Promise.all([1, 2, 3].map((id) => timeSlice.next().then(() => order.push(id))));
    expect(order).toEqual([1, 2, 3]);
  });
});
