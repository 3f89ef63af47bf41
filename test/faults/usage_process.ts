/*
 * An agent process that records usage, for tests that kill it: node --import tsx usage_process.ts ADDRESS DIRECTORY MODE.
 * It prints `R id` before it records an attempt, and `K id` when the client has reported the attempt as kept.
 */
import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Receipt } from '../../gen/ts/agentllm/v1/receipt.js';
import type { ResidentAgentLLM } from '../../src/client/client.js';
import { connectWith } from '../../src/client/connect.js';

const [address = '', directory = '', mode = 'record'] = process.argv.slice(2);

// The entry points for AI SDKs pass the receipts of model calls on in the same way.
let emit: (receipt: Receipt) => void = () => {};
const client = connectWith({ address, agents: ['trader'], usage: { directory } }, (deliver) => {
  emit = deliver;
  return () => {};
}) as ResidentAgentLLM;
client.on('warning', ({ kind, message }) => writeSync(2, `${kind} ${message}\n`));

function record(): string[] {
  const ids = Array.from({ length: 1 + Math.floor(Math.random() * 5) }, () => randomUUID());
  const attempts = ids.map((attempt_id) => ({
    attempt_id,
    provider: 'openai',
    model_name: 'gpt-5.4',
    started_at: new Date(),
    usage: { input_tokens: 1_000, output_tokens: 100 },
  }));
  const call = { receipt_id: randomUUID(), agent_id: 1, agent: 'trader', run_id: 'run-7' };
  writeSync(1, ids.map((id) => `R ${id}\n`).join(''));
  emit(Receipt.fromPartial({ ...call, attempts }));
  return ids;
}

const isEmpty = () => !existsSync(directory) || readdirSync(directory).length === 0;

if (mode === 'record')
  for (;;) {
    const ids = [...record(), ...record()];
    if (await client.spool.sync()) writeSync(1, ids.map((id) => `K ${id}\n`).join(''));
    await sleep(Math.random() * 10);
  }
if (mode === 'exit') {
  const ids = record();
  process.on('exit', () => writeSync(1, `S ${client.spool.stats().acknowledged} of ${ids.length}\n`));
}
if (mode === 'finish') {
  const deadline = Date.now() + 60_000;
  while (!isEmpty() && Date.now() < deadline) {
    await client.spool.flush(1_000);
    await sleep(100);
  }
  await client[Symbol.asyncDispose]();
  writeSync(1, `F ${isEmpty()}\n`);
}
