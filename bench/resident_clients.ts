import { connect, type ResidentAgentLLM } from '../src/client/index.js';
import { serveJobs } from './script.js';

/* A process with many resident clients on separate connections. It records when each one applies a revision. */

export type ResidentJob =
  | {
      readonly kind: 'open';
      readonly port: number;
      readonly agents: readonly string[] | 'all';
      readonly clients: number;
    }
  /** Requests the times at which each client applied the revisions. */
  | { readonly kind: 'report' };

export interface Applied {
  readonly revision: number;
  /** The time in each client, in ms since 1970. */
  readonly at: readonly number[];
}
export interface Report {
  readonly applied: readonly Applied[];
}

const appliedAt = new Map<number, number[]>();
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
    client.on('change', ({ revision }) => record(Number(revision)));
    clients.push(client);
  }
  await Promise.all(clients.map((client) => client.ready(60_000)));
  appliedAt.clear();
  return {};
}

function record(revision: number): void {
  const at = performance.timeOrigin + performance.now();
  const times = appliedAt.get(revision);
  if (times) times.push(at);
  else appliedAt.set(revision, [at]);
}

const report = (): Report => ({ applied: [...appliedAt].map(([revision, at]) => ({ revision, at })) });
