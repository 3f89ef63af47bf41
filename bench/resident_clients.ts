import { connect, type ResidentAgentLLM } from '../src/client/index.js';
import { serveJobs } from './script.js';

/* A process with many resident clients, each on a connection of its own, that notes when each has applied a revision. */

export type ResidentJob =
  | {
      readonly kind: 'open';
      readonly port: number;
      readonly agents: readonly string[] | 'all';
      readonly clients: number;
    }
  /** Asks for when each client had each revision that was applied so far. */
  | { readonly kind: 'report' };

export interface Applied {
  readonly revision: number;
  /** Of each client, in ms since 1970. */
  readonly at: readonly number[];
}
export interface Report {
  readonly applied: readonly Applied[];
}

const seen = new Map<number, number[]>();
const clients: ResidentAgentLLM[] = [];

serveJobs(async (job: ResidentJob) => (job.kind === 'open' ? await open(job) : report()));

async function open({ port, agents, clients: number }: ResidentJob & { kind: 'open' }): Promise<object> {
  for (let n = 0; n < number; n++) {
    const client = connect({
      address: `127.0.0.1:${port}`,
      agents,
      clientName: `bench-${n}`,
      channelOptions: { 'grpc.use_local_subchannel_pool': 1 },
    });
    client.on('change', ({ revision }) => note(Number(revision)));
    clients.push(client);
  }
  await Promise.all(clients.map((client) => client.ready(60_000)));
  seen.clear();
  return {};
}

function note(revision: number): void {
  const at = performance.timeOrigin + performance.now();
  const times = seen.get(revision);
  if (times) times.push(at);
  else seen.set(revision, [at]);
}

const report = (): Report => ({ applied: [...seen].map(([revision, at]) => ({ revision, at })) });
