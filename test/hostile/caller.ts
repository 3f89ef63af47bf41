// A well-behaved caller in a separate process, so that the work of the attacker does not count as waiting time.
// Usage: node --import tsx caller.ts <gRPC port> <HTTP port>. Prints the result as JSON when its standard input ends.

import { setTimeout as sleep } from 'node:timers/promises';
import { send } from '../http/support.js';
import { connect } from '../support/service.js';

const PAUSE_MS = 20;
const [grpcPort, httpPort] = process.argv.slice(2).map(Number) as [number, number];
const clients = connect(grpcPort, process.env['TOKEN']);
const agent = { name: 'trader' };
let running = true;
let calls = 0;
const longest = { read: 0, write: 0, http: 0 };
const errors: string[] = [];

async function repeat(kind: keyof typeof longest, call: () => Promise<unknown>): Promise<void> {
  // The first call, which opens the connection and loads code, is not measured.
  await call();
  while (running) {
    const started = performance.now();
    await call().catch((error: unknown) => errors.push(String(error)));
    longest[kind] = Math.max(longest[kind], Math.round(performance.now() - started));
    calls++;
    await sleep(PAUSE_MS);
  }
}

const work = Promise.all([
  repeat('read', () => clients.agents.getAgent({ agent }, { deadlineMs: 60_000 })),
  repeat('write', () =>
    clients.configs.upsertPrimaryConfig({ agent, config: { max_tokens: 1_000 + (calls % 1_000) } }),
  ),
  repeat('http', () => send(httpPort, 'GET', '/healthz')),
]);
setTimeout(() => process.stdout.write('ready\n'), 500);
process.stdin.resume().on('end', async () => {
  running = false;
  await work;
  clients.close();
  process.stdout.write(
    `${JSON.stringify({ calls, longestMs: Math.max(...Object.values(longest)), longest, errors })}\n`,
  );
});
