import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect as connectTcp } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { WatchConfigsRequest } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { GetAgentRequest, ListAgentsRequest } from '../../gen/ts/agentllm/v1/agent_service.js';
import { raw, send } from '../http/support.js';
import { copyFirstStart, startCommand } from '../support/command.js';
import { type Clients, connect } from '../support/service.js';
import { callHeaders, FLAG, h2, header, Peer, PREFACE, settings, TYPE, u32, wholeCall } from './http2_frames.js';

/*
 * What no HTTP library sends, against a service in a process of its own, from this machine and so much of it as one core
 * can send in a few seconds. Whatever it is: the process lives, takes no more memory than it should, and answers the next
 * call. test/grpc/frames.test.ts has single calls with one wrong frame, test/hostile/http_requests.test.ts single HTTP requests.
 */

const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env['FUZZ_RUNS'] ?? 12);
/** What a flood may take more than an idle service, for as long as it lasts, and before what it has left is collected. */
const MORE_MEMORY = 512;

let command: Awaited<ReturnType<typeof startCommand>>;
let directory: string;
let clients: Clients;
let port: number;
let httpPort: number;
let idleMemory: number;
const peers: Peer[] = [];
const keep = async (peer: Promise<Peer>) => {
  peers.push(await peer);
  return peer;
};
/** From the beginning of the file to its end it says nothing. */
let silent: Peer;

beforeAll(async () => {
  directory = await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-')));
  command = await startCommand({ DATA_DIR: directory, HTTP_ADDRESS: '127.0.0.1:0', LOG_LEVEL: 'warn' });
  port = command.port;
  httpPort = Number((await command.says(/HTTP {6}[^:\s]+:(\d+)/))[1]);
  clients = connect(port);
  await alive();
  idleMemory = memory();
  silent = await Peer.open(port);
});

afterAll(async () => {
  clients?.close();
  for (const peer of peers) peer.leave();
  command?.child.kill('SIGTERM');
  const { code } = (await command?.ended) ?? {};
  await rm(directory, { recursive: true, force: true });
  // It ended as it was told to, and has nothing to report but its end.
  expect(code).toBe(0);
  expect(command.output()).not.toMatch(/"level":(50|60)|unhandled|uncaught|call failed inside/i);
});

afterEach(async () => {
  for (const peer of peers.splice(0)) peer.leave();
  await alive();
  expect(memory() - idleMemory).toBeLessThan(MORE_MEMORY);
});

/** MiB that the service takes, where the system says so. */
function memory(): number {
  const status = `/proc/${command.child.pid}/status`;
  return existsSync(status) ? Number(/VmRSS:\s*(\d+)/.exec(readFileSync(status, 'utf8'))?.[1]) / 1024 : 0;
}

/** The process is there, and both ports answer. */
async function alive(): Promise<void> {
  expect(command.child.exitCode).toBeNull();
  const { agent } = await clients.agents.getAgent({ agent: { name: 'trader' } }, { deadlineMs: 5_000 });
  expect(agent?.name).toBe('trader');
  expect((await send(httpPort, 'GET', '/v1/agents/8')).status).toBe(200);
}

const GET_AGENT = '/agentllm.v1.AgentService/GetAgent';
const LIST_AGENTS = '/agentllm.v1.AgentService/ListAgents';
const WATCH = '/agentllm.v1.AgentLLMConfigWatchService/WatchConfigs';
const getTrader = GetAgentRequest.encode(GetAgentRequest.fromPartial({ agent: { name: 'trader' } })).finish();
const listAll = ListAgentsRequest.encode(ListAgentsRequest.fromPartial({})).finish();
const watchAll = WatchConfigsRequest.encode(WatchConfigsRequest.fromPartial({ all_agents: true })).finish();
const headersOf = (stream: number, flags: number, ...more: Buffer[]) =>
  h2(TYPE.HEADERS, flags, stream, callHeaders(GET_AGENT, ...more));
const opened = headersOf(1, FLAG.END_HEADERS);
const odd = (n: number) => 2 * n + 1;
function* times(count: number, piece: (n: number) => Buffer): Generator<Buffer> {
  for (let n = 0; n < count; n++) yield piece(n);
}

