import { PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

/** The result of one round of one function. */
export interface Loop {
  readonly perSecond: number;
  /** Median duration of one call in µs. */
  readonly p50: number;
  /** Number of garbage collections. */
  readonly collections: number;
}

/** Calls per clock reading: reading the clock takes longer than a call. */
const CALLS_PER_SAMPLE = 100;

/** The last result, exported so that the compiler cannot eliminate the calls. */
export let last: unknown;

/** Calls a function that works in memory in a loop. */
export async function loop(call: () => unknown, calls = 5_000_000): Promise<Loop> {
  let collections = 0;
  const observer = new PerformanceObserver((list) => {
    collections += list.getEntries().length;
  });
  observer.observe({ entryTypes: ['gc'] });
  const samples = new Float64Array(calls / CALLS_PER_SAMPLE);
  const loopStartedAt = performance.now();
  for (let sample = 0; sample < samples.length; sample++) {
    const startedAt = performance.now();
    for (let n = 0; n < CALLS_PER_SAMPLE; n++) last = call();
    samples[sample] = performance.now() - startedAt;
  }
  const durationMs = performance.now() - loopStartedAt;
  // The observer is called in a later turn of the event loop.
  await sleep(20);
  observer.disconnect();
  samples.sort();
  return {
    perSecond: (calls / durationMs) * 1000,
    p50: ((samples[samples.length >> 1] as number) / CALLS_PER_SAMPLE) * 1000,
    collections,
  };
}

/** Measures functions in turns. Round -1 is a warm-up, in which V8 compiles the code. */
export async function rounds<Name extends string>(
  count: number,
  functions: Readonly<Record<Name, () => unknown>>,
  calls: Partial<Record<Name, number>> = {},
): Promise<Record<Name, Loop[]>> {
  const names = Object.keys(functions) as Name[];
  const results = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<Name, Loop[]>;
  for (let round = -1; round < count; round++)
    for (const name of names) {
      const measured = await loop(functions[name], calls[name]);
      if (round >= 0) results[name].push(measured);
    }
  return results;
}
