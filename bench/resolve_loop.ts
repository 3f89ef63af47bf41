import { GrowthBook } from '@growthbook/growthbook';
import { connect } from '../src/client/index.js';
import { type Loop, rounds } from './call_loop.js';
import { serveJobs } from './script.js';

/* A process that measures calls in memory in a loop: resolve() of an agent, a static feature flag, an empty function. */

export interface ResolveJob {
  readonly port: number;
  readonly agent: string;
  readonly rounds: number;
}

export interface ResolveResult {
  readonly resolve: readonly Loop[];
  readonly flag: readonly Loop[];
  readonly empty: readonly Loop[];
}

serveJobs(async (job: ResolveJob): Promise<ResolveResult> => {
  const client = connect({ address: `127.0.0.1:${job.port}`, agents: [job.agent] });
  await client.ready();
  const handle = client.agent(job.agent);
  const flags = new GrowthBook({ features: { model: { defaultValue: 'gpt-4o' } } });
  const results = await rounds(job.rounds, {
    resolve: () => handle.resolve(),
    flag: () => flags.getFeatureValue('model', ''),
    empty: () => undefined,
  });
  await client[Symbol.asyncDispose]();
  return results;
});