/** Node says INTERNAL_ERROR for most of what nghttp2 finds wrong. */
const BROKEN = /^(GOAWAY|RST) (PROTOCOL|INTERNAL|FLOW_CONTROL)_ERROR/;
/** nghttp2 drops the frame, or the header, and goes on. */
const IGNORED = /^open/;

describe('a frame that breaks the rules ends the connection, or its stream, and nothing else', () => {
  it.each([
    ['SETTINGS of 5 bytes', [h2(TYPE.SETTINGS, 0, 0, Buffer.alloc(5))], /FRAME_SIZE_ERROR/],
    ['SETTINGS of a stream', [h2(TYPE.SETTINGS, 0, 1)], BROKEN],
    ['an ACK with settings in it', [h2(TYPE.SETTINGS, FLAG.ACK, 0, Buffer.alloc(6))], /FRAME_SIZE_ERROR/],
    ['a window of 2^32-1', [settings([4, 2 ** 32 - 1])], BROKEN],
    ['frames of up to 1 byte', [settings([5, 1])], BROKEN],
    ['ENABLE_PUSH of 7', [settings([2, 7])], BROKEN],
    ['PING of 7 bytes', [h2(TYPE.PING, 0, 0, Buffer.alloc(7))], /FRAME_SIZE_ERROR/],
    ['PING of a stream', [h2(TYPE.PING, 0, 1, Buffer.alloc(8))], BROKEN],
    ['RST_STREAM of 3 bytes', [opened, h2(TYPE.RST_STREAM, 0, 1, Buffer.alloc(3))], /FRAME_SIZE_ERROR/],
    ['RST_STREAM of no stream', [h2(TYPE.RST_STREAM, 0, 0, u32(8))], BROKEN],
    ['RST_STREAM of a stream to come', [h2(TYPE.RST_STREAM, 0, 99, u32(8))], BROKEN],
    ['WINDOW_UPDATE of 3 bytes', [h2(TYPE.WINDOW_UPDATE, 0, 0, Buffer.alloc(3))], /FRAME_SIZE_ERROR/],
    ['WINDOW_UPDATE by nothing', [h2(TYPE.WINDOW_UPDATE, 0, 0, u32(0))], BROKEN],
    ['a window that overflows', [...times(2, () => h2(TYPE.WINDOW_UPDATE, 0, 0, u32(2 ** 31 - 1)))], BROKEN],
    ['PRIORITY of 4 bytes', [h2(TYPE.PRIORITY, 0, 1, Buffer.alloc(4))], /FRAME_SIZE_ERROR/],
    ['GOAWAY of 2 bytes', [h2(TYPE.GOAWAY, 0, 0, Buffer.alloc(2))], /FRAME_SIZE_ERROR/],
    ['GOAWAY of a stream', [h2(TYPE.GOAWAY, 0, 1, Buffer.alloc(8))], BROKEN],
    ['a promise of a client', [h2(TYPE.PUSH_PROMISE, FLAG.END_HEADERS, 1, u32(2))], BROKEN],
    ['a frame of 16 MiB', [h2(TYPE.DATA, 0, 1, Buffer.alloc(100), 2 ** 24 - 1)], /FRAME_SIZE_ERROR/],
    ['DATA of no stream', [h2(TYPE.DATA, 0, 0, Buffer.alloc(9))], BROKEN],
    ['DATA of a stream to come', [h2(TYPE.DATA, 0, 7, Buffer.alloc(9))], BROKEN],
    ['more padding than frame', [opened, h2(TYPE.DATA, FLAG.PADDED, 1, Buffer.from([200, 1, 2]))], BROKEN],
    ['HEADERS of no stream', [headersOf(0, FLAG.END_HEADERS)], BROKEN],
    ['HEADERS of an even stream', [headersOf(2, FLAG.END_HEADERS)], BROKEN],
    ['HEADERS of a stream of before', [headersOf(9, FLAG.END_HEADERS), headersOf(3, FLAG.END_HEADERS)], IGNORED],
    ['CONTINUATION of nothing', [h2(TYPE.CONTINUATION, FLAG.END_HEADERS, 1)], BROKEN],
    ['PING between HEADERS', [headersOf(1, 0), h2(TYPE.PING, 0, 0, Buffer.alloc(8))], BROKEN],
    ['a stream in the midst of another’s headers', [headersOf(1, 0), headersOf(3, FLAG.END_HEADERS)], BROKEN],
    [
      'an index of HPACK that is not there',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from([0xff, 0x80, 0x01]))],
      /COMPRESSION_ERROR/,
    ],
    [
      'an integer of HPACK without end',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.alloc(20, 0xff))],
      /COMPRESSION_ERROR/,
    ],
    [
      'a table of HPACK of 1 GB',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from('3fe1ffffff03', 'hex'))],
      /COMPRESSION_ERROR/,
    ],
    [
      'a name of HPACK that is longer than the frame',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from('007f41', 'hex'))],
      /COMPRESSION_ERROR/,
    ],
    [
      'Huffman codes that are none',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from('0084ffffffff0161', 'hex'))],
      /COMPRESSION_ERROR/,
    ],
    ['headers without a path', [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from([0x83, 0x86]))], BROKEN],
    ['a header in capitals', [headersOf(1, FLAG.END_HEADERS, header('X-Big', 'x'))], BROKEN],
    ['a line feed in a header', [headersOf(1, FLAG.END_HEADERS, header('x', 'a\r\nb: c'))], IGNORED],
    ['a second path', [headersOf(1, FLAG.END_HEADERS, header(':path', '/healthz'))], BROKEN],
    ['a header of HTTP/1', [headersOf(1, FLAG.END_HEADERS, header('connection', 'close'))], BROKEN],
    ['HTTP/1.1', undefined, /^(closed|GOAWAY)/],
  ] as const)('%s', async (_, frames, end) => {
    const peer = await keep(
      frames ? Peer.polite(port, ...frames) : Peer.open(port, Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')),
    );
    expect(await peer.ends(3_000)).toMatch(end);
  });

  it('another connection’s call goes on meanwhile', async () => {
    const good = await keep(Peer.polite(port, opened));
    for (let n = 0; n < 50; n++) await keep(Peer.polite(port, h2(TYPE.PING, 0, 1, Buffer.alloc(8))));
    const message = Buffer.concat([Buffer.from([0]), u32(getTrader.length), getTrader]);
    good.send(h2(TYPE.DATA, FLAG.END_STREAM, 1, message));
    await expect.poll(() => good.received.includes('trader'), { timeout: 5_000 }).toBe(true);
  });
});

