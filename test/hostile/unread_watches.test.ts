import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { begin, connection, startTarget, type Target, underAttack, WATCH, WATCH_ALL } from './attacked_service.js';

const AGENTS = 20_000;
const WATCHES = 500;
let target: Target | undefined;

afterEach(() => target?.stop());

/** Opens watches of all agents and never reads their responses: the client grants no flow-control window. */
async function openUnreadWatches(port: number, connections: number): Promise<() => void> {
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
  it('do not delay other callers when they start and when their clients disconnect', async () => {
    target = await startTarget({ agents: AGENTS });
    const { grpcPort } = target;
    const result = await underAttack(target, async () => {
      const disconnect = await openUnreadWatches(grpcPort, WATCHES);
      disconnect();
      await sleep(3_000);
    });
    console.log(result);
    expect(result.errors).toEqual([]);
    expect(result.longestMs).toBeLessThan(1_000);
    expect(result.grewMb).toBeLessThan(400);
  });

  it('do not delay other callers when the service ends them after a minute', async () => {
    target = await startTarget({ agents: AGENTS });
    const { grpcPort } = target;
    const result = await underAttack(target, async () => {
      const disconnect = await openUnreadWatches(grpcPort, 20);
      await sleep(62_000);
      disconnect();
    });
    console.log(result);
    expect(result.errors).toEqual([]);
    expect(result.longestMs).toBeLessThan(1_000);
  });
});
