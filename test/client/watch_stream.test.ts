import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  CatalogueItem,
  ConfigChanges,
  WatchConfigsResponse,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { MAX_MS } from '../../src/client/backoff.js';
import { Connection } from '../../src/client/connection.js';
import type { Change } from '../../src/client/index.js';
import { MessageAssembler } from '../../src/client/message_assembler.js';
import { freePort } from '../support/ports.js';
import { startProxy } from '../support/proxy.js';
import { until } from '../support/until.js';
import {
  absentAgent,
  agent,
  CATALOGUE,
  config,
  connectResident,
  model,
  startFakeWatch,
  startResident,
} from './fake_watch.js';
import { failed, SOON_MS, useFakeClock } from './support.js';

const tokensOf = (fake: { streams: readonly { request: { max_tokens?: never; resume_token: string } }[] }) =>
  fake.streams.map(({ request }) => request.resume_token);

/** Counts the messages that the clients of a test receive. */
function countMessages(): () => number {
  const add = vi.spyOn(MessageAssembler.prototype, 'add');
  onTestFinished(() => add.mockRestore());
  return () => add.mock.calls.length;
}

describe('a stream that breaks', () => {
  it('is resumed after the last complete revision', async () => {
    const { fake, client, stream } = await startResident();
    const since = Date.now();
    stream.change(11, [agent('trader', 11)]).bookmark(14);
    await until(() => client.state.revision === 14n);
    stream.fail(status.UNAVAILABLE, 'SERVER_SHUTTING_DOWN');
    await until(() => client.state.status === 'STALE');
    expect(client.state.error).toMatchObject({ code: 'UNAVAILABLE', reason: 'SERVER_SHUTTING_DOWN' });
    expect(client.state.since.getTime()).toBeGreaterThanOrEqual(since);
    // The held state is still served.
    expect(client.agent('trader').resolve().revision).toBe(11n);
    const next = await fake.stream(1);
    expect(next.request.resume_token).toBe('t14');
    next
      .start({ resumed: true, newest: 16 })
      .change(15, [agent('trader', 15, { configs: [config(1, 15, { top_p: 0.5 })] })]);
    await until(() => client.state.revision === 15n);
    // Missed changes may still arrive.
    expect(client.state.status).toBe('STALE');
    next.bookmark(16);
    await until(() => client.state.status === 'READY');
    expect(client.state.error).toBeUndefined();
    expect(client.agent('trader').resolve().hops[0]?.parameters).toContainEqual(
      expect.objectContaining({ name: 'top_p', value: 0.5 }),
    );
  });

  it('makes the client READY at the revision that the service had, not at an earlier bookmark', async () => {
    const { fake, client, stream } = await startResident();
    stream.fail(status.UNAVAILABLE);
    const next = await fake.stream(1);
    const states: string[] = [];
    client.on('state', (state) => states.push(`${state.status} at ${state.revision}`));
    next.start({ resumed: true, newest: 20 }).bookmark(10).bookmark(12).change(15, []).bookmark(19);
    await until(() => client.state.revision === 19n);
    expect(client.state).toMatchObject({ status: 'STALE', error: { code: 'UNAVAILABLE' } });
    next.bookmark(20);
    await until(() => client.state.status === 'READY');
    expect(states).toEqual(['READY at 20']);
    expect(client.state.error).toBeUndefined();
  });

  it('makes the client READY when a change reaches the revision that the service had', async () => {
    const { fake, client, stream } = await startResident();
    stream.fail(status.UNAVAILABLE);
    const next = await fake.stream(1);
    next.start({ resumed: true, newest: 20 }).change(19, [agent('trader', 19)]);
    await until(() => client.state.revision === 19n);
    expect(client.state.status).toBe('STALE');
    next.change(20, [agent('trader', 20)]);
    await until(() => client.state.status === 'READY');
    expect(client.state.revision).toBe(20n);
  });

  it('keeps the old state when it breaks within a snapshot, and the next snapshot is applied as a whole', async () => {
    const { fake, client, stream } = await startResident([agent('a', 1), agent('b', 1)], { agents: 'all' });
    const [a, b] = [client.agent('a').resolve(), client.agent('b').resolve()];
    const changes: Change[] = [];
    client.on('change', (change) => changes.push(change));
    stream.fail(status.FAILED_PRECONDITION, 'STORE_CHANGED');
    const second = await fake.stream(1);
    expect(second.request.resume_token).toBe('');
    const received = countMessages();
    second.start().openSnapshot(3, [agent('a', 3, { configs: [config(1, 3)] })]);
    await until(() => received() === 4);
    second.fail(status.UNAVAILABLE);
    const third = await fake.stream(2);
    expect(third.request.resume_token).toBe('');
    expect(client.state).toMatchObject({ status: 'STALE', revision: 10n });
    expect(client.agent('a').resolve()).toBe(a);
    expect(changes).toEqual([]);
    third.start().snapshot(4, [agent('b', 1), agent('c', 4)]);
    await until(() => client.state.status === 'READY');
    // The new store may have a lower revision.
    expect(client.state.revision).toBe(4n);
    expect(changes).toMatchObject([
      { revision: 4n, agents: ['c', 'a'], catalogue: false, snapshot: true, urgent: false },
    ]);
    expect(client.agent('b').resolve()).toBe(b);
    expect(() => client.agent('a').resolve()).toThrow(/No agent has the name "a"/);
  });

  it('discards a partially received revision', async () => {
    const { fake, client, stream } = await startResident();
    const received = countMessages();
    stream.part(11, [agent('trader', 11, { configs: [config(1, 11, { top_p: 0.1 })] })]);
    await until(() => received() === 1);
    expect(client.state.revision).toBe(10n);
    stream.fail(status.UNAVAILABLE);
    const next = await fake.stream(1);
    expect(next.request.resume_token).toBe('t10');
    next.start({ resumed: true }).bookmark(10);
    await until(() => client.state.status === 'READY');
    expect(client.agent('trader').held?.configs[0]?.top_p).toBeUndefined();
  });

  it('is reopened when the service ends it without an error or sends an invalid message', async () => {
    const { fake, client, stream } = await startResident();
    stream.end();
    const second = await fake.stream(1);
    second
      .start({ resumed: true })
      .bookmark(10)
      .send(Buffer.from([0xff, 0xff, 0xff]));
    const third = await fake.stream(2);
    expect(client.state).toMatchObject({ status: 'STALE', error: { code: 'INTERNAL' } });
    third.start({ resumed: true }).bookmark(12);
    await until(() => client.state.status === 'READY');
    expect(tokensOf(fake)).toEqual(['', 't10', 't10']);
  });
});

