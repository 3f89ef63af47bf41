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
import { until } from '../support/until.js';
import { callHeaders, FLAG, h2, header, Peer, PREFACE, settings, TYPE, u32, wholeCall } from './http2_frames.js';

/*
 * Sends what no HTTP library sends to a service in a separate process, as much as one core can send in a few seconds.
 * After each test the process still runs, its memory is bounded, and it responds to the next call.
 * test/grpc/frames.test.ts has single calls with one invalid frame, test/hostile/http_requests.test.ts single HTTP
 * requests.
 */

const SEED = Number(process.env['FUZZ_SEED'] ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env['FUZZ_RUNS'] ?? 12);
/** The allowed growth over an idle service, in MiB, during a flood and before garbage collection. */
const MAX_GROWTH_MIB = 512;

let command: Awaited<ReturnType<typeof startCommand>>;
let directory: string;
let clients: Clients;
let port: number;
let httpPort: number;
let idleMemory: number;
const peers: Peer[] = [];
const register = async (peer: Promise<Peer>) => {
  peers.push(await peer);
  return peer;
};
/** A connection that is opened before the first test and never sends anything. */
let silent: Peer;

beforeAll(async () => {
  directory = await copyFirstStart(await mkdtemp(join(tmpdir(), 'agentllm-test-')));
  command = await startCommand({ DATA_DIR: directory, HTTP_ADDRESS: '127.0.0.1:0', LOG_LEVEL: 'warn' });
  port = command.port;
  httpPort = Number((await command.untilOutput(/HTTP {6}[^:\s]+:(\d+)/))[1]);
  clients = connect(port);
  await expectAlive();
  idleMemory = memory();
  silent = await Peer.open(port);
});

afterAll(async () => {
  clients?.close();
  for (const peer of peers) peer.close();
  command?.child.kill('SIGTERM');
  const { code } = (await command?.ended) ?? {};
  await rm(directory, { recursive: true, force: true });
  // The service shut down cleanly and logged no error.
  expect(code).toBe(0);
  expect(command.output()).not.toMatch(/"level":(50|60)|unhandled|uncaught|call failed inside/i);
});

afterEach(async () => {
  for (const peer of peers.splice(0)) peer.close();
  await expectAlive();
  expect(memory() - idleMemory).toBeLessThan(MAX_GROWTH_MIB);
});

/** The resident memory of the service in MiB; 0 on systems without /proc. */
function memory(): number {
  const status = `/proc/${command.child.pid}/status`;
  return existsSync(status) ? Number(/VmRSS:\s*(\d+)/.exec(readFileSync(status, 'utf8'))?.[1]) / 1024 : 0;
}

