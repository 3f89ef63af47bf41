import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { engines, startWatchBackend, useWatchBackend, type WatchBackend } from '../../feed/backend.js';
import { type RecordedWatch, type WatchRequest, watchCalls, withLimits } from '../../feed/support.js';
import { unique } from '../../support/service.js';
import { GPT4, invalid, newAgent, newConfig, newProvider, present, refused, status } from './support.js';

const seconds = (count: number, nanos = 0) => ({ timeout: { seconds: BigInt(Math.trunc(count)), nanos } });

/** A process that watches, and applies or not. */
interface Process {
  readonly client_id: string;
  readonly watch: RecordedWatch;
}

describe.each(engines)('wait_for_adoption, on two replicas and %s', (engine) => {
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

  async function begin(request: WatchRequest, where = backend()): Promise<Process> {
    const client_id = randomUUID();
    const watch = await where.watch({ client_id, ...request }).ready();
    onTestFinished(async () => {
      watch.close();
      await watch.until(({ ended }) => ended);
      // Those of this test are out of the table before the next one looks.
      for (const at of [calls, callsB]) await at.list();
    });
    return { client_id, watch };
  }

  /** Acknowledges, at one of the replicas, everything as it comes. */
  function adopt({ client_id, watch }: Process, at = calls): void {
    let told = 0;
    const timer = setInterval(() => {
      if (watch.reached <= told) return;
      told = watch.reached;
      void at.acknowledge({ client_id, revision: told });
    }, 20);
    onTestFinished(() => clearInterval(timer));
  }

  const timed = async <T>(promise: Promise<T>): Promise<[T, number]> => {
    const began = performance.now();
    return [await promise, performance.now() - began];
  };

  it('is complete at once when nobody watches what was changed', async () => {
    const [agent, other] = [await newAgent(backend()), await newAgent(backend())];
    await begin({ agents: [{ id: other.id }] });
    const update = { agent: { id: agent.id, description: 'x' }, wait_for_adoption: seconds(30) };
    const [{ adoption, revision }, ms] = await timed(backend().agents.updateAgent(update));
    expect(adoption).toEqual({ complete: true, applied_count: 0, pending_count: 0, applied: [], pending: [] });
    expect(revision).toBeGreaterThan(0n);
    expect(ms).toBeLessThan(10_000);
  });

  it('is not there when it is not asked for, and not for what is only validated', async () => {
    const agent = { id: (await newAgent(backend())).id, description: 'y' };
    expect((await backend().agents.updateAgent({ agent })).adoption).toBeUndefined();
    const rehearsal = { agent, validate_only: true, wait_for_adoption: seconds(30) };
    expect((await backend().agents.updateAgent(rehearsal)).adoption).toBeUndefined();
  });

  it('is complete when all have applied it, on whichever replica they are and tell it', async () => {
    const agent = await newAgent(backend());
    const config = await newConfig(backend(), {}, agent);
    const client_name = unique('process');
    const here = await begin({ agents: [{ id: agent.id }], client_name });
    const there = await begin({ agents: [{ name: agent.name }] }, b);
    const all = await begin({ all_agents: true });
    adopt(here, callsB);
    adopt(there, calls);
    adopt(all, calls);
    // What other replicas know is up to two seconds old.
    await new Promise((resolve) => setTimeout(resolve, 1_200));
    const update = { config: { id: config.id, max_tokens: 5 }, wait_for_adoption: seconds(30) };
    const [{ adoption, revision }, ms] = await timed(backend().configs.updateConfig(update));
    expect(adoption).toMatchObject({ complete: true, applied_count: 3, pending_count: 0, pending: [] });
    const ids = present(adoption).applied.map((one) => one.client_id);
    expect(ids.sort()).toEqual([here, there, all].map((one) => one.client_id).sort());
    for (const one of present(adoption).applied) expect(one.applied_revision).toBeGreaterThanOrEqual(revision);
    expect(present(adoption).applied.find((one) => one.client_id === here.client_id)?.client_name).toBe(client_name);
    expect(ms).toBeLessThan(15_000);
  });

  it('answers at once beyond so many that wait, and reads go on', async () => {
    withLimits({ adoptionWaits: 2, maxConcurrentCalls: 3 });
    const agent = await newAgent(backend());
    const { client_id, watch } = await begin({ agents: [{ id: agent.id }] });
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
    // Their places are free again.
    const [, waited] = await timed(write('4', seconds(0, 800e6)));
    expect(waited).toBeGreaterThan(700);
  });

  it('names who is pending when the time is over, and the write is done', async () => {
    const agent = await newAgent(backend());
    const [quick, slow] = [await begin({ agents: [{ id: agent.id }] }), await begin({ agents: [{ id: agent.id }] })];
    const told = BigInt(slow.watch.reached);
    await calls.acknowledge({ client_id: slow.client_id, revision: told });
    adopt(quick);
    const update = { agent: { id: agent.id, description: 'z' }, wait_for_adoption: seconds(0, 800e6) };
    const [{ adoption, revision }, ms] = await timed(backend().agents.updateAgent(update));
    expect(adoption).toMatchObject({ complete: false, applied_count: 1, pending_count: 1 });
    expect(adoption?.pending).toEqual([{ client_id: slow.client_id, client_name: '', applied_revision: told }]);
    expect(adoption?.applied.map((one) => one.client_id)).toEqual([quick.client_id]);
    expect(ms).toBeGreaterThan(700);
    expect((await backend().agents.getAgent({ agent: { id: agent.id } })).agent).toMatchObject({
      description: 'z',
      revision,
    });
  });

  it.each([{}, seconds(0)])('does not wait with %o, and says how it stands', async (wait_for_adoption) => {
    const agent = await newAgent(backend());
    const one = await begin({ agents: [{ id: agent.id }] });
    const update = { agent: { id: agent.id, description: 'a' }, wait_for_adoption };
    const [{ adoption }, ms] = await timed(backend().agents.updateAgent(update));
    expect(adoption).toMatchObject({ complete: false, applied_count: 0, pending_count: 1 });
    expect(adoption?.pending).toEqual([{ client_id: one.client_id, client_name: '', applied_revision: 0n }]);
    expect(ms).toBeLessThan(10_000);
  });

  it('answers within the deadline of the call', async () => {
    const agent = await newAgent(backend());
    await begin({ agents: [{ id: agent.id }] });
    const update = { agent: { id: agent.id, description: 'b' }, wait_for_adoption: seconds(60) };
    const { adoption } = await backend().agents.updateAgent(update, { deadlineMs: 800 });
    expect(adoption).toMatchObject({ complete: false, pending_count: 1 });
  });

  it('answers OK within the deadline when the database says nothing any more', async () => {
    const agent = await newAgent(backend());
    const one = await begin({ agents: [{ id: agent.id }] });
    const update = { agent: { id: agent.id, description: 'd' }, wait_for_adoption: seconds(20) };
    const writing = backend().agents.updateAgent(update, { deadlineMs: 1_200 });
    await one.watch.until(({ revisions }) => revisions.length > 0);
    // From now on every look hangs.
    const { client } = backend().database.knex;
    const acquire = client.acquireConnection;
    let thaw = () => {};
    const thawed = new Promise<void>((resolve) => {
      thaw = resolve;
    });
    client.acquireConnection = () => thawed.then(() => acquire.call(client));
    try {
      const { adoption, revision } = await writing;
      expect(revision).toBe(BigInt(one.watch.revisions[0] as number));
      expect(adoption?.complete).toBe(false);
    } finally {
      client.acquireConnection = acquire;
      thaw();
    }
  });

  it('never makes an error of a write that is done: the database is gone while it waits', async () => {
    const agent = await newAgent(backend());
    const one = await begin({ agents: [{ id: agent.id }] });
    const update = { agent: { id: agent.id, description: 'e' }, wait_for_adoption: seconds(3) };
    const writing = backend().agents.updateAgent(update);
    await one.watch.until(({ revisions }) => revisions.length > 0);
    const { client } = backend().database.knex;
    const query = client.acquireConnection;
    client.acquireConnection = () => Promise.reject(Object.assign(new Error('gone'), { code: 'ECONNREFUSED' }));
    try {
      const { adoption } = await writing;
      expect(adoption?.complete).toBe(false);
    } finally {
      client.acquireConnection = query;
    }
    const read = await backend().agents.getAgent({ agent: { id: agent.id } });
    expect(read.agent?.description).toBe('e');
  });

  it('is told anew to who sends the same request again, without writing twice', async () => {
    const agent = await newAgent(backend());
    const one = await begin({ agents: [{ id: agent.id }] });
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

  it('concerns whoever watches one of many agents, and everybody when the catalogue changes', async () => {
    const agents = [await newAgent(backend()), await newAgent(backend())];
    const [one, other] = [
      await begin({ agents: [{ id: agents[0]?.id as number }] }),
      await begin({ agents: [{ name: 'nobody' }] }),
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
    // Of other tests some may still be on their way out.
    expect(written.adoption?.pending.map(({ client_id }) => client_id)).toEqual(
      expect.arrayContaining([one.client_id, other.client_id]),
    );
  });

  it('concerns the watchers of the old and of the new name, and those of what is deleted', async () => {
    const agent = await newAgent(backend());
    const name = unique('renamed');
    const watchers = [
      await begin({ agents: [{ name: agent.name }] }),
      await begin({ agents: [{ name }] }),
      await begin({ agents: [{ id: agent.id }] }),
    ];
    const rename = { agent: { id: agent.id, name }, wait_for_adoption: seconds(0) };
    expect((await backend().agents.updateAgent(rename)).adoption?.pending_count).toBe(3);
    const gone = await backend().agents.deleteAgent({ agent: { id: agent.id }, wait_for_adoption: seconds(0) });
    expect(gone.adoption?.pending.map(({ client_id }) => client_id).sort()).toEqual(
      watchers
        .slice(1)
        .map(({ client_id }) => client_id)
        .sort(),
    );
  });

  it('counts all and names a hundred', async () => {
    const agent = await newAgent(backend());
    const many = await Promise.all(Array.from({ length: 130 }, () => begin({ agents: [{ id: agent.id }] })));
    const told = many.slice(0, 110).map(({ client_id, watch }) => ({ client_id, revision: watch.reached + 1 }));
    const first = await backend().agents.updateAgent({
      agent: { id: agent.id, description: '1' },
      wait_for_adoption: seconds(0),
    });
    expect([first.adoption?.pending_count, first.adoption?.pending.length]).toEqual([130, 100]);
    await Promise.all(many.map(({ watch }) => watch.has(first.revision)));
    await calls.acknowledge(...told.map(({ client_id }) => ({ client_id, revision: first.revision })));
    const second = await backend().agents.updateAgent({
      agent: { id: agent.id, description: '2' },
      wait_for_adoption: seconds(0),
    });
    expect([second.adoption?.applied_count, second.adoption?.pending_count]).toEqual([0, 130]);
  });

  it('is refused beyond 60 s and below 0, before anything is written', async () => {
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
