/*
 * Two models on one analyst: an experiment from its start to its conclusion. See README.md.
 *
 * npm run example:experiment
 */
import { randomUUID } from 'node:crypto';
import { connect, type ResidentAgentLLM, type WithLanguageModel } from '@agentllm/client/ai';
import { generateText } from 'ai';
import { configure } from './desk_configs.js';
import { reports } from './market.js';
import { isRight } from './planted_outcome.js';
import { agentllm, startFakeProvider, startService, stopAll } from './processes.js';
import { Providers } from './providers.js';

// The receipts contain what the SDK would print as warnings.
Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false });

const AGENT = 'market_analyst';
const EXPERIMENT = 'larger-model';
const VARIANT = 'large';
const ROUND = 60;
const MAX_ROUNDS = 25;
const FLUSH_MS = 10_000;
const TASK = `You are the ${AGENT} of a trading desk. Say whether the price will rise.`;

type Client = ResidentAgentLLM<WithLanguageModel>;

async function run(address: string): Promise<void> {
  const providers = new Providers(await startFakeProvider(), false);
  const client = connect({ address, agents: [AGENT], clientName: 'trading-desk' });
  /** Runs a command and prints it with its output. */
  const command = async (...args: string[]) => {
    const line = args.map((word) => (word.includes(' ') ? `'${word}'` : word)).join(' ');
    console.log(`\n$ agentllm ${line}\n${await agentllm(args, address)}`);
  };
  try {
    await client.ready();
    await configure(client, [AGENT]);
    await command(
      ...['experiments', 'create', EXPERIMENT, '--agent', AGENT, '--subject', 'share'],
      ...['--variant', `${VARIANT}=claude/claude-sonnet-5-5@50%`],
      ...['--metric', 'outcome:hit:higher', '--guardrail', 'error rate +5pp'],
    );
    // The output of the next command is printed when the client has received the experiment.
    await command('experiments', 'start', EXPERIMENT, '--wait', '10000');
    console.log(`\nThe analyst judges ${ROUND} shares at a time, and the results are read after each round:`);
    const winner = await callUntilDecided(client, providers);
    await command('experiments', 'results', EXPERIMENT);
    await command('experiments', 'conclude', EXPERIMENT, '--winner', winner, '--reason', 'more hits');
    await command('resolve', AGENT);
  } finally {
    client.close();
  }
}

/** Makes calls until the results show which variant is better. Returns the name of this variant. */
async function callUntilDecided(client: Client, providers: Providers): Promise<string> {
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const shares = Array.from({ length: ROUND }, (_, at) => `share-${round * ROUND + at + 1}`);
    await Promise.all(shares.map((share) => ask(client, providers, share)));
    await observe(client, shares);
    const results = await client.experiments.getResults({ agent: { name: AGENT }, name: EXPERIMENT });
    console.log(roundLine(results));
    if (results.verdict === 'EXPERIMENT_VERDICT_VARIANT_BETTER') return VARIANT;
    if (results.verdict === 'EXPERIMENT_VERDICT_CONTROL_BETTER') return 'control';
  }
  throw new Error(`no variant is better after ${MAX_ROUNDS * ROUND} shares`);
}

/** The share is the subject: all calls about it have the same model. */
async function ask(client: Client, providers: Providers, share: string): Promise<void> {
  const model = client.agent(AGENT).languageModel({ subject: share, fetch: providers.fetch });
  await generateText({ model, system: TASK, prompt: `${share}\n${reports()[AGENT]}` });
}

/** Reports whether the analyst was right about shares. `agent.recordOutcome()` reports a single outcome. */
async function observe(client: Client, shares: readonly string[]): Promise<void> {
  const outcomes = shares.map((share) => {
    const [hop] = client.agent(AGENT).resolve({ subject: share }).hops;
    const boolean = isRight(`${hop?.provider}/${hop?.model_name}`, share);
    return { outcome_id: randomUUID(), agent: AGENT, subject: share, name: 'hit', boolean };
  });
  // The service must have recorded the calls that the outcomes are about.
  await client.spool.flush(FLUSH_MS);
  const { results } = await client.experiments.recordOutcome({ outcomes });
  const rejected = results.find(({ status }) => status === 'OUTCOME_STATUS_REJECTED');
  if (rejected) throw new Error(`an outcome is rejected: ${rejected.message}`);
}

type Results = Awaited<ReturnType<Client['experiments']['getResults']>>;

/** `  180 shares: difference of the hits 24.1 percentage points, between -3.2 and 51.0` */
function roundLine({ variants, min_subjects }: Results): string {
  const shares = variants.reduce((sum, { subjects }) => sum + subjects, 0n);
  const large = variants.find(({ variant }) => variant === VARIANT);
  const hit = large?.metrics.find(({ metric }) => metric?.outcome === 'hit');
  const interval = hit?.difference?.interval;
  const head = `  ${String(shares).padStart(5)} shares:`;
  if (!interval) return `${head} too few; each variant needs ${min_subjects}`;
  const points = (value: number) => (value * 100).toFixed(1);
  return `${head} difference of the hits ${points(hit.difference?.absolute ?? 0)} percentage points, between ${points(interval.low)} and ${points(interval.high)}`;
}

try {
  await run(await startService());
} catch (error) {
  console.error(`the experiment has stopped: ${(error as Error).message}`);
  process.exitCode = 1;
}
await stopAll();
process.exit();