describe('frames at random', { timeout: 60_000 }, () => {
  const byte = fc.nat({ max: 255 });
  const stream = fc.constantFrom(0, 1, 1, 1, 3, 5, 2, 2 ** 31 - 1, 2 ** 31);
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 60 }),
    fc.constantFrom(callHeaders(GET_AGENT), callHeaders(WATCH), u32(8), u32(2 ** 31 - 1), Buffer.alloc(8)),
  );
  const lie = fc.oneof({ arbitrary: fc.constant(0), weight: 8 }, fc.integer({ min: -3, max: 3 }), fc.constant(2 ** 20));
  const frame = fc
    .tuple(fc.nat({ max: 12 }), fc.oneof(fc.constantFrom(0, 1, 4, 5), byte), stream, payload, lie)
    .map(([type, flags, id, bytes, more]) => h2(type, flags, id, bytes, Math.max(0, bytes.length + more)));

  it.each([
    ['behind a good beginning', [PREFACE, settings()]],
    ['behind an open call', [PREFACE, settings(), opened]],
    ['at once', [PREFACE]],
    ['without a beginning', []],
  ] as const)('%s', async (_, beginning) => {
    const property = fc.asyncProperty(fc.array(frame, { maxLength: 30 }), async (frames) => {
      const peer = await Peer.open(port, ...beginning, ...frames);
      await Promise.race([peer.closed, sleep(15)]);
      peer.leave();
      expect(command.child.exitCode).toBeNull();
    });
    await fc.assert(property, { numRuns: RUNS * 10, seed: SEED });
  });

  it('with bits that flip in an ordinary call', async () => {
    const call = Buffer.concat([PREFACE, settings(), wholeCall(1, GET_AGENT, getTrader)]);
    const property = fc.asyncProperty(
      fc.array(fc.nat({ max: call.length * 8 - 1 }), { maxLength: 6 }),
      async (bits) => {
        const bytes = Buffer.from(call);
        for (const bit of bits) bytes.writeUInt8((bytes[bit >> 3] as number) ^ (1 << (bit & 7)), bit >> 3);
        const peer = await Peer.open(port, bytes);
        await Promise.race([peer.closed, sleep(15)]);
        peer.leave();
        expect(command.child.exitCode).toBeNull();
      },
    );
    await fc.assert(property, { numRuns: RUNS * 10, seed: SEED });
  });
});

