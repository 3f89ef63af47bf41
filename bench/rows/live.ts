import { setTimeout as sleep } from 'node:timers/promises';
import { ask, type Lab } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { Report, ResidentJob } from '../resident_clients.js';
import type { Figure, Row } from '../row.js';
import { startService } from '../service.js';
import { quantile } from '../statistics.js';
import { AGENT, writer } from '../watching.js';

const CLIENTS = 1_000;
const CHANGES = 40;
/** Between two changes: an agent's configuration does not change a hundred times a second. */
const PAUSE_MS = 250;

export const row: Row = {
  name: 'live',
  about: `from sending a write until each of ${CLIENTS} resident clients has applied it`,
  target: 'p99 at most 50 ms on one replica, at most 300 ms across replicas with NOTIFY off',
  async run(lab) {
    const postgres = await startPostgres(lab);
    const [one, two] = [await postgres.createDatabase(), await postgres.createDatabase()];
    const alone = await startService(lab, { DATABASE_URL: one });
    const near = await measure(lab, alone, alone);
    await alone.program.stop();
    const a = await startService(lab, { DATABASE_URL: two, NOTIFY: 'off' });
    const b = await startService(lab, { DATABASE_URL: two, NOTIFY: 'off' });
    const far = await measure(lab, a, b);
    return [...figures('on one replica', near, 50), ...figures('across replicas, NOTIFY off', far, 300)];
  },
};

type Server = Awaited<ReturnType<typeof startService>>;

/** How long it took in each client, in ms; the clock starts before the write is sent. */
async function measure(lab: Lab, writes: Server, watched: Server): Promise<number[]> {
  const clients = lab.startScript('resident_clients.ts');
  await clients.match(/ready/);
  await ask(clients, { kind: 'open', port: watched.port, agents: [AGENT], clients: CLIENTS } satisfies ResidentJob);
  const write = await writer(writes.client);
  const sent = new Map<number, number>();
  // The first ones find code that is not compiled yet.
  for (let n = 0; n < 5; n++) await write().then(() => sleep(PAUSE_MS));
  for (let n = 0; n < CHANGES; n++) {
    const at = performance.timeOrigin + performance.now();
    sent.set(await write(), at);
    await sleep(PAUSE_MS * (0.5 + Math.random()));
  }
  await sleep(2_000);
  const { applied } = await ask<Report>(clients, { kind: 'report' } satisfies ResidentJob);
  await clients.stop();
  return applied.flatMap(({ revision, at }) => {
    const from = sent.get(revision);
    if (from !== undefined && at.length !== CLIENTS) throw new Error(`${at.length} clients applied ${revision}`);
    return from === undefined ? [] : at.map((time) => time - from);
  });
}

const figures = (where: string, latencies: readonly number[], most: number): Figure[] => [
  {
    what: `write to applied ${where}, p99`,
    unit: 'ms',
    ours: quantile(latencies, 0.99),
    reference: most,
    compared: quantile(latencies, 0.99) - most,
    goal: { kind: 'difference at most', value: 0 },
    note: `${CLIENTS} clients in one process, ${CHANGES} changes; the reference is the target itself`,
  },
  { what: `write to applied ${where}, p50`, unit: 'ms', ours: quantile(latencies, 0.5) },
];