describe('a revision', () => {
  it('is applied when all its parts have arrived', async () => {
    const { client, stream } = await startResident([agent('a', 1), agent('b', 1)], { agents: 'all' });
    const changes: Change[] = [];
    client.on('change', (change) => changes.push(change));
    const before = client.agent('a').resolve();
    const received = countMessages();
    stream.part(11, [agent('a', 11)]).part(11, [], [model('new')]);
    await until(() => received() === 2);
    expect(client.agent('a').resolve()).toBe(before);
    expect(client.state.revision).toBe(10n);
    stream.part(11, [agent('b', 11)], [], 't11');
    await until(() => client.state.revision === 11n);
    expect(changes).toMatchObject([{ revision: 11n, agents: ['a', 'b'], catalogue: true, merged: 1 }]);
    expect(client.agent('a').resolve()).not.toBe(before);
  });

  it('is not applied again when it was applied before', async () => {
    const { client, stream } = await startResident();
    stream
      .change(12, [agent('trader', 12)])
      .change(11, [agent('trader', 11)])
      .change(12, [absentAgent('trader')]);
    stream.bookmark(9).change(13, []);
    await until(() => client.state.revision === 13n);
    expect(client.agent('trader').held?.agent.revision).toBe(12n);
  });

  it('is applied when it contains fields and events of a newer version', async () => {
    const { client, stream } = await startResident();
    const unknown = (field: number) => Buffer.from([(field << 3) | 2, (field << 3) >> 7, 3, 1, 2, 3]);
    const unknownField = (field: number) =>
      Buffer.from([0x80 | ((field << 3) & 0x7f) | 2, (field << 3) >> 7, 3, 1, 2, 3]);
    expect(unknown(1)).toHaveLength(6);
    // An event of an unknown kind that completes its revision, with an unknown field.
    const event = WatchConfigsResponse.encode(WatchConfigsResponse.fromPartial({ revision: 11n, resume_token: 't11' }));
    stream.send(Buffer.concat([event.finish(), unknownField(50)]));
    await until(() => client.state.revision === 11n);
    // An item of an unknown kind, in changes with an unknown field.
    const item = Buffer.concat([
      CatalogueItem.encode(CatalogueItem.fromPartial({ urgent: false })).finish(),
      unknownField(60),
    ]);
    const known = ConfigChanges.encode(
      ConfigChanges.fromPartial({ agents: [agent('trader', 12)], catalogue: [...CATALOGUE] }),
    ).finish();
    const changes = Buffer.concat([known, Buffer.from([(2 << 3) | 2, item.length]), item, unknownField(70)]);
    const length = Buffer.from([(changes.length & 0x7f) | 0x80, changes.length >> 7]);
    const rest = WatchConfigsResponse.encode(WatchConfigsResponse.fromPartial({ revision: 12n, resume_token: 't12' }));
    stream.send(Buffer.concat([Buffer.from([(6 << 3) | 2]), length, changes, rest.finish()]));
    await until(() => client.state.revision === 12n);
    expect(client.state.status).toBe('READY');
    expect(client.agent('trader').resolve().hops).toHaveLength(1);
    expect(client.agent('trader').resolve().agent.name).toBe('trader');
  });
});

