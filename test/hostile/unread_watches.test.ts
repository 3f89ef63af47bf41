import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { begin, connection, startTarget, type Target, underAttack, WATCH, WATCH_ALL } from './attacked_service.js';

const AGENTS = 20_000;
const WATCHES = 500;
let target: Target | undefined;

afterEach(() => target?.stop());

/** Watches of all agents whose responses are never read: the client gives the service no window for them. */
async function neverRead(port: number, connections: number): Promise<() => void> {
  const sessions = Array.from({ length: connections }, () => connection(port));
  for (let at = 0; at < WATCHES; at++) {
    const stream = begin(sessions[at % connections] as ReturnType<typeof connection>, { path: WATCH });
    stream.end(WATCH_ALL);
    stream.pause();
  }
  await sleep(5_000);
  return () => {
    for (const session of sessions) session.destroy();
  };
}

describe('watches that are never read', { timeout: 180_000 }, () => {
  it('do not stall other callers while they begin and when their clients disconnect', async () => {
    target = await startTarget({ agents: AGENTS });
    const { grpcPort } = target;
    const seen = await underAttack(target, async () => {
      const disconnect = await neverRead(grpcPort, WATCHES);
      disconnect();
      await sleep(3_000);
    });
    console.log(seen);
    expect(seen.errors).toEqual([]);
    expect(seen.longestMs).toBeLessThan(1_000);
    expect(seen.grewMb).toBeLessThan(400);
  });

  it('do not stall other callers when the service ends them after a minute', async () => {
    target = await startTarget({ agents: AGENTS });
    const { grpcPort } = target;
    const seen = await underAttack(target, async () => {
      const disconnect = await neverRead(grpcPort, 20);
      await sleep(62_000);
      disconnect();
    });
    console.log(seen);
    expect(seen.errors).toEqual([]);
    expect(seen.longestMs).toBeLessThan(1_000);
  });
});
