// A well-behaved caller in a separate process, so that the work of the attacker does not count as waiting time.
// Usage: node --import tsx caller.ts <pid of the service> <gRPC port> <HTTP port>. Prints the result as JSON when its
// standard input ends.

import { Agent } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { frame, rawCall } from '../grpc/http2_client.js';
import { send } from '../http/support.js';
import { measureWait } from '../support/processor.js';
import { connect } from '../support/service.js';

const PAUSE_MS = 20;
const DEADLINE_MS = 60_000;
const [pid, grpcPort, httpPort] = process.argv.slice(2).map(Number) as [number, number, number];
const clients = connect(grpcPort, process.env['TOKEN']);
const agent = { name: 'trader' };
const openConnection = () => new Agent({ keepAlive: true, maxSockets: 1 });
const connections = { http: openConnection(), health: openConnection() };
let running = true;
let calls = 0;
const errors: string[] = [];

const kinds = {
  read: () => clients.agents.getAgent({ agent }, { deadlineMs: DEADLINE_MS }),
  list: () => clients.configs.listConfigs({}, { deadlineMs: DEADLINE_MS }),
  write: () => clients.configs.upsertPrimaryConfig({ agent, config: { max_tokens: 1_000 + (calls % 1_000) } }),
  connect: async () => {
    const { result } = await rawCall(grpcPort, { body: frame(Buffer.alloc(0)), waitMs: DEADLINE_MS });
    if (!result.startsWith('grpc ')) throw new Error(result);
  },
  connectHttp: () => expectOk('/healthz'),
  http: () => expectOk('/v1/agents/by-name/trader', connections.http),
  health: () => expectOk('/healthz', connections.health),
};

/** @param agent has the open connection; without it, a new one is opened. */
async function expectOk(path: string, agent?: Agent): Promise<void> {
  const { status } = await send(httpPort, 'GET', path, { agent });
  if (status !== 200) throw new Error(`HTTP ${status}`);
}

async function repeat(kind: keyof typeof kinds): Promise<readonly [kind: string, longestMs: number]> {
  let longest = 0;
  while (running) {
    const wait = measureWait(pid, { withEngine: kind === 'write' });
    await kinds[kind]().catch((error: unknown) => errors.push(`${kind}: ${error}`));
    longest = Math.max(longest, Math.round(wait()));
    calls++;
    await sleep(PAUSE_MS);
  }
  return [kind, longest];
}

const names = Object.keys(kinds) as (keyof typeof kinds)[];
// The first calls, which open connections and load code, are not measured.
for (const name of names) await kinds[name]();
const work = Promise.all(names.map(repeat));
process.stdout.write('ready\n');
process.stdin.resume().on('end', async () => {
  running = false;
  const { connect: grpc = 0, connectHttp = 0, ...longest } = Object.fromEntries(await work);
  clients.close();
  for (const connection of Object.values(connections)) connection.destroy();
  const connectMs = Math.max(grpc, connectHttp);
  const longestMs = Math.max(...Object.values(longest));
  process.stdout.write(`${JSON.stringify({ calls, longestMs, longest, connectMs, errors })}\n`);
});
