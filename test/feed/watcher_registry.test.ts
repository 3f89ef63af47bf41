import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { deleteExpiredWatchers } from '../../src/store/watchers.js';
import { invalid, newAgent, notFound, present, refused, status } from '../api/handlers/support.js';
import { unique } from '../support/service.js';
import { until } from '../support/until.js';
import { engines, startWatchBackend, useWatchBackend, type WatchBackend } from './backend.js';
import { type WatchRequest, watchCalls, withLimits } from './support.js';

const WAIT_OPTIONS = { timeout: 30_000, interval: 50 };

describe.each(engines)('the watcher registry of two replicas on %s', (engine) => {
  const backend = useWatchBackend(engine);
  let replicaB: WatchBackend;
  let calls: ReturnType<typeof watchCalls>;
  let callsB: ReturnType<typeof watchCalls>;

  beforeAll(async () => {
    replicaB = await startWatchBackend({ database: backend().database });
    calls = watchCalls(backend().port);
    callsB = watchCalls(replicaB.port);
  });
  afterAll(async () => {
    calls.close();
    callsB.close();
    await replicaB.stop();
  });

  const startWatch = async (request: WatchRequest, where = backend()) => {
    const client_id = randomUUID();
    const watch = await where.watch({ client_id, ...request }).ready();
    return { watch, client_id: String(request.client_id ?? client_id) };
  };
  const find = async (client_id: string, at = calls) =>
    (await at.list({ page_size: 1000 })).watchers.find((one) => one.client_id === client_id);
  const expectWatcher = async (client_id: string, expected: object, at = calls) =>
    vi.waitFor(async () => expect(present(await find(client_id, at))).toMatchObject(expected), WAIT_OPTIONS);

  it('lists the name and version of a process, the agents that it watches and its revisions', async () => {
    const agent = await newAgent(backend());
    const name = unique('process');
    const request = { agents: [{ name: agent.name }, { id: 7 }, { name: 'nobody' }], client_name: name };
    const { watch, client_id } = await startWatch({ ...request, client_version: '1.2.3-ü' });
    const sent_revision = BigInt(watch.reached);
    for (const [at, where] of [calls, callsB].entries())
      await expectWatcher(
        client_id,
        {
          client_name: name,
          client_version: '1.2.3-ü',
          replica: backend().store.replicaId,
          agents: [agent.name, 'nobody', '#7'],
          agent_count: 3,
          all_agents: false,
          sent_revision,
          applied_revision: undefined,
          lag: sent_revision,
          stale: false,
        },
        where,
      ).catch((error) => {
        throw new Error(`on replica ${at}`, { cause: error });
      });
    const { connected_at, last_seen_at } = present(await find(client_id));
    for (const time of [connected_at, last_seen_at])
      expect(Math.abs(Date.now() - Number(present(time)))).toBeLessThan(60_000);
  });

  it('lists at most 100 agents of a watcher, counts all of them, and marks a watch of all agents', async () => {
    const agents = Array.from({ length: 150 }, (_, at) => ({ name: `n${at}` }));
    const many = await startWatch({ agents });
    const all = await startWatch({ all_agents: true });
    const seen = present(await find(many.client_id));
    expect([seen.agents.length, seen.agent_count, seen.all_agents]).toEqual([100, 150, false]);
    expect(await find(all.client_id)).toMatchObject({ agents: [], agent_count: 0, all_agents: true });
  });

  it('keeps the highest applied revision, whichever replica receives the acknowledgement', async () => {
    const agent = await newAgent(backend());
    const { watch, client_id } = await startWatch({ agents: [{ id: agent.id }] });
    const at = watch.reached;
    expect((await calls.acknowledge({ client_id, revision: at })).revision).toBeGreaterThanOrEqual(BigInt(at));
    await expectWatcher(client_id, { applied_revision: BigInt(at), lag: 0n, stale: false });
    // Acknowledgements of an older revision are ignored.
    await calls.acknowledge({ client_id, revision: 1 });
    await callsB.acknowledge({ client_id, revision: 1 });
    const { revision } = await backend().agents.updateAgent({ agent: { id: agent.id, description: 'x' } });
    await watch.has(revision);
    await expectWatcher(client_id, {
      sent_revision: revision,
      applied_revision: BigInt(at),
      lag: revision - BigInt(at),
    });
    await replicaB.feed.reached(Number(revision), AbortSignal.timeout(30_000));
    await callsB.acknowledge({ client_id: client_id.toUpperCase(), revision });
    await expectWatcher(client_id, { applied_revision: revision, lag: 0n });
    await expectWatcher(client_id, { applied_revision: revision, lag: 0n }, callsB);
  });

  it('applies an acknowledgement that arrives before the stream is registered, despite reads in between', async () => {
    const agent = await newAgent(backend());
    const client_id = randomUUID();
    const revision = BigInt(backend().store.state.revision);
    await callsB.acknowledge({ client_id, revision });
    for (let at = 0; at < 8; at++) await callsB.list();
    await startWatch({ agents: [{ id: agent.id }], client_id });
    await expectWatcher(client_id, { applied_revision: revision, lag: 0n }, callsB);
  });

  it('reports no lag for changes that do not concern the watcher', async () => {
    const agent = await newAgent(backend());
    const { watch, client_id } = await startWatch({ agents: [{ id: agent.id }] });
    await calls.acknowledge({ client_id, revision: watch.reached });
    for (let at = 0; at < 5; at++) await newAgent(backend());
    await expectWatcher(client_id, { lag: 0n, sent_revision: BigInt(watch.reached) });
  });

  it('reports no applied revision beyond the head when a client acknowledges a future revision', async () => {
    const agent = await newAgent(backend());
    const { client_id } = await startWatch({ agents: [{ id: agent.id }] });
    const maximum = 2n ** 63n - 1n;
    for (const at of [calls, callsB]) await at.acknowledge({ client_id, revision: maximum });
    for (const at of [calls, callsB]) await at.acknowledge({ client_id: randomUUID(), revision: maximum });
    await until(async () => (await find(client_id))?.applied_revision !== undefined, 'an applied revision');
    // A replica writes the acknowledgements of the other's clients every second.
    await sleep(1_200);
    for (const at of [calls, callsB]) {
      const seen = present(await find(client_id, at));
      expect(Number(seen.applied_revision)).toBeLessThanOrEqual(backend().store.state.revision);
    }
    const { revision } = await backend().agents.updateAgent({ agent: { id: agent.id, description: 'new' } });
    await vi.waitFor(async () => expect(Number(present(await find(client_id)).lag)).toBeGreaterThan(0), WAIT_OPTIONS);
    await callsB.acknowledge({ client_id, revision });
    await expectWatcher(client_id, { applied_revision: revision, lag: 0n });
  });

  it('ignores the acknowledgement of a client without a watch', async () => {
    const other = randomUUID();
    for (const at of [calls, callsB]) await at.acknowledge({ client_id: other, revision: 1 });
    expect(await find(other)).toBeUndefined();
  });

  it('rejects invalid acknowledgements and names each of them', async () => {
    const client_id = randomUUID();
    const one = { client_id, revision: 1 };
    await invalid(calls.acknowledge(), 'acknowledgements');
    await invalid(calls.acknowledge(...Array.from({ length: 1001 }, () => one)), 'acknowledgements');
    await invalid(
      calls.acknowledge(one, { revision: 1 }, { client_id: 'x', revision: 0 }, { client_id, revision: -5 }),
      'acknowledgements[1].client_id',
      'acknowledgements[2].client_id',
      'acknowledgements[2].revision',
      'acknowledgements[3].revision',
    );
    await calls.acknowledge(...Array.from({ length: 1000 }, () => one));
  });

  it('keeps the applied revision of a process that moves to another replica', async () => {
    const agent = await newAgent(backend());
    const request = { agents: [{ id: agent.id }], client_id: randomUUID() };
    const { watch, client_id } = await startWatch(request);
    const { reached, token } = watch;
    await calls.acknowledge({ client_id, revision: reached });
    await expectWatcher(client_id, { replica: backend().store.replicaId, lag: 0n });
    const moved = await startWatch({ ...request, resume_token: token }, replicaB);
    watch.cancel();
    const there = { replica: replicaB.store.replicaId, applied_revision: BigInt(reached), lag: 0n, stale: false };
    await expectWatcher(client_id, there);
    // The previous replica does not remove the row of the process.
    for (const at of [calls, callsB]) await expectWatcher(client_id, there, at);
    expect((await calls.list({ page_size: 1000 })).watchers.filter((one) => one.client_id === client_id)).toHaveLength(
      1,
    );
    const { revision } = await replicaB.agents.updateAgent({ agent: { id: agent.id, description: 'moved' } });
    await moved.watch.has(revision);
    await expectWatcher(client_id, { sent_revision: revision, lag: revision - BigInt(reached) });
  });

  it('removes a watcher whose stream has ended', async () => {
    const { watch, client_id } = await startWatch({ all_agents: true });
    await expectWatcher(client_id, {});
    await expectWatcher(client_id, {}, callsB);
    watch.cancel();
    for (const at of [calls, callsB])
      await vi.waitFor(async () => expect(await find(client_id, at)).toBeUndefined(), WAIT_OPTIONS);
  });

  it('omits the watchers of a replica that does not confirm them, and deletes them after an hour', async () => {
    const { knex } = backend().database;
    const row = (seconds: number) => ({
      client_id: randomUUID(),
      stream_id: randomUUID(),
      client_name: 'of a dead replica',
      client_version: '',
      replica: 'dead',
      sent_revision: 1,
      catching_up: false,
      last_seen_at: knex.raw(`now() - interval '${seconds} seconds'`),
    });
    const rows = [row(30), row(46), row(3590), row(3610)];
    await knex('watchers').insert(rows);
    onTestFinished(() => knex('watchers').where({ replica: 'dead' }).delete());
    const { watchers } = await calls.list({ page_size: 1000 });
    expect(watchers.filter(({ replica }) => replica === 'dead').map((one) => one.client_id)).toEqual([
      rows[0]?.client_id,
    ]);
    await deleteExpiredWatchers(knex);
    expect(await knex('watchers').where({ replica: 'dead' }).pluck('client_id')).toHaveLength(3);
  });

  it('marks a watcher as stale when it lags for too long, and not when it has applied everything', async () => {
    withLimits({ staleWatcherMs: 600_000 });
    const agent = await newAgent(backend());
    const lagging = await startWatch({ agents: [{ id: agent.id }] });
    const current = await startWatch({ agents: [{ id: agent.id }] });
    const quiet = await startWatch({ agents: [{ id: agent.id }], resume_token: current.watch.token });
    await calls.acknowledge({ client_id: current.client_id, revision: current.watch.reached });
    await expectWatcher(lagging.client_id, { stale: false });
    withLimits({ staleWatcherMs: 700 });
    await expectWatcher(lagging.client_id, { stale: true });
    for (const one of [current, quiet]) await expectWatcher(one.client_id, { stale: false, lag: 0n });
    const names = (list: { watchers: { client_id: string }[] }) => list.watchers.map((one) => one.client_id);
    const stale = names(await calls.list({ stale_only: true, agent: { id: agent.id } }));
    expect(stale).toEqual([lagging.client_id]);
    await callsB.acknowledge({ client_id: lagging.client_id, revision: lagging.watch.reached });
    await expectWatcher(lagging.client_id, { stale: false, lag: 0n });
  });

  it('lists the watchers of an agent, by name or id, and no others', async () => {
    const [agent, other] = [await newAgent(backend()), await newAgent(backend())];
    const [byName, byId, all, unrelated] = [
      await startWatch({ agents: [{ name: agent.name }] }),
      await startWatch({ agents: [{ id: agent.id }, { id: other.id }] }, replicaB),
      await startWatch({ all_agents: true }),
      await startWatch({ agents: [{ id: other.id }, { name: `#${agent.id}x` }] }),
    ];
    await expectWatcher(byId.client_id, {});
    for (const ref of [{ id: agent.id }, { name: agent.name }]) {
      const seen = (await calls.list({ agent: ref, page_size: 1000 })).watchers.map((one) => one.client_id);
      for (const one of [byName, byId, all]) expect(seen).toContain(one.client_id);
      expect(seen).not.toContain(unrelated.client_id);
    }
    await notFound(calls.list({ agent: { name: 'nobody' } }), 'AGENT_NOT_FOUND');
    await invalid(calls.list({ agent: {} }), 'agent');
    await invalid(calls.list({ page_size: -1 }), 'page_size');
  });

  it('returns pages in the order of the names, without duplicates or omissions', async () => {
    const agent = await newAgent(backend());
    const names = ['b', 'a', 'Z', 'ä', 'a', 'a', '😀'];
    const started = await Promise.all(
      names.map((client_name) => startWatch({ agents: [{ id: agent.id }], client_name })),
    );
    const seen: string[] = [];
    const ids: string[] = [];
    const filter = { agent: { id: agent.id } };
    let page_token = '';
    for (;;) {
      const page = await calls.list({ ...filter, page_size: 2, page_token });
      expect(page.watchers.length).toBeLessThanOrEqual(2);
      seen.push(...page.watchers.map((one) => one.client_name));
      ids.push(...page.watchers.map((one) => one.client_id));
      if (page.next_page_token === '') break;
      page_token = page.next_page_token;
    }
    expect(seen).toEqual(['Z', 'a', 'a', 'a', 'b', 'ä', '😀']);
    expect([...ids].sort()).toEqual(started.map(({ client_id }) => client_id).sort());
    expect(ids.slice(1, 4)).toEqual(ids.slice(1, 4).sort());
    for (const other of [{}, { ...filter, stale_only: true }, { agent: { id: 1 } }])
      await refused(calls.list({ ...other, page_size: 2, page_token }), status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
  });

  it('rejects forged page tokens with INVALID_PAGE_TOKEN', async () => {
    const watches = [await startWatch({ all_agents: true }), await startWatch({ all_agents: true })];
    const { next_page_token } = await calls.list({ page_size: watches.length - 1 });
    const [hash, , id] = JSON.parse(Buffer.from(next_page_token, 'base64url').toString());
    const forged = [
      ['a'],
      ['a', 'not a UUID'],
      ['a', `${id}\0`],
      ['a\0', id],
      ['\ud800', id],
      [1, id],
      ['a', 1],
      ['a', id, 1],
    ];
    for (const key of forged) {
      const page_token = Buffer.from(JSON.stringify([hash, ...key])).toString('base64url');
      await refused(calls.list({ page_token }), status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
    }
  });

  it('waits for min_revision like every read', async () => {
    const next = backend().store.state.revision + 1;
    const listing = calls.list({ min_revision: BigInt(next) });
    await newAgent(backend());
    expect(Number((await listing).revision)).toBeGreaterThanOrEqual(next);
  });
});
