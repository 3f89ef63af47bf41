import http2 from 'node:http2';
import { createConnection, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { frame, GET_AGENT, rawCall } from '../grpc/http2_client.js';
import { startTarget, type Target, underAttack } from '../hostile/attacked_service.js';
import { connect } from '../support/service.js';
import { until } from '../support/until.js';

vi.setConfig({ testTimeout: 60_000 });

/** The maximum growth of the process during the abuse. */
const MAX_GROWTH_MB = 200;
const MAX_WAIT_MS = 3_000;

let target: Target;
const sockets: Socket[] = [];

beforeAll(async () => {
  target = await startTarget();
  // A warm-up, so that the initial growth of the process is not measured.
  const { agents, close } = connect(target.grpcPort);
  for (let n = 0; n < 2_000; n++) await agents.getAgent({ agent: { name: 'trader' } });
  close();
});

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  // The process is still alive.
  expect((await rawCall(target.grpcPort, { body: frame(Buffer.alloc(0)) })).result).toMatch(/^grpc /);
});

afterAll(() => target?.stop());

async function open(): Promise<Socket> {
  const socket = createConnection({ host: '127.0.0.1', port: target.grpcPort });
  socket.on('error', () => undefined);
  socket.resume();
  sockets.push(socket);
  await new Promise<void>((resolve) => {
    socket.once('connect', resolve);
    socket.once('close', () => resolve());
  });
  return socket;
}

/** Runs an abuse while a regular caller sends requests; checks the waits of that caller, the errors and the memory. */
async function measureDuring(name: string, work: () => Promise<object>) {
  let result: object | undefined;
  const measured = await underAttack(target, async () => {
    result = await work();
  });
  console.log({ name, result, ...measured });
  expect(measured.errors).toEqual([]);
  expect(Math.max(measured.longestMs, measured.connectMs)).toBeLessThan(MAX_WAIT_MS);
  expect(measured.grewMb).toBeLessThan(MAX_GROWTH_MB);
}

/** An HTTP/2 frame in its wire format. */
function rawFrame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}
const HEADERS = 1;
const RST_STREAM = 3;
const SETTINGS = 4;
const PING = 6;
const PREFACE = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), rawFrame(SETTINGS, 0, 0)]);
const literal = (name: string, value: string) =>
  Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)]);
const CALL = Buffer.concat(
  [
    [':method', 'POST'],
    [':scheme', 'http'],
    [':path', GET_AGENT],
    [':authority', 'localhost'],
    ['te', 'trailers'],
    ['content-type', 'application/grpc'],
  ].map(([name = '', value = '']) => literal(name, value)),
);

/** Writes continuously to connections for the given time; each is replaced when the server closes it. */
async function flood(ms: number, connections: number, chunk: (round: number) => Buffer): Promise<object> {
  const end = performance.now() + ms;
  let [sent, closed] = [0, 0];
  const one = async () => {
    while (performance.now() < end) {
      const socket = await open();
      socket.write(PREFACE);
      for (let round = 0; !socket.destroyed && socket.writable && performance.now() < end; round++) {
        const bytes = chunk(round);
        sent += bytes.length;
        socket.write(bytes);
        do await sleep(1);
        while (socket.writableLength > 1e6 && !socket.destroyed && performance.now() < end);
      }
      if (socket.destroyed || !socket.writable) closed += 1;
      socket.destroy();
    }
  };
  await Promise.all(Array.from({ length: connections }, one));
  return { sentMb: Math.round(sent / 1e6), closedByServer: closed };
}

describe('the server', () => {
  it('accepts the frames that these tests write', async () => {
    const socket = await open();
    const received: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => received.push(chunk));
    socket.write(Buffer.concat([PREFACE, rawFrame(HEADERS, 0x5, 1, CALL)]));
    // The response to the call: a HEADERS frame for stream 1.
    const response = Buffer.from([HEADERS, 0x5, 0, 0, 0, 1]);
    await until(() => Buffer.concat(received).includes(response));
  });

  it('serves other callers with bounded memory during a flood of reset calls (RST_STREAM)', async () => {
    const chunk = (round: number) =>
      Buffer.concat(
        Array.from({ length: 100 }, (_, n) => {
          const stream = 2 * (round * 100 + n) + 1;
          return Buffer.concat([
            rawFrame(HEADERS, 0x4, stream, CALL),
            rawFrame(RST_STREAM, 0, stream, Buffer.from([0, 0, 0, 8])),
          ]);
        }),
      );
    await measureDuring('RST_STREAM flood', () => flood(5_000, 4, chunk));
  });

  it('serves other callers with bounded memory during a flood of pings', async () => {
    const pings = Buffer.concat(Array.from({ length: 1_000 }, () => rawFrame(PING, 0, 0, Buffer.alloc(8))));
    await measureDuring('ping flood', () => flood(4_000, 4, () => pings));
  });

  it('serves other callers with bounded memory during a flood of settings', async () => {
    const settings = Buffer.concat(Array.from({ length: 1_000 }, () => rawFrame(SETTINGS, 0, 0)));
    await measureDuring('settings flood', () => flood(3_000, 4, () => settings));
  });

  it('serves other callers with bounded memory when 2 000 connections send nothing', async () => {
    await measureDuring('2 000 connects', async () => {
      for (let n = 0; n < 20; n++) await Promise.all(Array.from({ length: 100 }, open));
      await sleep(1_000);
      return { open: sockets.filter((socket) => !socket.destroyed).length };
    });
  });

  it('serves other callers with bounded memory when 300 callers send single bytes (slow-loris)', async () => {
    const body = frame(Buffer.alloc(1_000));
    await measureDuring('slow-loris', async () => {
      const streams = await Promise.all(
        Array.from({ length: 30 }, async () => {
          const session = http2.connect(`http://127.0.0.1:${target.grpcPort}`);
          session.on('error', () => undefined);
          const headers = { ':method': 'POST', ':path': GET_AGENT, te: 'trailers', 'content-type': 'application/grpc' };
          const requests = Array.from({ length: 10 }, () => session.request(headers, { endStream: false }));
          for (const stream of requests) stream.on('error', () => undefined);
          return { session, requests };
        }),
      );
      for (let at = 0; at < 50; at++) {
        for (const { requests } of streams)
          for (const stream of requests) if (!stream.destroyed) stream.write(body.subarray(at, at + 1));
        await sleep(80);
      }
      for (const { session } of streams) session.destroy();
      return { streams: 300 };
    });
  });

  it('serves other callers with bounded memory when 500 connections send the preface and half a frame', async () => {
    await measureDuring('half frames', async () => {
      const all = await Promise.all(Array.from({ length: 500 }, open));
      for (const socket of all) socket.write(Buffer.concat([PREFACE, rawFrame(HEADERS, 0x4, 1, CALL).subarray(0, 20)]));
      await sleep(2_000);
      return { open: all.filter((socket) => !socket.destroyed).length };
    });
  });
});