describe('a flood', { timeout: 60_000 }, () => {
  const ping = h2(TYPE.PING, 0, 0, Buffer.alloc(8));

  it.each([
    [
      'of CONTINUATION without end',
      () => [headersOf(1, 0)],
      () => times(100_000, () => h2(TYPE.CONTINUATION, 0, 1, header('x', 'y'.repeat(900)))),
    ],
    ['of empty CONTINUATION', () => [headersOf(1, 0)], () => times(200_000, () => h2(TYPE.CONTINUATION, 0, 1))],
    [
      'of calls that are taken back at once',
      () => [],
      () =>
        times(50_000, (n) =>
          Buffer.concat([headersOf(odd(n), FLAG.END_HEADERS), h2(TYPE.RST_STREAM, 0, odd(n), u32(8))]),
        ),
    ],
    [
      'of whole calls that are taken back at once',
      () => [],
      () =>
        times(5_000, (n) =>
          Buffer.concat([wholeCall(odd(n), LIST_AGENTS, listAll), h2(TYPE.RST_STREAM, 0, odd(n), u32(8))]),
        ),
    ],
    [
      'of calls whose windows are broken, so that the server takes them back',
      () => [],
      () =>
        times(20_000, (n) =>
          Buffer.concat([headersOf(odd(n), FLAG.END_HEADERS), h2(TYPE.WINDOW_UPDATE, 0, odd(n), u32(0))]),
        ),
    ],
    ['of SETTINGS', () => [], () => times(100_000, () => settings([3, 100]))],
    [
      'of SETTINGS with thousands of pairs',
      () => [],
      () => times(500, () => settings(...Array.from({ length: 2_000 }, () => [4, 65_535] as const))),
    ],
    ['of tables of HPACK, large and small', () => [], () => times(50_000, (n) => settings([1, n % 2 ? 0 : 65_536]))],
    ['of PING', () => [], () => times(200_000, () => ping)],
    ['of PRIORITY', () => [], () => times(100_000, (n) => h2(TYPE.PRIORITY, 0, odd(n % 1_000_000), Buffer.alloc(5)))],
    ['of empty DATA', () => [opened], () => times(100_000, () => h2(TYPE.DATA, 0, 1))],
    [
      'of DATA that is all padding',
      () => [opened],
      () => times(10_000, () => h2(TYPE.DATA, FLAG.PADDED, 1, Buffer.alloc(256, 0xff))),
    ],
    [
      'of a message in DATA of one byte',
      () => [opened, h2(TYPE.DATA, 0, 1, Buffer.concat([Buffer.from([0]), u32(4_000_000)]))],
      () =>
        times(1_000, () => Buffer.concat(Array.from({ length: 1_000 }, () => h2(TYPE.DATA, 0, 1, Buffer.from([0]))))),
    ],
    ['of WINDOW_UPDATE', () => [opened], () => times(200_000, () => h2(TYPE.WINDOW_UPDATE, 0, 0, u32(1)))],
    [
      'of frames that nobody knows',
      () => [],
      () => times(100_000, (n) => h2(0x20 + (n % 200), 0xff, n % 50, Buffer.alloc(40))),
    ],
    [
      'of open calls, more than a connection may have',
      () => [],
      () => times(20_000, (n) => headersOf(odd(n), FLAG.END_HEADERS)),
    ],
  ] as const)('%s: others are answered meanwhile, and it costs no memory', async (_, beginning, pieces) => {
    const peer = await keep(Peer.polite(port, ...beginning()));
    // Answers to it are not read: they are what should not pile up.
    peer.socket.pause();
    const flooding = peer.flood(pieces(), 4_000);
    await sleep(100);
    await alive();
    expect(await flooding).toBeGreaterThan(0);
    expect(memory() - idleMemory).toBeLessThan(MORE_MEMORY);
  });

  it('of headers that unpack to a thousand times their size', async () => {
    const peer = await keep(Peer.polite(port));
    const big = header('x-bomb', 'b'.repeat(3_900), { indexed: true });
    peer.send(headersOf(1, FLAG.END_HEADERS, big));
    const bomb = (n: number) =>
      h2(
        TYPE.HEADERS,
        FLAG.END_HEADERS,
        odd(n + 1),
        Buffer.concat([callHeaders(GET_AGENT), Buffer.alloc(15_000, 0xbe)]),
      );
    await peer.flood(times(300, bomb), 4_000);
    await alive();
    expect(memory() - idleMemory).toBeLessThan(MORE_MEMORY);
    // Not one of them was a call.
    expect(peer.said()).not.toContain(String(TYPE.DATA));
  });

  it('of headers of a megabyte', async () => {
    for (let n = 0; n < 20; n++) {
      const peer = await keep(Peer.polite(port, headersOf(1, 0)));
      const last = h2(TYPE.CONTINUATION, FLAG.END_HEADERS, 1);
      await peer.flood([...times(70, () => h2(TYPE.CONTINUATION, 0, 1, header('x', 'y'.repeat(15_000)))), last]);
      expect(await peer.ends(3_000)).not.toBe('open');
    }
  });
});