/** The process runs, and both ports respond. */
async function expectAlive(): Promise<void> {
  expect(command.child.exitCode).toBeNull();
  const { agent } = await clients.agents.getAgent({ agent: { name: 'trader' } }, { deadlineMs: 10_000 });
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
const streamId = (n: number) => 2 * n + 1;
function* repeat(count: number, piece: (n: number) => Buffer): Generator<Buffer> {
  for (let n = 0; n < count; n++) yield piece(n);
}

/** Node.js sends INTERNAL_ERROR for most errors that nghttp2 detects. */
const BROKEN = /^(GOAWAY|RST) (PROTOCOL|INTERNAL|FLOW_CONTROL)_ERROR/;
/** nghttp2 ignores the frame or the header. */
const IGNORED = /^open/;

describe('a connection with an invalid frame', () => {
  it.each([
    ['SETTINGS of 5 bytes', [h2(TYPE.SETTINGS, 0, 0, Buffer.alloc(5))], /FRAME_SIZE_ERROR/],
    ['SETTINGS on a stream', [h2(TYPE.SETTINGS, 0, 1)], BROKEN],
    ['a SETTINGS ACK with a payload', [h2(TYPE.SETTINGS, FLAG.ACK, 0, Buffer.alloc(6))], /FRAME_SIZE_ERROR/],
    ['a window of 2^32-1', [settings([4, 2 ** 32 - 1])], BROKEN],
    ['a maximum frame size of 1 byte', [settings([5, 1])], BROKEN],
    ['ENABLE_PUSH of 7', [settings([2, 7])], BROKEN],
    ['PING of 7 bytes', [h2(TYPE.PING, 0, 0, Buffer.alloc(7))], /FRAME_SIZE_ERROR/],
    ['PING on a stream', [h2(TYPE.PING, 0, 1, Buffer.alloc(8))], BROKEN],
    ['RST_STREAM of 3 bytes', [opened, h2(TYPE.RST_STREAM, 0, 1, Buffer.alloc(3))], /FRAME_SIZE_ERROR/],
    ['RST_STREAM on stream 0', [h2(TYPE.RST_STREAM, 0, 0, u32(8))], BROKEN],
    ['RST_STREAM on an idle stream', [h2(TYPE.RST_STREAM, 0, 99, u32(8))], BROKEN],
    ['WINDOW_UPDATE of 3 bytes', [h2(TYPE.WINDOW_UPDATE, 0, 0, Buffer.alloc(3))], /FRAME_SIZE_ERROR/],
    ['WINDOW_UPDATE by 0', [h2(TYPE.WINDOW_UPDATE, 0, 0, u32(0))], BROKEN],
    ['a window that overflows', [...repeat(2, () => h2(TYPE.WINDOW_UPDATE, 0, 0, u32(2 ** 31 - 1)))], BROKEN],
    ['PRIORITY of 4 bytes', [h2(TYPE.PRIORITY, 0, 1, Buffer.alloc(4))], /FRAME_SIZE_ERROR/],
    ['GOAWAY of 2 bytes', [h2(TYPE.GOAWAY, 0, 0, Buffer.alloc(2))], /FRAME_SIZE_ERROR/],
    ['GOAWAY on a stream', [h2(TYPE.GOAWAY, 0, 1, Buffer.alloc(8))], BROKEN],
    ['PUSH_PROMISE from a client', [h2(TYPE.PUSH_PROMISE, FLAG.END_HEADERS, 1, u32(2))], BROKEN],
    ['a frame of 16 MiB', [h2(TYPE.DATA, 0, 1, Buffer.alloc(100), 2 ** 24 - 1)], /FRAME_SIZE_ERROR/],
    ['DATA on stream 0', [h2(TYPE.DATA, 0, 0, Buffer.alloc(9))], BROKEN],
    ['DATA on an idle stream', [h2(TYPE.DATA, 0, 7, Buffer.alloc(9))], BROKEN],
    ['padding longer than the frame', [opened, h2(TYPE.DATA, FLAG.PADDED, 1, Buffer.from([200, 1, 2]))], BROKEN],
    ['HEADERS on stream 0', [headersOf(0, FLAG.END_HEADERS)], BROKEN],
    ['HEADERS on an even stream', [headersOf(2, FLAG.END_HEADERS)], BROKEN],
    [
      'HEADERS on a lower stream than before',
      [headersOf(9, FLAG.END_HEADERS), headersOf(3, FLAG.END_HEADERS)],
      IGNORED,
    ],
    ['CONTINUATION without HEADERS', [h2(TYPE.CONTINUATION, FLAG.END_HEADERS, 1)], BROKEN],
    ['PING within a header block', [headersOf(1, 0), h2(TYPE.PING, 0, 0, Buffer.alloc(8))], BROKEN],
    ['HEADERS within the header block of another stream', [headersOf(1, 0), headersOf(3, FLAG.END_HEADERS)], BROKEN],
    [
      'an unknown HPACK index',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from([0xff, 0x80, 0x01]))],
      /COMPRESSION_ERROR/,
    ],
    ['an endless HPACK integer', [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.alloc(20, 0xff))], /COMPRESSION_ERROR/],
    [
      'an HPACK table of 1 GB',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from('3fe1ffffff03', 'hex'))],
      /COMPRESSION_ERROR/,
    ],
    [
      'an HPACK name longer than the frame',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from('007f41', 'hex'))],
      /COMPRESSION_ERROR/,
    ],
    [
      'invalid Huffman codes',
      [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from('0084ffffffff0161', 'hex'))],
      /COMPRESSION_ERROR/,
    ],
    ['headers without a path', [h2(TYPE.HEADERS, FLAG.END_HEADERS, 1, Buffer.from([0x83, 0x86]))], BROKEN],
    ['a header name in upper case', [headersOf(1, FLAG.END_HEADERS, header('X-Big', 'x'))], BROKEN],
    ['a line feed in a header', [headersOf(1, FLAG.END_HEADERS, header('x', 'a\r\nb: c'))], IGNORED],
    ['a second path', [headersOf(1, FLAG.END_HEADERS, header(':path', '/healthz'))], BROKEN],
    ['a header of HTTP/1.1', [headersOf(1, FLAG.END_HEADERS, header('connection', 'close'))], BROKEN],
    ['an HTTP/1.1 request', undefined, /^(closed|GOAWAY)/],
  ] as const)('ends with an error or ignores the frame: %s', async (_, frames, expected) => {
    const peer = await register(
      frames
        ? Peer.openWithPreface(port, ...frames)
        : Peer.open(port, Buffer.from('GET / HTTP/1.1\r\nhost: localhost\r\n\r\n')),
    );
    expect(await peer.ending(expected === IGNORED ? 3_000 : undefined)).toMatch(expected);
  });

  it('does not affect the call of another connection', async () => {
    const validPeer = await register(Peer.openWithPreface(port, opened));
    for (let n = 0; n < 50; n++) await register(Peer.openWithPreface(port, h2(TYPE.PING, 0, 1, Buffer.alloc(8))));
    const message = Buffer.concat([Buffer.from([0]), u32(getTrader.length), getTrader]);
    validPeer.send(h2(TYPE.DATA, FLAG.END_STREAM, 1, message));
    await until(() => validPeer.received.includes('trader'));
  });
});

