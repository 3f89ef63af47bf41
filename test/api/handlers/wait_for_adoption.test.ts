import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { engines, startWatchBackend, useWatchBackend, type WatchBackend } from '../../feed/backend.js';
import { type RecordedWatch, type WatchRequest, watchCalls, withLimits } from '../../feed/support.js';
import { connectPatiently, unique } from '../../support/service.js';
import { until } from '../../support/until.js';
import { GPT4, invalid, newAgent, newConfig, newProvider, present, refused, status } from './support.js';

const seconds = (count: number, nanos = 0) => ({ timeout: { seconds: BigInt(Math.trunc(count)), nanos } });

/** A client process with an open watch. */
interface Watcher {
  readonly client_id: string;
  readonly watch: RecordedWatch;
}

describe.each(engines)('wait_for_adoption on two replicas and %s', (engine) => {
  const backend = useWatchBackend(engine);
  let b: WatchBackend;
  let calls: ReturnType<typeof watchCalls>;
  let callsB: ReturnType<typeof watchCalls>;

  beforeAll(async () => {
    b = await startWatchBackend({ database: backend().database });
    calls = watchCalls(backend().port);
    callsB = watchCalls(b.port);
  });
  afterAll(async () => {
    calls.close();
    callsB.close();
    await b.stop();
  });

  async function startWatcher(request: WatchRequest, where = backend()): Promise<Watcher> {
    const client_id = randomUUID();
    const watch = await where.watch({ client_id, ...request }).ready();
    onTestFinished(async () => {
      watch.close();
      await watch.until(({ ended }) => ended);
      // Waits until the watchers of this test have left the table, so that the next test does not see them.
      for (const at of [calls, callsB]) await at.list();
    });
    return { client_id, watch };
  }

  /** Acknowledges every revision at one of the replicas as soon as it is delivered. */
  function acknowledgeAll({ client_id, watch }: Watcher, at = calls): void {
    let acknowledged = 0;
    const timer = setInterval(() => {
      if (watch.reached <= acknowledged) return;
      acknowledged = watch.reached;
      void at.acknowledge({ client_id, revision: acknowledged });
    }, 20);
    onTestFinished(() => clearInterval(timer));
  }

  const patient = () => {
    const clients = connectPatiently(backend().port);
    onTestFinished(() => clients.close());
    return clients;
  };

  const timed = async <T>(promise: Promise<T>): Promise<[T, number]> => {
    const start = performance.now();
    return [await promise, performance.now() - start];
  };

  it('returns complete at once when no watcher watches the changed agent', async () => {
    const [agent, other] = [await newAgent(backend()), await newAgent(backend())];
    await startWatcher({ agents: [{ id: other.id }] });
    const update = { agent: { id: agent.id, description: 'x' }, wait_for_adoption: seconds(30) };
    const [{ adoption, revision }, ms] = await timed(backend().agents.updateAgent(update));
    expect(adoption).toEqual({ complete: true, applied_count: 0, pending_count: 0, applied: [], pending: [] });
    expect(revision).toBeGreaterThan(0n);
    expect(ms).toBeLessThan(10_000);
  });

  it('returns no adoption when it is absent, and with validate_only', async () => {
    const agent = { id: (await newAgent(backend())).id, description: 'y' };
    expect((await backend().agents.updateAgent({ agent })).adoption).toBeUndefined();
    const dryRun = { agent, validate_only: true, wait_for_adoption: seconds(30) };
    expect((await backend().agents.updateAgent(dryRun)).adoption).toBeUndefined();
  });

  it('returns complete when all watchers on both replicas have acknowledged the revision', async () => {
    const agent = await newAgent(backend());
    const config = await newConfig(backend(), {}, agent);
    const client_name = unique('process');
    const here = await startWatcher({ agents: [{ id: agent.id }], client_name });
    const there = await startWatcher({ agents: [{ name: agent.name }] }, b);
    const all = await startWatcher({ all_agents: true });
    acknowledgeAll(here, callsB);
    acknowledgeAll(there, calls);
    acknowledgeAll(all, calls);
    const listed = async () => (await calls.list()).watchers.map((one) => one.client_id);
    await until(async () => {
      const known = await listed();
      return [here, there, all].every((one) => known.includes(one.client_id));
    }, 'all three watchers are listed');
    const update = { config: { id: config.id, max_tokens: 5 }, wait_for_adoption: seconds(30) };
    const [{ adoption, revision }, ms] = await timed(backend().configs.updateConfig(update));
    expect(adoption).toMatchObject({ complete: true, applied_count: 3, pending_count: 0, pending: [] });
    const ids = present(adoption).applied.map((one) => one.client_id);
    expect(ids.sort()).toEqual([here, there, all].map((one) => one.client_id).sort());
    for (const one of present(adoption).applied) expect(one.applied_revision).toBeGreaterThanOrEqual(revision);
    expect(present(adoption).applied.find((one) => one.client_id === here.client_id)?.client_name).toBe(client_name);
    expect(ms).toBeLessThan(15_000);
  });

  it('returns at once when adoptionWaits calls already wait, and does not block reads', async () => {
    withLimits({ adoptionWaits: 2, maxConcurrentCalls: 3 });
    const agent = await newAgent(backend());
    const { client_id, watch } = await startWatcher({ agents: [{ id: agent.id }] });
    const write = (description: string, wait = seconds(25)) =>
      backend().agents.updateAgent({ agent: { id: agent.id, description }, wait_for_adoption: wait });
    const waiting = [write('1'), write('2')];
    await watch.until(({ revisions }) => revisions.length === 2);
    const [late, ms] = await timed(write('3'));
    expect(late.adoption).toMatchObject({ complete: false, applied_count: 0, pending_count: 1 });
    expect(ms).toBeLessThan(10_000);
    const read = await backend().agents.getAgent({ agent: { id: agent.id } });
    expect(read.agent?.description).toBe('3');
    await watch.has(late.revision);
    await calls.acknowledge({ client_id, revision: late.revision });
    for (const one of waiting) expect((await one).adoption).toMatchObject({ complete: true, applied_count: 1 });
    // The completed calls no longer count.
    const [, waited] = await timed(write('4', seconds(0, 800e6)));
    expect(waited).toBeGreaterThan(700);
  });

  it('returns the pending watchers after the timeout, and keeps the write', async () => {
    const agent = await newAgent(backend());
    const [quick, slow] = [
      await startWatcher({ agents: [{ id: agent.id }] }),
      await startWatcher({ agents: [{ id: agent.id }] }),
    ];
    const acknowledged = BigInt(slow.watch.reached);
    await calls.acknowledge({ client_id: slow.client_id, revision: acknowledged });
    acknowledgeAll(quick);
    const update = { agent: { id: agent.id, description: 'z' }, wait_for_adoption: seconds(0, 800e6) };
    const [{ adoption, revision }, ms] = await timed(backend().agents.updateAgent(update));
    expect(adoption).toMatchObject({ complete: false, applied_count: 1, pending_count: 1 });
    expect(adoption?.pending).toEqual([{ client_id: slow.client_id, client_name: '', applied_revision: acknowledged }]);
    expect(adoption?.applied.map((one) => one.client_id)).toEqual([quick.client_id]);
    expect(ms).toBeGreaterThan(700);
    expect((await backend().agents.getAgent({ agent: { id: agent.id } })).agent).toMatchObject({
      description: 'z',
      revision,
    });
  });

  it.each([{}, seconds(0)])('returns the current adoption without a wait with %o', async (wait_for_adoption) => {
    const agent = await newAgent(backend());
    const one = await startWatcher({ agents: [{ id: agent.id }] });
    const update = { agent: { id: agent.id, description: 'a' }, wait_for_adoption };
    const [{ adoption }, ms] = await timed(backend().agents.updateAgent(update));
    expect(adoption).toMatchObject({ complete: false, applied_count: 0, pending_count: 1 });
    expect(adoption?.pending).toEqual([{ client_id: one.client_id, client_name: '', applied_revision: 0n }]);
    expect(ms).toBeLessThan(10_000);
  });

  it('returns within the deadline of the call', async () => {
    const agent = await newAgent(backend());
    await startWatcher({ agents: [{ id: agent.id }] });
    const update = { agent: { id: agent.id, description: 'b' }, wait_for_adoption: seconds(60) };
    const { adoption } = await patient().agents.updateAgent(update, { deadlineMs: 3_000 });
    expect(adoption).toMatchObject({ complete: false, pending_count: 1 });
  });

  it('ends when the caller cancels, and makes room for another wait', async () => {
    withLimits({ adoptionWaits: 1 });
    const agent = await newAgent(backend());
    const one = await startWatcher({ agents: [{ id: agent.id }] });
    const cancellation = new AbortController();
    const update = { agent: { id: agent.id, description: 'f' }, wait_for_adoption: seconds(25) };
    const writing = backend().agents.updateAgent(update, { signal: cancellation.signal });
    await one.watch.until(({ revisions }) => revisions.length > 0);
    cancellation.abort();
    await expect(writing).rejects.toMatchObject({ code: status.CANCELLED });
    // Without room the next write would return at once, before the acknowledgement.
    const waiting = backend().agents.updateAgent({ ...update, wait_for_adoption: seconds(20) });
    await one.watch.until(({ revisions }) => revisions.length > 1);
    await calls.acknowledge({ client_id: one.client_id, revision: one.watch.reached });
    expect((await waiting).adoption).toMatchObject({ complete: true });
  });

  it('returns OK within the deadline when the database does not respond', async () => {
    const agent = await newAgent(backend());
    const one = await startWatcher({ agents: [{ id: agent.id }] });
    const update = { agent: { id: agent.id, description: 'd' }, wait_for_adoption: seconds(20) };
    const writing = patient().agents.updateAgent(update, { deadlineMs: 5_000 });
    await one.watch.until(({ revisions }) => revisions.length > 0);
    // From now on every query hangs.
    const { client } = backend().database.knex;
    const acquire = client.acquireConnection;
    let resume = () => {};
    const resumed = new Promise<void>((resolve) => {
      resume = resolve;
    });
    client.acquireConnection = () => resumed.then(() => acquire.call(client));
    try {
      const { adoption, revision } = await writing;
      expect(revision).toBe(BigInt(one.watch.revisions[0] as number));
      expect(adoption?.complete).toBe(false);
    } finally {
      client.acquireConnection = acquire;
      resume();
    }
  });

  it('returns OK for a committed write when the database becomes unavailable during the wait', async () => {
    const agent = await newAgent(backend());
    const one = await startWatcher({ agents: [{ id: agent.id }] });
    const update = { agent: { id: agent.id, description: 'e' }, wait_for_adoption: seconds(6) };
    const writing = backend().agents.updateAgent(update);
    await one.watch.until(({ revisions }) => revisions.length > 0);
    const { client } = backend().database.knex;
    const query = client.acquireConnection;
    let refused = 0;
    client.acquireConnection = () => {
      refused++;
      return Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNREFUSED' }));
    };
    try {
      const { adoption } = await writing;
      expect(adoption?.complete).toBe(false);
      expect(refused).toBeGreaterThan(0);
    } finally {
      client.acquireConnection = query;
    }
    const read = await backend().agents.getAgent({ agent: { id: agent.id } });
    expect(read.agent?.description).toBe('e');
  });

  it('returns the current adoption for a repeated request_id without a second write', async () => {
    const agent = await newAgent(backend());
    const one = await startWatcher({ agents: [{ id: agent.id }] });
    const request = {
      agent: { id: agent.id, description: 'c' },
      request_id: randomUUID(),
      wait_for_adoption: seconds(0),
    };
    const first = await backend().agents.updateAgent(request);
    expect(first.adoption).toMatchObject({ complete: false, pending_count: 1 });
    await one.watch.has(first.revision);
    await calls.acknowledge({ client_id: one.client_id, revision: first.revision });
    const again = await backend().agents.updateAgent(request);
    expect(again.revision).toBe(first.revision);
    expect(again.adoption).toMatchObject({ complete: true, applied_count: 1, pending_count: 0 });
  });

  it('counts the watchers of any changed agent, and all watchers for a change of the catalogue', async () => {
    const agents = [await newAgent(backend()), await newAgent(backend())];
    const [one, other] = [
      await startWatcher({ agents: [{ id: agents[0]?.id as number }] }),
      await startWatcher({ agents: [{ name: 'nobody' }] }),
    ];
    const bulk = await backend().configs.bulkAssignConfig({
      agents: agents.map(({ id }) => ({ id })),
      config: GPT4,
      wait_for_adoption: seconds(0),
    });
    expect(bulk.adoption?.pending.map(({ client_id }) => client_id)).toEqual([one.client_id]);
    const { name } = await newProvider(backend());
    const written = await backend().providers.updateProvider({
      provider: { name, display_name: 'N' },
      wait_for_adoption: seconds(0),
    });
    // Watchers of other tests may still be closing.
    expect(written.adoption?.pending.map(({ client_id }) => client_id)).toEqual(
      expect.arrayContaining([one.client_id, other.client_id]),
    );
  });

  it('counts the watchers of the old and the new name, and those of a deleted agent', async () => {
    const agent = await newAgent(backend());
    const name = unique('renamed');
    const watchers = [
      await startWatcher({ agents: [{ name: agent.name }] }),
      await startWatcher({ agents: [{ name }] }),
      await startWatcher({ agents: [{ id: agent.id }] }),
    ];
    const rename = { agent: { id: agent.id, name }, wait_for_adoption: seconds(0) };
    expect((await backend().agents.updateAgent(rename)).adoption?.pending_count).toBe(3);
    const deletion = await backend().agents.deleteAgent({ agent: { id: agent.id }, wait_for_adoption: seconds(0) });
    expect(deletion.adoption?.pending.map(({ client_id }) => client_id).sort()).toEqual(
      watchers
        .slice(1)
        .map(({ client_id }) => client_id)
        .sort(),
    );
  });

  it('counts all watchers and lists at most 100', async () => {
    const agent = await newAgent(backend());
    const many = await Promise.all(Array.from({ length: 130 }, () => startWatcher({ agents: [{ id: agent.id }] })));
    const acknowledging = many
      .slice(0, 110)
      .map(({ client_id, watch }) => ({ client_id, revision: watch.reached + 1 }));
    const first = await backend().agents.updateAgent({
      agent: { id: agent.id, description: '1' },
      wait_for_adoption: seconds(0),
    });
    expect([first.adoption?.pending_count, first.adoption?.pending.length]).toEqual([130, 100]);
    await Promise.all(many.map(({ watch }) => watch.has(first.revision)));
    await calls.acknowledge(...acknowledging.map(({ client_id }) => ({ client_id, revision: first.revision })));
    const second = await backend().agents.updateAgent({
      agent: { id: agent.id, description: '2' },
      wait_for_adoption: seconds(0),
    });
    expect([second.adoption?.applied_count, second.adoption?.pending_count]).toEqual([0, 130]);
  });

  it('is rejected above 60 s and below 0 before anything is written', async () => {
    const agent = await newAgent(backend());
    for (const wrong of [seconds(61), seconds(60, 1), seconds(-1), seconds(0, -1), seconds(1, 2e9), seconds(2 ** 52)]) {
      const update = { agent: { id: agent.id, description: 'no' }, wait_for_adoption: wrong };
      await invalid(backend().agents.updateAgent(update), 'wait_for_adoption.timeout');
    }
    const stale = { agent: { id: agent.id, etag: 'x', description: 'no' }, wait_for_adoption: seconds(60) };
    await refused(backend().agents.updateAgent(stale), status.ABORTED, 'STALE_ETAG');
    expect((await backend().agents.getAgent({ agent: { id: agent.id } })).agent?.description).toBeUndefined();
  });
});