describe('those who open and do not go on', { timeout: 90_000 }, () => {
  it.each([
    ['connections that say nothing', 400, () => [Buffer.alloc(0)]],
    ['half of a beginning', 400, () => [PREFACE.subarray(0, 11)]],
    ['half of a frame', 300, () => [PREFACE, settings(), opened.subarray(0, 30)]],
    ['calls without a message', 300, () => [PREFACE, settings(), opened]],
    [
      'half of a message',
      300,
      () => [PREFACE, settings(), opened, h2(TYPE.DATA, 0, 1, Buffer.from([0, 0, 0, 1, 0, 1]))],
    ],
    ['headers without an end', 300, () => [PREFACE, settings(), headersOf(1, 0)]],
  ] as const)('%s', async (_, count, bytes) => {
    for (let n = 0; n < count; n++) await keep(Peer.open(port, ...bytes()));
    await alive();
    expect(memory() - idleMemory).toBeLessThan(MORE_MEMORY);
  });

  it('calls whose answers nobody takes: they are no calls that others wait for', async () => {
    // More than the server handles at once, and with answers that do not fit a window of 0.
    for (let n = 0; n < 3; n++) {
      const peer = await keep(Peer.open(port, PREFACE, settings([4, 0])));
      await peer.flood(times(900, (call) => wholeCall(odd(call), LIST_AGENTS, listAll)));
    }
    await sleep(300);
    await alive();
    expect(memory() - idleMemory).toBeLessThan(MORE_MEMORY);
  });

  it('watches that nobody reads', async () => {
    for (let n = 0; n < 2; n++) {
      const peer = await keep(Peer.open(port, PREFACE, settings([4, 0])));
      await peer.flood(times(400, (call) => wholeCall(odd(call), WATCH, watchAll)));
    }
    for (let n = 0; n < 20; n++)
      await clients.agents.updateAgent({ agent: { id: 8, description: `written ${n}` } }, { deadlineMs: 5_000 });
    await alive();
    expect(memory() - idleMemory).toBeLessThan(MORE_MEMORY);
  });

  it('one that sends a byte now and then', async () => {
    const peer = await keep(Peer.open(port));
    const call = Buffer.concat([PREFACE, settings(), wholeCall(1, GET_AGENT, getTrader)]);
    for (const byte of call) {
      peer.send(Buffer.from([byte]));
      await sleep(2);
    }
    await expect.poll(() => peer.received.includes('trader'), { timeout: 5_000 }).toBe(true);
  });
});

