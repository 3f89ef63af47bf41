import { setTimeout as sleep } from 'node:timers/promises';
import { GrowthBook } from '@growthbook/growthbook';
import { connect, type ResidentAgentLLM } from '../src/client/index.js';
import { type Loop, rounds } from './call_loop.js';
import { serveJobs } from './script.js';

/*
 * A process that measures calls in memory in a loop: resolve() of an agent, resolve() of an agent with an experiment, a
 * static feature flag, an empty function.
 */

export interface ResolveJob {
  readonly port: number;
  readonly agent: string;
  readonly rounds: number;
}

export interface ResolveResult {
  readonly resolve: readonly Loop[];
  /** With an experiment, for 1024 subjects in turn. */
  readonly assigned: readonly Loop[];
  readonly flag: readonly Loop[];
  readonly empty: readonly Loop[];
}

/** The agent with the experiment. */
const TESTED = 'tested';
/** Made before, because they are objects of the caller. */
const OPTIONS = Array.from({ length: 1024 }, (_, at) => ({ subject: `run-2026-11-29-${String(at).padStart(6, '0')}` }));

/** Creates an agent with an experiment of three variants that is running, and waits until the client has it. */
async function startExperiment(client: ResidentAgentLLM): Promise<void> {
  const agent = { name: TESTED };
  await client.agents.createAgent({ agent: { ...agent, agent_type: 'analyst' } });
  await client.configs.createConfig({ agent, config: { provider: 'openai', model_name: 'gpt-5.4' } });
  const others = ['gpt-5.4-mini', 'gpt-5.4-nano'].map((model_name) => ({
    name: model_name,
    weight_basis_points: 3000,
    overrides: { model_name },
  }));
  const variants = [{ name: 'control', control: true, weight_basis_points: 4000 }, ...others];
  const primary_metric = { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' } as const;
  const experiment = { name: 'models', variants, primary_metric };
  await client.experiments.createExperiment({ agent, experiment, allow_unknown_model: true });
  await client.experiments.startExperiment({ agent, name: 'models' });
  while (variantsOf(client) < variants.length) await sleep(10);
}

/** The number of variants that the subjects have. */
function variantsOf(client: ResidentAgentLLM): number {
  try {
    const handle = client.agent(TESTED);
    return new Set(OPTIONS.map((options) => handle.resolve(options).experiment?.variant)).size;
  } catch {
    return 0;
  }
}

serveJobs(async (job: ResolveJob): Promise<ResolveResult> => {
  const client = connect({ address: `127.0.0.1:${job.port}`, agents: [job.agent, TESTED] });
  await client.ready();
  await startExperiment(client);
  const tested = client.agent(TESTED);
  let next = 0;
  const handle = client.agent(job.agent);
  const flags = new GrowthBook({ features: { model: { defaultValue: 'gpt-4o' } } });
  const results = await rounds(job.rounds, {
    resolve: () => handle.resolve(),
    assigned: () => tested.resolve(OPTIONS[next++ & 1023]),
    flag: () => flags.getFeatureValue('model', ''),
    empty: () => undefined,
  });
  await client[Symbol.asyncDispose]();
  return results;
});
