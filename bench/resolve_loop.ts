import { PerformanceObserver } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { GrowthBook } from '@growthbook/growthbook';
import { connect } from '../src/client/index.js';
import { serveJobs } from './script.js';

/* A process that asks for something that it holds, as often as it can: a resolved agent, a static flag, nothing. */

export interface ResolveJob {
  readonly port: number;
  readonly agent: string;
  readonly rounds: number;
}

/** One round on one side. */
export interface Loop {
  readonly perSecond: number;
  /** Of one call, in µs. */
  readonly p50: number;
  /** How often garbage was collected in it. */
  readonly collections: number;
}
export interface ResolveAnswer {
  readonly resolve: readonly Loop[];
  readonly flag: readonly Loop[];
  readonly empty: readonly Loop[];
}

const CALLS = 5_000_000;
/** A clock costs more than a call, so it is read once for so many. */
const TOGETHER = 100;

serveJobs(async ({ port, agent, rounds }: ResolveJob): Promise<ResolveAnswer> => {
  const client = connect({ address: `127.0.0.1:${port}`, agents: [agent] });
  await client.ready();
  const handle = client.agent(agent);
  const flags = new GrowthBook({ features: { model: { defaultValue: 'gpt-4o' } } });
  const sides = {
    resolve: () => handle.resolve(),
    flag: () => flags.getFeatureValue('model', ''),
    empty: () => undefined,
  };
  const answer: Record<keyof typeof sides, Loop[]> = { resolve: [], flag: [], empty: [] };
  // The first round finds code that is not compiled yet.
  for (let round = -1; round < rounds; round++)
    for (const name of Object.keys(sides) as (keyof typeof sides)[]) {
      const measured = await loop(sides[name]);
      if (round >= 0) answer[name].push(measured);
    }
  await client[Symbol.asyncDispose]();
  return answer;
});

/** What was called last: without it a compiler may leave the calls out. */
export let last: unknown;

async function loop(call: () => unknown): Promise<Loop> {
  let collections = 0;
  const observer = new PerformanceObserver((list) => {
    collections += list.getEntries().length;
  });
  observer.observe({ entryTypes: ['gc'] });
  const samples = new Float64Array(CALLS / TOGETHER);
  const from = performance.now();
  for (let sample = 0; sample < samples.length; sample++) {
    const begun = performance.now();
    for (let n = 0; n < TOGETHER; n++) last = call();
    samples[sample] = performance.now() - begun;
  }
  const took = performance.now() - from;
  // Observers hear of it in a later turn.
  await sleep(20);
  observer.disconnect();
  samples.sort();
  return {
    perSecond: (CALLS / took) * 1000,
    p50: ((samples[samples.length >> 1] as number) / TOGETHER) * 1000,
    collections,
  };
}