describe('a resume token', () => {
  it.each([
    ['INVALID_RESUME_TOKEN', status.INVALID_ARGUMENT],
    ['RESUME_TOKEN_FILTER_CHANGED', status.INVALID_ARGUMENT],
    ['REVISION_COMPACTED', status.OUT_OF_RANGE],
    ['REVISION_IN_FUTURE', status.OUT_OF_RANGE],
    ['STORE_CHANGED', status.FAILED_PRECONDITION],
    [undefined, status.OUT_OF_RANGE],
  ])('is replaced by a snapshot when it is rejected with %s', async (reason, code) => {
    const { fake, client, stream } = await startResident();
    stream.fail(status.UNAVAILABLE);
    (await fake.stream(1)).fail(code, reason);
    const third = await fake.stream(2);
    expect(tokensOf(fake)).toEqual(['', 't10', '']);
    // A lagging replica must not move the state back; another store has its own sequence of revisions.
    const sameStore = ['INVALID_RESUME_TOKEN', 'RESUME_TOKEN_FILTER_CHANGED', 'REVISION_COMPACTED'].includes(
      `${reason}`,
    );
    expect(fake.streams.map(({ request }) => request.min_revision)).toEqual([0n, 0n, sameStore ? 10n : 0n]);
    expect(client.state).toMatchObject({ status: 'STALE', revision: 10n });
    third.start().snapshot(20, [agent('trader', 20)]);
    await until(() => client.state.status === 'READY');
    expect(client.state.revision).toBe(20n);
  });

  it('is kept when the stream fails for another reason', async () => {
    const { fake, stream } = await startResident();
    stream.fail(status.RESOURCE_EXHAUSTED, 'SLOW_CONSUMER');
    (await fake.stream(1)).fail(status.UNAVAILABLE);
    (await fake.stream(2)).fail(status.UNAUTHENTICATED);
    await until(() => fake.streams.length === 4);
    expect(tokensOf(fake)).toEqual(['', 't10', 't10', 't10']);
  });
});