describe('the service', { timeout: 60_000 }, () => {
  const byte = fc.nat({ max: 255 });
  const stream = fc.constantFrom(0, 1, 1, 1, 3, 5, 2, 2 ** 31 - 1, 2 ** 31);
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 60 }),
    fc.constantFrom(callHeaders(GET_AGENT), callHeaders(WATCH), u32(8), u32(2 ** 31 - 1), Buffer.alloc(8)),
  );
  const lengthError = fc.oneof(
    { arbitrary: fc.constant(0), weight: 8 },
    fc.integer({ min: -3, max: 3 }),
    fc.constant(2 ** 20),
  );
  const frame = fc
    .tuple(fc.nat({ max: 12 }), fc.oneof(fc.constantFrom(0, 1, 4, 5), byte), stream, payload, lengthError)
    .map(([type, flags, id, bytes, error]) => h2(type, flags, id, bytes, Math.max(0, bytes.length + error)));

  it.each([
    ['after a valid preface', [PREFACE, settings()]],
    ['after an open call', [PREFACE, settings(), opened]],
    ['without SETTINGS', [PREFACE]],
    ['without a preface', []],
  ] as const)('keeps running when it receives random frames %s', async (_, opening) => {
    const property = fc.asyncProperty(fc.array(frame, { maxLength: 30 }), async (frames) => {
      const peer = await Peer.open(port, ...opening, ...frames);
      await Promise.race([peer.closed, sleep(15)]);
      peer.close();
      expect(command.child.exitCode).toBeNull();
    });
    await fc.assert(property, { numRuns: RUNS * 10, seed: SEED });
  });

  it('keeps running when it receives an ordinary call with flipped bits', async () => {
    const call = Buffer.concat([PREFACE, settings(), wholeCall(1, GET_AGENT, getTrader)]);
    const property = fc.asyncProperty(
      fc.array(fc.nat({ max: call.length * 8 - 1 }), { maxLength: 6 }),
      async (bits) => {
        const bytes = Buffer.from(call);
        for (const bit of bits) bytes.writeUInt8((bytes[bit >> 3] as number) ^ (1 << (bit & 7)), bit >> 3);
        const peer = await Peer.open(port, bytes);
        await Promise.race([peer.closed, sleep(15)]);
        peer.close();
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
      'of endless CONTINUATION',
      () => [headersOf(1, 0)],
      () => repeat(100_000, () => h2(TYPE.CONTINUATION, 0, 1, header('x', 'y'.repeat(900)))),
    ],
    ['of empty CONTINUATION', () => [headersOf(1, 0)], () => repeat(200_000, () => h2(TYPE.CONTINUATION, 0, 1))],
    [
      'of calls that are reset immediately',
      () => [],
      () =>
        repeat(50_000, (n) =>
          Buffer.concat([headersOf(streamId(n), FLAG.END_HEADERS), h2(TYPE.RST_STREAM, 0, streamId(n), u32(8))]),
        ),
    ],
    [
      'of complete calls that are reset immediately',
      () => [],
      () =>
        repeat(5_000, (n) =>
          Buffer.concat([wholeCall(streamId(n), LIST_AGENTS, listAll), h2(TYPE.RST_STREAM, 0, streamId(n), u32(8))]),
        ),
    ],
    [
      'of calls with invalid windows, which the server resets',
      () => [],
      () =>
        repeat(20_000, (n) =>
          Buffer.concat([headersOf(streamId(n), FLAG.END_HEADERS), h2(TYPE.WINDOW_UPDATE, 0, streamId(n), u32(0))]),
        ),
    ],
    ['of SETTINGS', () => [], () => repeat(100_000, () => settings([3, 100]))],
    [
      'of SETTINGS with thousands of pairs',
      () => [],
      () => repeat(500, () => settings(...Array.from({ length: 2_000 }, () => [4, 65_535] as const))),
    ],
    ['of changes of the HPACK table size', () => [], () => repeat(50_000, (n) => settings([1, n % 2 ? 0 : 65_536]))],
    ['of PING', () => [], () => repeat(200_000, () => ping)],
    [
      'of PRIORITY',
      () => [],
      () => repeat(100_000, (n) => h2(TYPE.PRIORITY, 0, streamId(n % 1_000_000), Buffer.alloc(5))),
    ],
    ['of empty DATA', () => [opened], () => repeat(100_000, () => h2(TYPE.DATA, 0, 1))],
    [
      'of DATA with only padding',
      () => [opened],
      () => repeat(10_000, () => h2(TYPE.DATA, FLAG.PADDED, 1, Buffer.alloc(256, 0xff))),
    ],
    [
      'of a message in DATA of one byte',
      () => [opened, h2(TYPE.DATA, 0, 1, Buffer.concat([Buffer.from([0]), u32(4_000_000)]))],
      () =>
        repeat(1_000, () => Buffer.concat(Array.from({ length: 1_000 }, () => h2(TYPE.DATA, 0, 1, Buffer.from([0]))))),
    ],
    ['of WINDOW_UPDATE', () => [opened], () => repeat(200_000, () => h2(TYPE.WINDOW_UPDATE, 0, 0, u32(1)))],
    ['of unknown frames', () => [], () => repeat(100_000, (n) => h2(0x20 + (n % 200), 0xff, n % 50, Buffer.alloc(40)))],
    [
      'of more open calls than a connection may have',
      () => [],
      () => repeat(20_000, (n) => headersOf(streamId(n), FLAG.END_HEADERS)),
    ],
  ] as const)('%s neither delays other callers nor takes unbounded memory', async (_, opening, pieces) => {
    const peer = await register(Peer.openWithPreface(port, ...opening()));
    // The responses are not read: they must not accumulate.
    peer.socket.pause();
    const flooding = peer.flood(pieces(), 4_000);
    await sleep(100);
    await expectAlive();
    expect(await flooding).toBeGreaterThan(0);
    expect(memory() - idleMemory).toBeLessThan(MAX_GROWTH_MIB);
  });

  it('of headers that decompress to a thousand times their size takes bounded memory and starts no call', async () => {
    const peer = await register(Peer.openWithPreface(port));
    const big = header('x-bomb', 'b'.repeat(3_900), { indexed: true });
    peer.send(headersOf(1, FLAG.END_HEADERS, big));
    const bomb = (n: number) =>
      h2(
        TYPE.HEADERS,
        FLAG.END_HEADERS,
        streamId(n + 1),
        Buffer.concat([callHeaders(GET_AGENT), Buffer.alloc(15_000, 0xbe)]),
      );
    await peer.flood(repeat(300, bomb), 4_000);
    await expectAlive();
    expect(memory() - idleMemory).toBeLessThan(MAX_GROWTH_MIB);
    // No call was started.
    expect(peer.receivedFrames()).not.toContain(String(TYPE.DATA));
  });

  it('of headers of a megabyte ends the connection', async () => {
    for (let n = 0; n < 20; n++) {
      const peer = await register(Peer.openWithPreface(port, headersOf(1, 0)));
      const last = h2(TYPE.CONTINUATION, FLAG.END_HEADERS, 1);
      await peer.flood([...repeat(70, () => h2(TYPE.CONTINUATION, 0, 1, header('x', 'y'.repeat(15_000)))), last]);
      expect(await peer.ending()).not.toBe('open');
    }
  });
});

