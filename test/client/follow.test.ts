import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  CatalogueItem,
  ConfigChanges,
  WatchConfigsResponse,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { Change } from '../../src/client/index.js';
import { freePort } from '../support/ports.js';
import { startProxy } from '../support/proxy.js';
import { agent, CATALOGUE, config, gone, held, hold, model, startFakeWatch } from './fake_watch.js';
import { failed, until } from './support.js';

const tokensOf = (fake: { streams: readonly { request: { max_tokens?: never; resume_token: string } }[] }) =>
  fake.streams.map(({ request }) => request.resume_token);

describe('a stream that breaks', () => {
  it('goes on behind the last revision that was whole', async () => {
    const { fake, client, stream } = await held();
    const since = Date.now();
    stream.change(11, [agent('trader', 11)]).bookmark(14);
    await until(() => client.state.revision === 14n);
    stream.fail(status.UNAVAILABLE, 'SERVER_SHUTTING_DOWN');
    await until(() => client.state.status === 'STALE');
    expect(client.state.error).toMatchObject({ code: 'UNAVAILABLE', reason: 'SERVER_SHUTTING_DOWN' });
    expect(client.state.since.getTime()).toBeGreaterThanOrEqual(since);
    // What was held is served on.
    expect(client.agent('trader').resolve().revision).toBe(11n);
    const next = await fake.stream(1);
    expect(next.request.resume_token).toBe('t14');
    next
      .start({ resumed: true, newest: 16 })
      .change(15, [agent('trader', 15, { configs: [config(1, 15, { top_p: 0.5 })] })]);
    await until(() => client.state.revision === 15n);
    // What was missed may still be on its way.
    expect(client.state.status).toBe('STALE');
    next.bookmark(16);
    await until(() => client.state.status === 'READY');
    expect(client.state.error).toBeUndefined();
    expect(client.agent('trader').resolve().hops[0]?.parameters).toContainEqual(
      expect.objectContaining({ name: 'top_p', value: 0.5 }),
    );
  });

  it('is READY when it has what the service had, and not by a sign of life on the way there', async () => {
    const { fake, client, stream } = await held();
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

  it('is READY by the change that brings it there', async () => {
    const { fake, client, stream } = await held();
    stream.fail(status.UNAVAILABLE);
    const next = await fake.stream(1);
    next.start({ resumed: true, newest: 20 }).change(19, [agent('trader', 19)]);
    await until(() => client.state.revision === 19n);
    expect(client.state.status).toBe('STALE');
    next.change(20, [agent('trader', 20)]);
    await until(() => client.state.status === 'READY');
    expect(client.state.revision).toBe(20n);
  });

  it('leaves the old state when it breaks within a snapshot, and the next one is swapped in whole', async () => {
    const { fake, client, stream } = await held([agent('a', 1), agent('b', 1)], { agents: 'all' });
    const [a, b] = [client.agent('a').resolve(), client.agent('b').resolve()];
    const changes: Change[] = [];
    client.on('change', (change) => changes.push(change));
    stream.fail(status.FAILED_PRECONDITION, 'STORE_CHANGED');
    const second = await fake.stream(1);
    expect(second.request.resume_token).toBe('');
    second.start().halfSnapshot(3, [agent('a', 3, { configs: [config(1, 3)] })]);
    await sleep(100);
    second.fail(status.UNAVAILABLE);
    const third = await fake.stream(2);
    expect(third.request.resume_token).toBe('');
    expect(client.state).toMatchObject({ status: 'STALE', revision: 10n });
    expect(client.agent('a').resolve()).toBe(a);
    expect(changes).toEqual([]);
    third.start().snapshot(4, [agent('b', 1), agent('c', 4)]);
    await until(() => client.state.status === 'READY');
    // The other store may be younger.
    expect(client.state.revision).toBe(4n);
    expect(changes).toMatchObject([
      { revision: 4n, agents: ['c', 'a'], catalogue: false, snapshot: true, urgent: false },
    ]);
    expect(client.agent('b').resolve()).toBe(b);
    expect(() => client.agent('a').resolve()).toThrow(/No agent has the name "a"/);
  });

  it('forgets the half of a revision', async () => {
    const { fake, client, stream } = await held();
    stream.part(11, [agent('trader', 11, { configs: [config(1, 11, { top_p: 0.1 })] })]);
    await sleep(100);
    expect(client.state.revision).toBe(10n);
    stream.fail(status.UNAVAILABLE);
    const next = await fake.stream(1);
    expect(next.request.resume_token).toBe('t10');
    next.start({ resumed: true }).bookmark(10);
    await until(() => client.state.status === 'READY');
    expect(client.agent('trader').held?.configs[0]?.top_p).toBeUndefined();
  });

  it('goes on when the service ends it as if all were well, or sends what is none', async () => {
    const { fake, client, stream } = await held();
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
  it('is applied when all of it is there', async () => {
    const { client, stream } = await held([agent('a', 1), agent('b', 1)], { agents: 'all' });
    const changes: Change[] = [];
    client.on('change', (change) => changes.push(change));
    const before = client.agent('a').resolve();
    stream.part(11, [agent('a', 11)]).part(11, [], [model('new')]);
    await sleep(100);
    expect(client.agent('a').resolve()).toBe(before);
    expect(client.state.revision).toBe(10n);
    stream.part(11, [agent('b', 11)], [], 't11');
    await until(() => client.state.revision === 11n);
    expect(changes).toMatchObject([{ revision: 11n, agents: ['a', 'b'], catalogue: true, merged: 1 }]);
    expect(client.agent('a').resolve()).not.toBe(before);
  });

  it('that came before is not applied again', async () => {
    const { client, stream } = await held();
    stream
      .change(12, [agent('trader', 12)])
      .change(11, [agent('trader', 11)])
      .change(12, [gone('trader')]);
    stream.bookmark(9).change(13, []);
    await until(() => client.state.revision === 13n);
    expect(client.agent('trader').held?.agent.revision).toBe(12n);
  });

  it('may have parts that only a newer version knows', async () => {
    const { client, stream } = await held();
    const unknown = (field: number) => Buffer.from([(field << 3) | 2, (field << 3) >> 7, 3, 1, 2, 3]);
    const strange = (field: number) => Buffer.from([0x80 | ((field << 3) & 0x7f) | 2, (field << 3) >> 7, 3, 1, 2, 3]);
    expect(unknown(1)).toHaveLength(6);
    // An event of another kind that completes its revision, with a field of its own.
    const event = WatchConfigsResponse.encode(WatchConfigsResponse.fromPartial({ revision: 11n, resume_token: 't11' }));
    stream.send(Buffer.concat([event.finish(), strange(50)]));
    await until(() => client.state.revision === 11n);
    // An item of another kind, in changes with a field of their own.
    const item = Buffer.concat([
      CatalogueItem.encode(CatalogueItem.fromPartial({ urgent: false })).finish(),
      strange(60),
    ]);
    const known = ConfigChanges.encode(
      ConfigChanges.fromPartial({ agents: [agent('trader', 12)], catalogue: [...CATALOGUE] }),
    ).finish();
    const changes = Buffer.concat([known, Buffer.from([(2 << 3) | 2, item.length]), item, strange(70)]);
    const length = Buffer.from([(changes.length & 0x7f) | 0x80, changes.length >> 7]);
    const rest = WatchConfigsResponse.encode(WatchConfigsResponse.fromPartial({ revision: 12n, resume_token: 't12' }));
    stream.send(Buffer.concat([Buffer.from([(6 << 3) | 2]), length, changes, rest.finish()]));
    await until(() => client.state.revision === 12n);
    expect(client.state.status).toBe('READY');
    expect(client.agent('trader').resolve().hops).toHaveLength(1);
    expect(client.agent('trader').resolve().agent.name).toBe('trader');
  });
});

describe('a place to go on from that is refused', () => {
  it.each([
    ['INVALID_RESUME_TOKEN', status.INVALID_ARGUMENT],
    ['RESUME_TOKEN_FILTER_CHANGED', status.INVALID_ARGUMENT],
    ['REVISION_COMPACTED', status.OUT_OF_RANGE],
    ['REVISION_IN_FUTURE', status.OUT_OF_RANGE],
    ['STORE_CHANGED', status.FAILED_PRECONDITION],
    [undefined, status.OUT_OF_RANGE],
  ])('(%s) is given up for a snapshot', async (reason, code) => {
    const { fake, client, stream } = await held();
    stream.fail(status.UNAVAILABLE);
    (await fake.stream(1)).fail(code, reason);
    const third = await fake.stream(2);
    expect(tokensOf(fake)).toEqual(['', 't10', '']);
    // A replica that lags behind must not take it back; another store counts anew.
    const sameStore = ['INVALID_RESUME_TOKEN', 'RESUME_TOKEN_FILTER_CHANGED', 'REVISION_COMPACTED'].includes(
      `${reason}`,
    );
    expect(fake.streams.map(({ request }) => request.min_revision)).toEqual([0n, 0n, sameStore ? 10n : 0n]);
    expect(client.state).toMatchObject({ status: 'STALE', revision: 10n });
    third.start().snapshot(20, [agent('trader', 20)]);
    await until(() => client.state.status === 'READY');
    expect(client.state.revision).toBe(20n);
  });

  it('is kept in every other case', async () => {
    const { fake, stream } = await held();
    stream.fail(status.RESOURCE_EXHAUSTED, 'SLOW_CONSUMER');
    (await fake.stream(1)).fail(status.UNAVAILABLE);
    (await fake.stream(2)).fail(status.UNAUTHENTICATED);
    await until(() => fake.streams.length === 4, 8_000);
    expect(tokensOf(fake)).toEqual(['', 't10', 't10', 't10']);
  });
});

describe('credentials that are refused', () => {
  it.each([
    ['UNAUTHENTICATED', status.UNAUTHENTICATED],
    ['PERMISSION_DENIED', status.PERMISSION_DENIED],
  ] as const)('(%s) are FAILED, tried again rarely, and READY when they are good', async (name, code) => {
    const { fake, client, stream } = await held();
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
    await until(() => client.state.status === 'READY', 16_000);
    expect(times).toHaveLength(3);
    times.slice(1).forEach((time, at) => {
      expect(time - (times[at] as number)).toBeGreaterThan(3_900);
      expect(time - (times[at] as number)).toBeLessThan(5_500);
    });
  });

  it('end the wait of who has nothing at once', async () => {
    const fake = await startFakeWatch();
    fake.onStream = (stream) => stream.fail(status.UNAUTHENTICATED);
    const client = hold(fake.address);
    const began = performance.now();
    expect((await failed(client.ready(10_000))).code).toBe('UNAUTHENTICATED');
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(client.state.status).toBe('FAILED');
  });

  it('may be a function that fails; each attempt asks for a token anew', async () => {
    const fake = await startFakeWatch();
    let asked = 0;
    const token = async () => `token-${++asked}`;
    const client = hold(fake.address, { token });
    (await fake.stream(0))
      .start()
      .snapshot(10, [agent('trader', 1)])
      .fail(status.UNAVAILABLE);
    const second = await fake.stream(1);
    expect(fake.streams[0]?.headers.get('authorization')).toEqual(['Bearer token-1']);
    const [given] = second.headers.get('authorization');
    expect(given).toMatch(/^Bearer token-[2-9]$/);
    let shut = true;
    const vault = async () => {
      if (shut) throw new Error('the vault is shut');
      return 'token';
    };
    const waiting = hold(fake.address, { token: vault });
    const error = await failed(waiting.ready(1_000));
    // It is not the service that refuses: the next attempt may have a token.
    expect(error).toMatchObject({ code: 'UNAVAILABLE', cause: { code: 'UNAUTHENTICATED' } });
    expect(error.message).toContain('the vault is shut');
    expect(waiting.state.status).toBe('CONNECTING');
    shut = false;
    (await fake.stream(2)).start().snapshot(10, [agent('trader', 1)]);
    await waiting.ready(5_000);
    expect(client.state.revision).toBe(10n);
  });
});

describe('a silent stream', () => {
  it('is dead after twice the interval of its bookmarks, and another is opened', async () => {
    const fake = await startFakeWatch();
    const client = hold(fake.address);
    const stream = await fake.stream(0);
    stream.start({ interval: 300 }).snapshot(10, [agent('trader', 1)]);
    await client.ready();
    for (let sign = 0; sign < 4; sign++) {
      await sleep(250);
      stream.bookmark(10);
    }
    expect(fake.streams).toHaveLength(1);
    const began = performance.now();
    await until(() => client.state.status === 'STALE');
    expect(performance.now() - began).toBeGreaterThan(400);
    expect(client.state.error).toMatchObject({ code: 'UNAVAILABLE', message: 'The stream was silent for 600 ms' });
    await until(() => stream.cancelled);
    (await fake.stream(1)).start({ resumed: true }).bookmark(11);
    await until(() => client.state.status === 'READY');
    expect(tokensOf(fake)).toEqual(['', 't10']);
  });

  it('is left for another connection when the network swallows everything', async () => {
    const fake = await startFakeWatch();
    const proxy = await startProxy(fake.port);
    const client = hold(`127.0.0.1:${proxy.port}`);
    (await fake.stream(0)).start({ interval: 400 }).snapshot(10, [agent('trader', 1)]);
    await client.ready();
    proxy.strand();
    await until(() => client.state.status === 'STALE');
    fake.onStream = (next) => next.start({ resumed: true }).bookmark(11);
    await until(() => client.state.status === 'READY', 2_000);
    expect(client.state.revision).toBe(11n);
  });
});

describe('attempts', () => {
  /** What an attempt every 100 ms, the shortest pause, could never come to. */
  const MOST_IN_4_S = 12;

  it('pause between each other, however fast each fails', async () => {
    const fake = await startFakeWatch();
    fake.onStream = (stream) => stream.fail(status.UNAVAILABLE);
    hold(fake.address);
    await sleep(4_000);
    expect(fake.streams.length).toBeGreaterThanOrEqual(3);
    expect(fake.streams.length).toBeLessThanOrEqual(MOST_IN_4_S);
    const times = fake.streams.map(({ at }) => at);
    for (const [at, time] of times.slice(1).entries()) expect(time - (times[at] as number)).toBeGreaterThan(90);
  });

  it('pause longer also when each begins well', async () => {
    const fake = await startFakeWatch();
    fake.onStream = (stream) =>
      stream
        .start()
        .snapshot(10, [agent('trader', 1)])
        .fail(status.UNAVAILABLE);
    const client = hold(fake.address);
    await sleep(4_000);
    expect(client.state.revision).toBe(10n);
    expect(fake.streams.length).toBeLessThanOrEqual(MOST_IN_4_S);
  });

  it('pause before a proxy that takes every connection and drops it', async () => {
    let connections = 0;
    const proxy = createServer((socket) => {
      connections++;
      socket.destroy();
    });
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void proxy.close());
    const client = hold(`127.0.0.1:${(proxy.address() as { port: number }).port}`);
    await sleep(4_000);
    expect(client.state.status).toBe('CONNECTING');
    expect(connections).toBeLessThanOrEqual(MOST_IN_4_S);
  });

  it('wait for as long as the service asks', async () => {
    const { fake, stream } = await held();
    const began = performance.now();
    stream.fail(status.UNAVAILABLE, 'SERVER_SHUTTING_DOWN', 1_500);
    const next = await fake.stream(1);
    expect(next.at - began).toBeGreaterThan(1_450);
    expect(next.at - began).toBeLessThan(2_200);
  });

  it('go on until the service is there, in whatever way it was not', async () => {
    const port = await freePort();
    const client = hold(`127.0.0.1:${port}`);
    await sleep(500);
    expect(client.state.status).toBe('CONNECTING');
    const fake = await startFakeWatch(port);
    fake.onStream = (stream) => stream.start().snapshot(10, [agent('trader', 1)]);
    await client.ready(8_000);
    expect(client.state.status).toBe('READY');
    fake.stop();
    await until(() => client.state.status === 'STALE');
    const again = await startFakeWatch(port);
    again.onStream = (stream) => stream.start({ resumed: true }).bookmark(12);
    await until(() => client.state.status === 'READY', 8_000);
    expect(again.streams[0]?.request.resume_token).toBe('t10');
    expect(again.streams[0]?.request.client_id).toBe(client.clientId);
  });
});