describe('credentials', () => {
  it.each([
    ['UNAUTHENTICATED', status.UNAUTHENTICATED],
    ['PERMISSION_DENIED', status.PERMISSION_DENIED],
  ] as const)(
    'make the client FAILED when they are rejected with %s, and READY when a later attempt succeeds',
    async (name, code) => {
      const { fake, client, stream } = await startResident();
      const times: number[] = [];
      fake.onStream = (next) => {
        times.push(next.at);
        if (times.length < 3) next.fail(code);
        else next.start({ resumed: true }).bookmark(10);
      };
      stream.fail(code);
      await until(() => client.state.status === 'FAILED');
      expect(client.state.error?.code).toBe(name);
      expect(client.agent('trader').resolve().hops).toHaveLength(1);
      await client.ready(100);
      await until(() => client.state.status === 'READY');
      expect(times).toHaveLength(3);
      times.slice(1).forEach((time, at) => {
        expect(time - (times[at] as number)).toBeGreaterThan(3_900);
      });
    },
  );

  it('make ready() reject immediately when they are rejected and no state is held', async () => {
    const fake = await startFakeWatch();
    fake.onStream = (stream) => stream.fail(status.UNAUTHENTICATED);
    const client = connectResident(fake.address);
    const began = performance.now();
    expect((await failed(client.ready(10_000))).code).toBe('UNAUTHENTICATED');
    expect(performance.now() - began).toBeLessThan(SOON_MS);
    expect(client.state.status).toBe('FAILED');
  });

  it('are requested for each attempt, and a token function that throws does not make the client FAILED', async () => {
    const fake = await startFakeWatch();
    let tokenCalls = 0;
    const token = async () => `token-${++tokenCalls}`;
    const client = connectResident(fake.address, { token });
    (await fake.stream(0))
      .start()
      .snapshot(10, [agent('trader', 1)])
      .fail(status.UNAVAILABLE);
    const second = await fake.stream(1);
    expect(fake.streams[0]?.headers.get('authorization')).toEqual(['Bearer token-1']);
    const [authorization] = second.headers.get('authorization');
    expect(authorization).toMatch(/^Bearer token-[2-9]$/);
    let failing = true;
    const vault = async () => {
      if (failing) throw new Error('the vault is shut');
      return 'token';
    };
    const waiting = connectResident(fake.address, { token: vault });
    const error = await failed(waiting.ready(1_000));
    // The service has not rejected the client: the next attempt may have a token.
    expect(error).toMatchObject({ code: 'UNAVAILABLE', cause: { code: 'UNAUTHENTICATED' } });
    expect(error.message).toContain('the vault is shut');
    expect(waiting.state.status).toBe('CONNECTING');
    failing = false;
    (await fake.stream(2)).start().snapshot(10, [agent('trader', 1)]);
    await waiting.ready(30_000);
    expect(client.state.revision).toBe(10n);
  });
});

describe('a silent stream', () => {
  it('is replaced after twice the interval of its bookmarks', async () => {
    const fake = await startFakeWatch();
    const client = connectResident(fake.address);
    const stream = await fake.stream(0);
    useFakeClock();
    stream.start({ interval: 300 }).snapshot(10, [agent('trader', 1)]);
    await until(() => client.state.revision === 10n);
    for (let revision = 11; revision <= 14; revision++) {
      vi.advanceTimersByTime(550);
      stream.bookmark(revision);
      await until(() => client.state.revision === BigInt(revision));
    }
    vi.advanceTimersByTime(599);
    expect(client.state.status).toBe('READY');
    expect(stream.cancelled).toBe(false);
    vi.advanceTimersByTime(1);
    await until(() => client.state.status === 'STALE');
    expect(client.state.error).toMatchObject({ code: 'UNAVAILABLE', message: 'The stream was silent for 600 ms' });
    await until(() => stream.cancelled);
    expect(fake.streams).toHaveLength(1);
    vi.advanceTimersByTime(MAX_MS);
    (await fake.stream(1)).start({ resumed: true }).bookmark(15);
    await until(() => client.state.status === 'READY');
    expect(tokensOf(fake)).toEqual(['', 't14']);
  });

  it('is replaced over another connection when the network drops all packets', async () => {
    const fake = await startFakeWatch();
    const proxy = await startProxy(fake.port);
    const renew = vi.spyOn(Connection.prototype, 'renew');
    onTestFinished(() => renew.mockRestore());
    const client = connectResident(`127.0.0.1:${proxy.port}`);
    (await fake.stream(0)).start({ interval: 400 }).snapshot(10, [agent('trader', 1)]);
    await client.ready();
    proxy.strand();
    await until(() => client.state.status === 'STALE');
    // The keepalive of gRPC would end the connection too, but needs 15 s.
    expect(renew).toHaveBeenCalledTimes(1);
    expect(client.state.error?.message).toBe('The stream was silent for 800 ms');
    fake.onStream = (next) => next.start({ resumed: true }).bookmark(11);
    await until(() => client.state.status === 'READY');
    expect(client.state.revision).toBe(11n);
    expect(fake.streams).toHaveLength(2);
  });
});

