import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { begin, connection, startTarget, type Target, underAttack, WATCH, WATCH_ALL } from './attacked_service.js';

const AGENTS = 20_000;
let target: Target;

beforeAll(async () => {
  target = await startTarget({ agents: AGENTS });
});

afterAll(() => target?.stop());

/** Opens watches of all agents on separate connections and ends them when the first bytes arrive. */
async function leaveEarly(count: number, leave: 'reset' | 'disconnect'): Promise<void> {
  const sessions = Array.from({ length: count }, () => connection(target.grpcPort));
  await Promise.all(
    sessions.map(async (session) => {
      const stream = begin(session, { path: WATCH });
      stream.end(WATCH_ALL);
      await Promise.race([new Promise((resolve) => stream.once('data', resolve)), sleep(20_000)]);
      if (leave === 'reset') stream.close(8);
      else session.destroy();
    }),
  );
  await sleep(1_000);
  for (const session of sessions) session.destroy();
}

describe('50 watches that end during their snapshot', { timeout: 120_000 }, () => {
  it.each(['disconnect', 'reset'] as const)('do not delay other callers when the clients %s', async (leave) => {
    const result = await underAttack(target, () => leaveEarly(50, leave));
    console.log(result);
    expect(result.errors).toEqual([]);
    expect(result.longestMs).toBeLessThan(1_000);
  });
});