describe('many stalled connections', { timeout: 90_000 }, () => {
  it.each([
    ['connections without data', 400, () => [Buffer.alloc(0)]],
    ['half of a preface', 400, () => [PREFACE.subarray(0, 11)]],
    ['half of a frame', 300, () => [PREFACE, settings(), opened.subarray(0, 30)]],
    ['calls without a message', 300, () => [PREFACE, settings(), opened]],
    [
      'half of a message',
      300,
      () => [PREFACE, settings(), opened, h2(TYPE.DATA, 0, 1, Buffer.from([0, 0, 0, 1, 0, 1]))],
    ],
    ['unfinished headers', 300, () => [PREFACE, settings(), headersOf(1, 0)]],
  ] as const)('take bounded memory and do not delay other callers: %s', async (_, count, bytes) => {
    for (let n = 0; n < count; n++) await register(Peer.open(port, ...bytes()));
    await expectAlive();
    expect(memory() - idleMemory).toBeLessThan(MAX_GROWTH_MIB);
  });

  it('with calls whose responses are not read do not delay other callers', async () => {
    // More calls than the server handles concurrently, with a window of 0 for their responses.
    for (let n = 0; n < 3; n++) {
      const peer = await register(Peer.open(port, PREFACE, settings([4, 0])));
      await peer.flood(repeat(900, (call) => wholeCall(streamId(call), LIST_AGENTS, listAll)));
    }
    await sleep(300);
    await expectAlive();
    expect(memory() - idleMemory).toBeLessThan(MAX_GROWTH_MIB);
  });

  it('with watches that are not read do not delay writes', async () => {
    for (let n = 0; n < 2; n++) {
      const peer = await register(Peer.open(port, PREFACE, settings([4, 0])));
      await peer.flood(repeat(400, (call) => wholeCall(streamId(call), WATCH, watchAll)));
    }
    for (let n = 0; n < 20; n++)
      await clients.agents.updateAgent({ agent: { id: 8, description: `written ${n}` } }, { deadlineMs: 10_000 });
    await expectAlive();
    expect(memory() - idleMemory).toBeLessThan(MAX_GROWTH_MIB);
  });

  it('do not prevent the call of a client that sends one byte at a time', async () => {
    const peer = await register(Peer.open(port));
    const call = Buffer.concat([PREFACE, settings(), wholeCall(1, GET_AGENT, getTrader)]);
    for (const byte of call) {
      peer.send(Buffer.from([byte]));
      await sleep(2);
    }
    await until(() => peer.received.includes('trader'));
  });
});

