import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { newAgent, status } from '../api/handlers/support.js';
import { startWatchBackend, useWatchBackend, type WatchBackend } from './backend.js';
import { RecordedWatch, watchStub, withLimits } from './support.js';

/*
 * Streams that wait before they begin: they take the room of watches, and never that of calls.
 */

/** Streams on one connection, so that they come in order, which wait for a revision that nobody writes. */
function waitFor(port: number, count: number): RecordedWatch[] {
  const stub = watchStub(port);
  const request = { all_agents: true, min_revision: 1_000_000_000n };
  const waiting = Array.from({ length: count }, () => new RecordedWatch(port, request, {}, stub));
  onTestFinished(() => {
    for (const one of waiting) one.cancel();
    stub.close();
  });
  return waiting;
}

/** The streams beyond the room for watches are refused; by then the others wait. */
async function fill({ port }: WatchBackend, room: number): Promise<RecordedWatch[]> {
  withLimits({ maxWatches: room });
  const all = waitFor(port, room + 1);
  const error = await (all.pop() as RecordedWatch).end();
  expect([error.code, error.reason]).toEqual([status.RESOURCE_EXHAUSTED, 'TOO_MANY_WATCHES']);
  expect(error.metadata).toEqual({ watches: `${room}` });
  return all;
}

describe('streams that wait before they begin', () => {
  const backend = useWatchBackend('embedded');

  it('count as watches and not as calls: reads and writes go on', async () => {
    withLimits({ maxConcurrentCalls: 2 });
    const waiting = await fill(backend(), 5);
    const agent = await newAgent(backend());
    expect((await backend().agents.getAgent({ agent: { id: agent.id } })).agent?.name).toBe(agent.name);
    const refused = await backend().watch({ all_agents: true }).end();
    expect(refused.reason).toBe('TOO_MANY_WATCHES');
    waiting[0]?.cancel();
    await vi.waitFor(() => backend().watch({ all_agents: true }).ready(), { timeout: 5_000 });
    expect(waiting.slice(1).some(({ ended }) => ended)).toBe(false);
  });

  it('leave their place when they are refused', async () => {
    withLimits({ maxWatches: 1 });
    for (let at = 0; at < 3; at++) {
      const error = await backend().watch({ all_agents: true, resume_token: 'x' }).end();
      expect(error.reason).toBe('INVALID_RESUME_TOKEN');
    }
    await backend().watch({ all_agents: true }).ready();
  });

  it('do not hold up a server that drains', async () => {
    const b = await startWatchBackend({ database: backend().database });
    onTestFinished(() => b.feed.close());
    const waiting = await fill(b, 3);
    const began = performance.now();
    await Promise.race([b.rpc.drain(20_000), sleep(25_000)]);
    expect(performance.now() - began).toBeLessThan(5_000);
    b.close();
    for (const one of waiting) {
      const error = await one.end();
      expect([error.code, error.reason]).toEqual([status.UNAVAILABLE, 'SERVER_SHUTTING_DOWN']);
    }
  });
});
