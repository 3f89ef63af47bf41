import { setTimeout as sleep } from 'node:timers/promises';
import type { Lab, Program } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { Row } from '../row.js';
import { startService } from '../service.js';
import { compare, type Pair } from '../statistics.js';
import { oneMessage, openStreams, residentBytes, startBareStreams, writer } from '../watching.js';

const WATCHERS = 2_000;
/** Time until the garbage of opening the streams is collected. */
const SETTLE_MS = 5_000;

export const row: Row = {
  name: 'watchers',
  about: `memory of the server for each of ${WATCHERS} idle watchers, against raw streams`,
  target: 'at most 1.3 times as much',
  async run(lab) {
    const pairs: Pair<number>[] = [];
    for (let round = 0; round < Math.min(3, lab.effort.rounds); round++) pairs.push(await measureBoth(lab));
    return [
      {
        what: 'memory per idle watcher',
        unit: 'bytes',
        ...compare(pairs, (bytes) => bytes),
        goal: { kind: 'ratio at most', value: 1.3 },
        note: `growth of the resident set by ${WATCHERS} streams, one connection each, ${SETTLE_MS / 1000} s after they were opened`,
      },
    ];
  },
};

/** Starts new processes for every round, because a process does not return memory to the system. */
async function measureBoth(lab: Lab): Promise<Pair<number>> {
  const postgres = await startPostgres(lab);
  const service = await startService(lab, { DATABASE_URL: await postgres.createDatabase() });
  const message = await oneMessage(lab, service.port, await writer(service.client));
  const ours = await memoryGrowth(lab, service.program, service.port);
  await service.program.stop();
  const bare = await startBareStreams(lab, message);
  const reference = await memoryGrowth(lab, bare.program, bare.port);
  await bare.program.stop();
  return { ours, reference };
}

async function memoryGrowth(lab: Lab, server: Program, port: number): Promise<number> {
  // Open some streams first, so that shared allocations are not attributed to the watchers.
  const first = await openStreams(lab, port, 50);
  await sleep(SETTLE_MS);
  const before = await residentBytes(server);
  const clients = await openStreams(lab, port, WATCHERS);
  await sleep(SETTLE_MS);
  const after = await residentBytes(server);
  await clients.stop();
  await first.stop();
  return (after - before) / WATCHERS;
}