describe('an HTTP/1.1 request', { timeout: 60_000 }, () => {
  const HOST = 'Host: localhost\r\n';
  const SMUGGLED = `GET /openapi.json HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`;
  const JSON_TYPE = 'Content-Type: application/json\r\n';
  const post = (headers: string, body: string) =>
    `POST /v1/agents HTTP/1.1\r\n${HOST}${JSON_TYPE}${headers}\r\n${body}`;
  const statuses = (text: string) => [...text.matchAll(/HTTP\/1\.[01] (\d+)/g)].map(([, status]) => Number(status));

  it.each([
    ['an unknown transfer coding', post('Transfer-Encoding: xchunked\r\n', `0\r\n\r\n${SMUGGLED}`)],
    ['chunked before another coding', post('Transfer-Encoding: chunked, identity\r\n', `0\r\n\r\n${SMUGGLED}`)],
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
    ['chunked before a length', post(`Transfer-Encoding: chunked\r\nContent-Length: 4\r\n`, `0\r\n\r\n${SMUGGLED}`)],
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
    ['a chunk without its line end', post('Transfer-Encoding: chunked\r\n', `2\r\n{}0\r\n\r\n${SMUGGLED}`)],
    ['a chunk extension with a line feed', post('Transfer-Encoding: chunked\r\n', `0;x=\n\r\n\r\n${SMUGGLED}`)],
    ['a header without a name', post(': x\r\n', SMUGGLED)],
    ['a header with a space in its name', post('X Y: z\r\n', SMUGGLED)],
    ['a header line without a colon', post('nonsense\r\n', SMUGGLED)],
    ['HTTP/1.2', `GET /healthz HTTP/1.2\r\n${HOST}\r\n${SMUGGLED}`],
    ['HTTP/9.9', `GET /healthz HTTP/9.9\r\n${HOST}\r\n${SMUGGLED}`],
    ['HTTP/0.9', `GET /healthz\r\n${SMUGGLED}`],
    ['an invalid method', `G@T /healthz HTTP/1.1\r\n${HOST}\r\n${SMUGGLED}`],
    ['a NUL in the target', `GET /health\0z HTTP/1.1\r\n${HOST}\r\n${SMUGGLED}`],
  ])('is rejected without a second request in its body: %s', async (_, bytes) => {
    const response = await Promise.race([
      raw(httpPort, bytes, { end: true }),
      sleep(30_000, 'HTTP/1.1 999 no response'),
    ]);
    const found = statuses(response);
    expect(found.length).toBeLessThanOrEqual(1);
    expect(response).not.toContain('"openapi"');
    for (const status of found) expect([400, 408, 411, 413, 415, 431, 505]).toContain(status);
  });

  it.each([
    ['two hosts', `GET /v1/agents HTTP/1.1\r\n${HOST}Host: evil.example\r\nConnection: close\r\n\r\n`],
    ['a host with a user', 'GET /v1/agents HTTP/1.1\r\nHost: localhost@evil.example\r\nConnection: close\r\n\r\n'],
    [
      'a host after another host',
      'GET /v1/agents HTTP/1.1\r\nHost: evil.example, localhost\r\nConnection: close\r\n\r\n',
    ],
    [
      'a host with an allowed host as its prefix',
      'GET /v1/agents HTTP/1.1\r\nHost: localhost.evil.example\r\nConnection: close\r\n\r\n',
    ],
    ['a host with a tab', 'GET /v1/agents HTTP/1.1\r\nHost: localhost\tevil.example\r\nConnection: close\r\n\r\n'],
  ])('is rejected with 400 or 421 when it has %s', async (_, bytes) => {
    expect([400, 421]).toContain(statuses(await raw(httpPort, bytes))[0]);
  });

  it.each([
    [
      '20 000 headers',
      () => [`GET /healthz HTTP/1.1\r\n${HOST}`, ...Array.from({ length: 20_000 }, (_, n) => `x${n}: y\r\n`)],
    ],
    [
      'an endless header',
      () => [`GET /healthz HTTP/1.1\r\n${HOST}x: `, ...Array.from({ length: 2_000 }, () => 'y'.repeat(16_384))],
    ],
    ['an endless target', () => ['GET /', ...Array.from({ length: 2_000 }, () => 'y'.repeat(16_384))]],
    [
      'an endless chunk extension',
      () => [post('Transfer-Encoding: chunked\r\n', '1;'), ...Array.from({ length: 2_000 }, () => 'y'.repeat(16_384))],
    ],
    [
      'endless trailers',
      () => [
        post('Transfer-Encoding: chunked\r\n', '0\r\n'),
        ...Array.from({ length: 20_000 }, (_, n) => `x${n}: ${'y'.repeat(200)}\r\n`),
      ],
    ],
    [
      'an endless body',
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
      '4 000 requests whose responses are not read',
      () => Array.from({ length: 4_000 }, () => `GET /openapi.json HTTP/1.1\r\n${HOST}\r\n`),
    ],
  ])('takes bounded memory with %s', async (_, pieces) => {
    const bytes = pieces().map((piece) => Buffer.from(piece));
    const floods = [1, 2, 3, 4].map(async () => {
      const peer = await register(Peer.open(httpPort));
      peer.socket.pause();
      await peer.flood(bytes, 5_000);
    });
    await Promise.all(floods);
    await expectAlive();
    expect(memory() - idleMemory).toBeLessThan(MAX_GROWTH_MIB);
  });

  it('that arrives slowly is closed within 25 s and does not delay other callers, for 300 connections', async () => {
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
    await expectAlive();
    await closed;
    clearInterval(drip);
    expect(performance.now() - started).toBeLessThan(25_000);
  });
});

// The last test, so that most of the wait is over when it starts.
it('the service closes a connection that has never sent anything', { timeout: 60_000 }, async () => {
  expect(await silent.ending(55_000)).not.toBe('open');
});