describe('connection attempts', () => {
  /** Far fewer than an attempt every 100 ms, the shortest pause, would make. */
  const MAX_IN_4_S = 12;
  const inFirst4s = (times: readonly number[]) => times.filter((time) => time - (times[0] as number) < 4_000);

  it('are separated by pauses when each fails immediately', async () => {
    const fake = await startFakeWatch();
    fake.onStream = (stream) => stream.fail(status.UNAVAILABLE);
    connectResident(fake.address);
    await sleep(4_000);
    await until(() => fake.streams.length >= 3);
    const times = fake.streams.map(({ at }) => at);
    expect(inFirst4s(times).length).toBeLessThanOrEqual(MAX_IN_4_S);
    for (const [at, time] of times.slice(1).entries()) expect(time - (times[at] as number)).toBeGreaterThan(90);
  });

  it('are separated by growing pauses when each stream starts successfully', async () => {
    const fake = await startFakeWatch();
    fake.onStream = (stream) =>
      stream
        .start()
        .snapshot(10, [agent('trader', 1)])
        .fail(status.UNAVAILABLE);
    const client = connectResident(fake.address);
    await sleep(4_000);
    await until(() => fake.streams.length >= 3);
    expect(client.state.revision).toBe(10n);
    expect(inFirst4s(fake.streams.map(({ at }) => at)).length).toBeLessThanOrEqual(MAX_IN_4_S);
  });

  it('are separated by pauses when a proxy accepts and drops every connection', async () => {
    const times: number[] = [];
    const proxy = createServer((socket) => {
      times.push(performance.now());
      socket.destroy();
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void proxy.close());
    const client = connectResident(`127.0.0.1:${(proxy.address() as { port: number }).port}`);
    await sleep(4_000);
    await until(() => times.length >= 2);
    expect(client.state.status).toBe('CONNECTING');
    expect(inFirst4s(times).length).toBeLessThanOrEqual(MAX_IN_4_S);
  });

  it('wait for the retry delay that the service returns', async () => {
    const { fake, stream } = await startResident();
    const began = performance.now();
    stream.fail(status.UNAVAILABLE, 'SERVER_SHUTTING_DOWN', 1_500);
    const next = await fake.stream(1);
    expect(next.at - began).toBeGreaterThan(1_450);
  });

  it('continue until the service is available, at the start and after an outage', async () => {
    const port = await freePort();
    const client = connectResident(`127.0.0.1:${port}`);
    await sleep(500);
    expect(client.state.status).toBe('CONNECTING');
    const fake = await startFakeWatch(port);
    fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1)]);
    await client.ready(30_000);
    expect(client.state.status).toBe('READY');
    fake.stop();
    await until(() => client.state.status === 'STALE');
    const again = await startFakeWatch(port);
    again.onStream = (stream) => stream.start({ resumed: true }).bookmark(12);
    await until(() => client.state.status === 'READY');
    expect(again.streams[0]?.request.resume_token).toBe('t10');
    expect(again.streams[0]?.request.client_id).toBe(client.clientId);
  });
});
