// A process with several agents that make attempts under reservations, and that can be killed at any moment.
// Usage: node --import tsx budget_agents.ts <address> <attempts of each agent> <agent>…
import { randomUUID } from 'node:crypto';
import type { Attempt, Receipt } from '../../gen/ts/agentllm/v1/receipt.js';
import type { AgentHandle } from '../../src/client/agent.js';
import { connectWith } from '../../src/client/connect.js';
import type { ResidentAgentLLM } from '../../src/client/index.js';
import type { ResolutionHop } from '../../src/client/resolution_types.js';

const [address = '', attempts = '0', ...agents] = process.argv.slice(2);
const made = [0, 0];
let emit: (receipt: Receipt) => void = () => {};
const client = connectWith({ address, agents, reservation: { inputTokens: 1000 } }, (deliver) => {
  emit = deliver;
  return () => {};
}) as ResidentAgentLLM;

/** One call: an attempt at the first hop that the budgets permit, which costs all that was reserved for it. */
async function call(name: string): Promise<void> {
  const handle = client.agent(name) as unknown as AgentHandle;
  const resolution = handle.resolve();
  for (const hop of resolution.hops) {
    const admission = await handle.admit({ resolution, hop, runId: '', signal: undefined });
    if (admission.refused !== undefined) continue;
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
    emit(receiptOf(name, resolution.agent.id, hop, admission.reservationId));
    made[hop.index] = (made[hop.index] ?? 0) + 1;
    return;
  }
}

function receiptOf(agent: string, agent_id: number, hop: ResolutionHop, reservation_id: string): Receipt {
  const { provider, model_name, config_id } = hop;
  const usage = { input_tokens: 1000, output_tokens: 100, raw_json: '' };
  const ids = { attempt_id: randomUUID(), reservation_id };
  const attempt = { ...ids, provider, model_name, config_id, started_at: new Date(), usage, stripped_parameters: [] };
  const receipt = { receipt_id: randomUUID(), agent_id, agent, revision: 0n, run_id: '', experiment: '' };
  return { ...receipt, variant: '', subject: '', attempts: [attempt as unknown as Attempt] } as unknown as Receipt;
}

await client.ready(60_000);
process.stdout.write('ready\n');
await Promise.all(
  agents.map(async (name) => {
    for (let round = 0; round < Number(attempts); round++) await call(name);
  }),
);
await client[Symbol.asyncDispose]();
process.stdout.write(`${JSON.stringify(made)}\n`);