describe('hostile HTTP/1.1', { timeout: 60_000 }, () => {
  const HOST = 'Host: localhost\r\n';
  const SMUGGLED = `GET /openapi.json HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`;
  const JSON_TYPE = 'Content-Type: application/json\r\n';
  const post = (headers: string, body: string) =>
    `POST /v1/agents HTTP/1.1\r\n${HOST}${JSON_TYPE}${headers}\r\n${body}`;
  const statuses = (answer: string) => [...answer.matchAll(/HTTP\/1\.[01] (\d+)/g)].map(([, status]) => Number(status));

  it.each([
    ['chunked in an unknown coding', post('Transfer-Encoding: xchunked\r\n', `0\r\n\r\n${SMUGGLED}`)],
    ['chunked, and not last', post('Transfer-Encoding: chunked, identity\r\n', `0\r\n\r\n${SMUGGLED}`)],
    ['a space before the colon', post('Transfer-Encoding : chunked\r\n', `0\r\n\r\n${SMUGGLED}`)],
    ['a vertical tab before chunked', post('Transfer-Encoding: \x0bchunked\r\n', `0\r\n\r\n${SMUGGLED}`)],
    ['a NUL in a name', post('Transfer-\0Encoding: chunked\r\n', `0\r\n\r\n${SMUGGLED}`)],
    [
      'two codings, and a length',
      post(
        `Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\nContent-Length: ${SMUGGLED.length + 5}\r\n`,
        `0\r\n\r\n${SMUGGLED}`,
      ),
    ],
    [
      'a length and chunked, the other way round',
      post(`Transfer-Encoding: chunked\r\nContent-Length: 4\r\n`, `0\r\n\r\n${SMUGGLED}`),
    ],
    ['a length with a plus', post('Content-Length: +0\r\n', SMUGGLED)],
    ['a length below zero', post('Content-Length: -1\r\n', SMUGGLED)],
    ['a length in hexadecimal', post('Content-Length: 0x0\r\n', SMUGGLED)],
    ['a length of two numbers', post('Content-Length: 0, 0\r\n', SMUGGLED)],
    ['a length with an exponent', post('Content-Length: 0e5\r\n', SMUGGLED)],
    ['a length beyond 64 bits', post('Content-Length: 18446744073709551616\r\n', SMUGGLED)],
    ['an empty length', post('Content-Length: \r\n', SMUGGLED)],
    ['a folded header', post('X-Folded: a\r\n b\r\nTransfer-Encoding:\r\n chunked\r\n', `0\r\n\r\n${SMUGGLED}`)],
    ['a bare line feed in the headers', `POST /v1/agents HTTP/1.1\n${HOST}Content-Length: 0\n\n${SMUGGLED}`],
    ['a bare carriage return in the headers', post('X: a\rTransfer-Encoding: chunked\r\n', `0\r\n\r\n${SMUGGLED}`)],
    ['a chunk of negative size', post('Transfer-Encoding: chunked\r\n', `-1\r\n\r\n${SMUGGLED}`)],
    ['a chunk beyond 64 bits', post('Transfer-Encoding: chunked\r\n', `10000000000000000\r\n${SMUGGLED}`)],
    ['a chunk whose end is missing', post('Transfer-Encoding: chunked\r\n', `2\r\n{}0\r\n\r\n${SMUGGLED}`)],
    ['a chunk extension with a line feed', post('Transfer-Encoding: chunked\r\n', `0;x=\n\r\n\r\n${SMUGGLED}`)],
    ['a header without a name', post(': x\r\n', SMUGGLED)],
    ['a header with a space in its name', post('X Y: z\r\n', SMUGGLED)],
    ['a line that is no header', post('nonsense\r\n', SMUGGLED)],
    ['HTTP/1.2', `GET /healthz HTTP/1.2\r\n${HOST}\r\n${SMUGGLED}`],
    ['HTTP/9.9', `GET /healthz HTTP/9.9\r\n${HOST}\r\n${SMUGGLED}`],
    ['HTTP/0.9', `GET /healthz\r\n${SMUGGLED}`],
    ['a method that is none', `G@T /healthz HTTP/1.1\r\n${HOST}\r\n${SMUGGLED}`],
    ['a NUL in the target', `GET /health\0z HTTP/1.1\r\n${HOST}\r\n${SMUGGLED}`],
  ])('%s: what stands behind it is no second request', async (_, bytes) => {
    const answer = await Promise.race([
      raw(httpPort, bytes, { end: true }),
      sleep(5_000, 'HTTP/1.1 999 it still listens'),
    ]);
    const found = statuses(answer);
    expect(found.length).toBeLessThanOrEqual(1);
    expect(answer).not.toContain('"openapi"');
    for (const status of found) expect([400, 408, 411, 413, 415, 431, 505]).toContain(status);
  });

  it.each([
    ['two hosts', `GET /v1/agents HTTP/1.1\r\n${HOST}Host: evil.example\r\nConnection: close\r\n\r\n`],
    ['a host with a user', 'GET /v1/agents HTTP/1.1\r\nHost: localhost@evil.example\r\nConnection: close\r\n\r\n'],
    ['a host behind another', 'GET /v1/agents HTTP/1.1\r\nHost: evil.example, localhost\r\nConnection: close\r\n\r\n'],
    [
      'a host that only begins so',
      'GET /v1/agents HTTP/1.1\r\nHost: localhost.evil.example\r\nConnection: close\r\n\r\n',
    ],
    ['a host with a tab', 'GET /v1/agents HTTP/1.1\r\nHost: localhost\tevil.example\r\nConnection: close\r\n\r\n'],
  ])('%s is not let in', async (_, bytes) => {
    expect([400, 421]).toContain(statuses(await raw(httpPort, bytes))[0]);
  });

  it.each([
    [
      '20 000 headers',
      () => [`GET /healthz HTTP/1.1\r\n${HOST}`, ...Array.from({ length: 20_000 }, (_, n) => `x${n}: y\r\n`)],
    ],
    [
      'a header without end',
      () => [`GET /healthz HTTP/1.1\r\n${HOST}x: `, ...Array.from({ length: 2_000 }, () => 'y'.repeat(16_384))],
    ],
    ['a target without end', () => ['GET /', ...Array.from({ length: 2_000 }, () => 'y'.repeat(16_384))]],
    [
      'a chunk extension without end',
      () => [post('Transfer-Encoding: chunked\r\n', '1;'), ...Array.from({ length: 2_000 }, () => 'y'.repeat(16_384))],
    ],
    [
      'trailers without end',
      () => [
        post('Transfer-Encoding: chunked\r\n', '0\r\n'),
        ...Array.from({ length: 20_000 }, (_, n) => `x${n}: ${'y'.repeat(200)}\r\n`),
      ],
    ],
    [
      'a body without end',
      () => [
        post('Transfer-Encoding: chunked\r\n', ''),
        ...Array.from({ length: 3_000 }, () => `4000\r\n${'y'.repeat(16_384)}\r\n`),
      ],
    ],
    [
      'chunks of one byte',
      () => [
        post('Transfer-Encoding: chunked\r\n', ''),
        ...Array.from({ length: 3_000 }, () => '1\r\n \r\n'.repeat(1_000)),
      ],
    ],
    [
      '4 000 requests whose answers nobody reads',
      () => Array.from({ length: 4_000 }, () => `GET /openapi.json HTTP/1.1\r\n${HOST}\r\n`),
    ],
  ])('%s: it costs no memory', async (_, pieces) => {
    const bytes = pieces().map((piece) => Buffer.from(piece));
    const four = [1, 2, 3, 4].map(async () => {
      const peer = await keep(Peer.open(httpPort));
      peer.socket.pause();
      await peer.flood(bytes, 5_000);
    });
    await Promise.all(four);
    await alive();
    expect(memory() - idleMemory).toBeLessThan(MORE_MEMORY);
  });

  it('hundreds of slow ones: others are answered, and each is cut off', async () => {
    const sockets = Array.from({ length: 300 }, () => connectTcp(httpPort, '127.0.0.1').on('error', () => undefined));
    const started = performance.now();
    for (const socket of sockets) socket.write(`GET /healthz HTTP/1.1\r\n${HOST}`);
    const drip = setInterval(() => {
      for (const socket of sockets) if (!socket.destroyed) socket.write('x: y\r\n');
    }, 500);
    const closed = Promise.all(
      sockets.map((socket) => new Promise((resolve) => socket.resume().once('close', resolve))),
    );
    await sleep(1_000);
    await alive();
    await closed;
    clearInterval(drip);
    expect(performance.now() - started).toBeLessThan(25_000);
  });
});

// The last one, so that nobody waits for it: by now most of its time is over.
it('a connection that has not said a word since the beginning is gone', { timeout: 60_000 }, async () => {
  expect(await silent.ends(55_000)).not.toBe('open');
});
