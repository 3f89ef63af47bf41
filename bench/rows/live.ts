import { setTimeout as sleep } from 'node:timers/promises';
import { type Lab, runJob } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { Report, ResidentJob } from '../resident_clients.js';
import type { Figure, Row } from '../row.js';
import { startService } from '../service.js';
import { quantile } from '../statistics.js';
import { AGENT, writer } from '../watching.js';

const CLIENTS = 1_000;
const CHANGES = 40;
/** Pause between two changes, because an agent's configuration does not change a hundred times per second. */
const PAUSE_MS = 250;

export const row: Row = {
  name: 'live',
  about: `from sending a write until each of ${CLIENTS} resident clients has applied it`,
  target: 'p99 at most 50 ms on one replica, at most 300 ms across replicas with NOTIFY off',
  async run(lab) {
    const postgres = await startPostgres(lab);
    const [one, two] = [await postgres.createDatabase(), await postgres.createDatabase()];
    const alone = await startService(lab, { DATABASE_URL: one });
    const oneReplica = await measure(lab, alone, alone);
    await alone.program.stop();
    const a = await startService(lab, { DATABASE_URL: two, NOTIFY: 'off' });
    const b = await startService(lab, { DATABASE_URL: two, NOTIFY: 'off' });
    const twoReplicas = await measure(lab, a, b);
    return [...figures('on one replica', oneReplica, 50), ...figures('across replicas, NOTIFY off', twoReplicas, 300)];
  },
};

type Server = Awaited<ReturnType<typeof startService>>;

/** The time from sending each write until each client has applied it, in ms. */
async function measure(lab: Lab, writes: Server, watched: Server): Promise<readonly number[]> {
  const clients = lab.startScript('resident_clients.ts');
  await clients.match(/ready/);
  await runJob(clients, { kind: 'open', port: watched.port, agents: [AGENT], clients: CLIENTS } satisfies ResidentJob);
  const write = await writer(writes.client);
  const sent = new Map<number, number>();
  // A warm-up, in which V8 compiles the code.
  for (let n = 0; n < 5; n++) await write().then(() => sleep(PAUSE_MS));
  for (let n = 0; n < CHANGES; n++) {
    const at = performance.timeOrigin + performance.now();
    sent.set(await write(), at);
    await sleep(PAUSE_MS * (0.5 + Math.random()));
  }
  await sleep(2_000);
  const { applied } = await runJob<Report>(clients, { kind: 'report' } satisfies ResidentJob);
  await clients.stop();
  return delaysOf(sent, applied, CLIENTS);
}

/**
 * The time from sending each write until each client has applied its revision, in ms.
 * @param sent when the write of each revision was sent. Throws unless every client has applied each of them once.
 */
export function delaysOf(
  sent: ReadonlyMap<number, number>,
  applied: Report['applied'],
  clients: number,
): readonly number[] {
  const times = new Map(applied.map(({ revision, at }) => [revision, at]));
  return [...sent].flatMap(([revision, from]) => {
    const at = times.get(revision) ?? [];
    if (at.length !== clients) throw new Error(`${at.length} of ${clients} clients applied revision ${revision}`);
    return at.map((time) => time - from);
  });
}

const figures = (where: string, latencies: readonly number[], limit: number): Figure[] => [
  {
    what: `write to applied ${where}, p99`,
    unit: 'ms',
    ours: quantile(latencies, 0.99),
    reference: limit,
    compared: quantile(latencies, 0.99) - limit,
    goal: { kind: 'difference at most', value: 0 },
    note: `${CLIENTS} clients in one process, ${CHANGES} changes; the reference is the target`,
  },
  { what: `write to applied ${where}, p50`, unit: 'ms', ours: quantile(latencies, 0.5) },
];
