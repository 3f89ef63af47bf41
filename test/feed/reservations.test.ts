import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished } from 'vitest';
import { newAgent, status } from '../api/handlers/support.js';
import { until } from '../support/until.js';
import { startWatchBackend, useWatchBackend, type WatchBackend } from './backend.js';
import { RecordedWatch, watchStub, withLimits } from './support.js';

/*
 * Streams that wait for min_revision count against the limit of watches and never against that of calls.
 */

/** Streams on one connection, so that they are opened in order, that wait for a revision that is never written. */
function openWaiting(port: number, count: number): RecordedWatch[] {
  const stub = watchStub(port);
  const request = { all_agents: true, min_revision: 1_000_000_000n };
  const waiting = Array.from({ length: count }, () => new RecordedWatch(port, request, {}, stub));
  onTestFinished(() => {
    for (const one of waiting) one.cancel();
    stub.close();
  });
  return waiting;
}

/** Opens waiting streams up to the limit; when the stream beyond the limit is rejected, the others are waiting. */
async function fillWatches({ port }: WatchBackend, limit: number): Promise<RecordedWatch[]> {
  withLimits({ maxWatches: limit });
  const all = openWaiting(port, limit + 1);
  const error = await (all.pop() as RecordedWatch).end();
  expect([error.code, error.reason]).toEqual([status.RESOURCE_EXHAUSTED, 'TOO_MANY_WATCHES']);
  expect(error.metadata).toEqual({ watches: `${limit}` });
  return all;
}

describe('streams that wait for min_revision', () => {
  const backend = useWatchBackend('embedded');

  it('count as watches and not as calls, so reads and writes continue', async () => {
    withLimits({ maxConcurrentCalls: 2 });
    const waiting = await fillWatches(backend(), 5);
    const agent = await newAgent(backend());
    expect((await backend().agents.getAgent({ agent: { id: agent.id } })).agent?.name).toBe(agent.name);
    const rejected = await backend().watch({ all_agents: true }).end();
    expect(rejected.reason).toBe('TOO_MANY_WATCHES');
    waiting[0]?.cancel();
    const opens = () =>
      backend()
        .watch({ all_agents: true })
        .ready()
        .then(
          () => true,
          () => false,
        );
    await until(opens, 'another stream is opened');
    expect(waiting.slice(1).some(({ ended }) => ended)).toBe(false);
  });

  it('release their reservation when they are rejected', async () => {
    withLimits({ maxWatches: 1 });
    for (let at = 0; at < 3; at++) {
      const error = await backend().watch({ all_agents: true, resume_token: 'x' }).end();
      expect(error.reason).toBe('INVALID_RESUME_TOKEN');
    }
    await backend().watch({ all_agents: true }).ready();
  });

  it('do not delay the drain of the server', async () => {
    const replica = await startWatchBackend({ database: backend().database });
    onTestFinished(() => replica.feed.close());
    const waiting = await fillWatches(replica, 3);
    const began = performance.now();
    await Promise.race([replica.rpc.drain(20_000), sleep(25_000)]);
    expect(performance.now() - began).toBeLessThan(5_000);
    replica.close();
    for (const one of waiting) {
      const error = await one.end();
      expect([error.code, error.reason]).toEqual([status.UNAVAILABLE, 'SERVER_SHUTTING_DOWN']);
    }
  });
});
