import { PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { GrowthBook } from '@growthbook/growthbook';
import { connect } from '../src/client/index.js';
import { serveJobs } from './script.js';

/* A process that measures calls in memory in a loop: resolve() of an agent, a static feature flag, an empty function. */

export interface ResolveJob {
  readonly port: number;
  readonly agent: string;
  readonly rounds: number;
}

/** The result of one round of one function. */
export interface Loop {
  readonly perSecond: number;
  /** Median duration of one call in µs. */
  readonly p50: number;
  /** Number of garbage collections. */
  readonly collections: number;
}
export interface ResolveResult {
  readonly resolve: readonly Loop[];
  readonly flag: readonly Loop[];
  readonly empty: readonly Loop[];
}

const CALLS = 5_000_000;
/** Calls per clock reading: reading the clock takes longer than a call. */
const CALLS_PER_SAMPLE = 100;

serveJobs(async ({ port, agent, rounds }: ResolveJob): Promise<ResolveResult> => {
  const client = connect({ address: `127.0.0.1:${port}`, agents: [agent] });
  await client.ready();
  const handle = client.agent(agent);
  const flags = new GrowthBook({ features: { model: { defaultValue: 'gpt-4o' } } });
  const functions = {
    resolve: () => handle.resolve(),
    flag: () => flags.getFeatureValue('model', ''),
    empty: () => undefined,
  };
  const results: Record<keyof typeof functions, Loop[]> = { resolve: [], flag: [], empty: [] };
  // Round -1 is a warm-up, in which V8 compiles the code.
  for (let round = -1; round < rounds; round++)
    for (const name of Object.keys(functions) as (keyof typeof functions)[]) {
      const measured = await loop(functions[name]);
      if (round >= 0) results[name].push(measured);
    }
  await client[Symbol.asyncDispose]();
  return results;
});

/** The last result, exported so that the compiler cannot eliminate the calls. */
export let last: unknown;

async function loop(call: () => unknown): Promise<Loop> {
  let collections = 0;
  const observer = new PerformanceObserver((list) => {
    collections += list.getEntries().length;
  });
  observer.observe({ entryTypes: ['gc'] });
  const samples = new Float64Array(CALLS / CALLS_PER_SAMPLE);
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
    perSecond: (CALLS / durationMs) * 1000,
    p50: ((samples[samples.length >> 1] as number) / CALLS_PER_SAMPLE) * 1000,
    collections,
  };
}
