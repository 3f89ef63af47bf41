/*
 * The twelve agents of a trading desk make one decision, each with its own model. See README.md.
 *
 * npm run example:trading-desk [-- --address host:port]
 */
import { parseArgs } from 'node:util';
import { connect, type ResidentAgentLLM } from '@agentllm/client/ai';
import { AGENTS, configure, remember } from './desk_configs.js';
import { startFakeProvider, startService, stopAll } from './processes.js';
import { Providers } from './providers.js';
import { costLines, receiptLines } from './report.js';
import { Round } from './round.js';

// The receipts contain what the SDK would print as warnings.
Object.assign(globalThis, { AI_SDK_LOG_WARNINGS: false });

const print = (line: string) => console.log(line);

async function run(address: string, isOwn: boolean): Promise<void> {
  const providers = new Providers(await startFakeProvider());
  const real = providers.real.length > 0 ? `real: ${providers.real.join(', ')}; the others are fake` : 'all are fake';
  print(`service at ${address}${isOwn ? ', with a database in memory' : ''}; providers: ${real}`);
  const client = connect({ address, agents: AGENTS, clientName: 'trading-desk' });
  // The configs of a service that was given belong to others, so they are restored.
  let restore = async () => {};
  try {
    await client.ready();
    restore = isOwn ? restore : await remember(client);
    await configure(client);
    client.on('receipt', (receipt) => print(receiptLines(receipt).join('\n')));
    const since = new Date();
    print(`\n${await Promise.race([new Round(client, providers, print).run(), interruption])}`);
    await printCosts(client, since);
  } finally {
    await restore();
    client.close();
  }
}

/** What the round has cost, from the attempts that the client has recorded. */
async function printCosts(client: ResidentAgentLLM, since: Date): Promise<void> {
  if (!(await client.spool.flush(10_000))) print('\nThe service has not recorded all attempts:');
  const filter = { agents: AGENTS };
  const until = new Date(Date.now() + 1_000);
  const report = await client.usage.queryUsage({ since, until, group_by: ['USAGE_DIMENSION_AGENT'], filter });
  print(['\n6. What it has cost', ...costLines(report)].join('\n'));
}

const { values } = parseArgs({ options: { address: { type: 'string' } } });
// After Ctrl-C the configs of another service are restored, too. npm and the terminal can both send the signal.
const interruption = new Promise<never>((_, reject) => {
  process.on('SIGINT', () => reject(new Error('interrupted')));
});
try {
  await run(values.address ?? (await startService()), values.address === undefined);
} catch (error) {
  console.error(`the desk has stopped: ${(error as Error).message}`);
  process.exitCode = 1;
}
await stopAll();
process.exit();
