import http2 from 'node:http2';
import { connect as connectSocket, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ListAgentsRequest } from '../../gen/ts/agentllm/v1/agent_service.js';
import { frame } from '../grpc/http2_client.js';
import { until } from '../support/until.js';
import { underAttack } from './attacked_service.js';
import { useLongAgents } from './support.js';

vi.setConfig({ testTimeout: 90_000 });

const UNREAD_MS = 3_000;
const MB = 1024 * 1024;
const LIST = frame(ListAgentsRequest.encode(ListAgentsRequest.fromPartial({ page_size: 1000 })).finish());
const HEADERS = { ':method': 'POST', te: 'trailers', 'content-type': 'application/grpc' };

interface Client {
  readonly session: http2.ClientHttp2Session;
  ended: boolean;
}

function openClient(port: number, options: http2.SecureClientSessionOptions = {}): Client {
  const session = http2.connect(`http://127.0.0.1:${port}`, options);
  const client = { session, ended: false };
  session.on('error', () => undefined);
  session.once('close', () => {
    client.ended = true;
  });
  onTestFinished(() => session.destroy());
  return client;
}

/** Requests lists without reading the responses. */
function requestLists({ session }: Client, count: number): http2.ClientHttp2Stream[] {
  return Array.from({ length: count }, () => {
    const stream = session.request({ ...HEADERS, ':path': '/agentllm.v1.AgentService/ListAgents' });
    stream.on('error', () => undefined);
    stream.end(LIST);
    return stream;
  });
}

/** A proxy that forwards all data of the client and reads from the service only `bytesPerSecond`. */
async function startBlockingProxy(port: number, bytesPerSecond: number): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const service = connectSocket({ host: '127.0.0.1', port });
    for (const socket of [client, service]) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.once('close', () => [client, service].forEach((one) => void one.destroy()));
    }
    client.pipe(service);
    service.pause();
    const drip = setInterval(() => {
      const chunk = service.read(Math.min(Math.max(1, bytesPerSecond / 10), service.readableLength));
      if (bytesPerSecond > 0 && chunk) client.write(chunk);
    }, 100);
    service.once('close', () => clearInterval(drip));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return (server.address() as { port: number }).port;
}

describe('60 lists on one HTTP/2 connection', () => {
  const service = useLongAgents({ unreadMs: UNREAD_MS });

  it.each([
    ['with the default windows', {}],
    ['with windows of no bytes', { settings: { initialWindowSize: 0 } }],
    ['with windows of 1 byte', { settings: { initialWindowSize: 1 } }],
  ])('take bounded memory and end when the client does not read them, %s', async (_, options) => {
    const client = openClient(service().grpcPort, options);
    const started = performance.now();
    let endedAfter = 0;
    const measured = await underAttack(service(), async () => {
      requestLists(client, 60);
      await until(() => client.ended);
      endedAfter = performance.now() - started;
    });
    expect(measured.errors).toEqual([]);
    expect(measured.longestMs).toBeLessThan(1_000);
    expect(measured.grewMb).toBeLessThan(150);
    expect(endedAfter).toBeGreaterThan(UNREAD_MS / 2);
  });

  it.each([
    ['reads nothing', 0],
    ['reads 1000 bytes a second', 1000],
  ])('take bounded memory and end when the network %s', async (_, bytesPerSecond) => {
    const proxy = await startBlockingProxy(service().grpcPort, bytesPerSecond);
    const client = openClient(proxy, { settings: { initialWindowSize: 2 ** 31 - 1 } });
    await new Promise((resolve) => client.session.once('connect', resolve));
    const measured = await underAttack(service(), async () => {
      client.session.setLocalWindowSize(2 ** 31 - 1);
      requestLists(client, 60);
      // Node.js sends at most ten pings without a response.
      const touch = setInterval(() => client.ended || client.session.ping(() => undefined), 1_000);
      await until(() => client.ended).finally(() => clearInterval(touch));
    });
    expect(measured.errors).toEqual([]);
    expect(measured.longestMs).toBeLessThan(1_000);
    expect(measured.grewMb).toBeLessThan(150);
  });

  it('cause RESPONSES_NOT_READ for further calls until the responses are read', async () => {
    const client = openClient(service().grpcPort);
    const streams = requestLists(client, 60);
    const statuses = await Promise.all(streams.slice(-20).map(statusOf));
    expect(new Set(statuses)).toEqual(new Set(['8']));
    const closed = streams.map((stream) => stream.closed || new Promise((resolve) => stream.once('close', resolve)));
    for (const stream of streams) stream.resume();
    await Promise.all(closed);
    await until(async () => {
      const [retry] = requestLists(client, 1) as [http2.ClientHttp2Stream];
      retry.resume();
      return (await statusOf(retry)) === '0';
    }, 'a call succeeds');
    expect(client.ended).toBe(false);
  });

  it('do not end a watch without unread data or its connection', async () => {
    const client = openClient(service().grpcPort);
    const path = '/agentllm.v1.AgentLLMConfigWatchService/WatchConfigs';
    const watch = client.session.request({ ...HEADERS, ':path': path });
    let closed = false;
    watch.once('close', () => {
      closed = true;
    });
    watch.resume();
    // all_agents = true
    watch.end(frame(Buffer.from([0x10, 0x01])));
    await sleep(UNREAD_MS * 2);
    expect([closed, client.ended]).toEqual([false, false]);
  });
});

describe('lists on many HTTP/2 connections', () => {
  const service = useLongAgents({ unreadMs: 60_000, unreadBytes: 24 * MB, unreadBytesPressed: MB });

  it('take bounded memory in total: the slowest connections end first and other callers are served', async () => {
    const clients = Array.from({ length: 40 }, () => openClient(service().grpcPort));
    const measured = await underAttack(service(), async () => {
      for (const client of clients) {
        requestLists(client, 16);
        await sleep(25);
      }
      await until(() => clients.filter(({ ended }) => ended).length >= 10);
      await sleep(1_500);
    });
    expect(measured.errors).toEqual([]);
    expect(measured.longestMs).toBeLessThan(1_000);
    expect(measured.grewMb).toBeLessThan(200);
    // A client that reads is still served.
    const reading = openClient(service().grpcPort);
    const [stream] = requestLists(reading, 1) as [http2.ClientHttp2Stream];
    stream.resume();
    expect(await statusOf(stream)).toBe('0');
  });
});

describe('a watch that is not read', () => {
  const service = useLongAgents({ unreadMs: UNREAD_MS, slowConsumerMs: 1_000 });

  it('ends with its connection when the client does not read the status either', async () => {
    const client = openClient(service().grpcPort);
    const path = '/agentllm.v1.AgentLLMConfigWatchService/WatchConfigs';
    const watch = client.session.request({ ...HEADERS, ':path': path });
    watch.on('error', () => undefined);
    watch.end(frame(Buffer.from([0x10, 0x01])));
    const started = performance.now();
    await until(() => client.ended);
    expect(performance.now() - started).toBeGreaterThan(UNREAD_MS);
  });
});

function statusOf(stream: http2.ClientHttp2Stream): Promise<unknown> {
  return new Promise((resolve) => {
    stream.on('response', (headers) => headers['grpc-status'] !== undefined && resolve(headers['grpc-status']));
    stream.on('trailers', (headers) => resolve(headers['grpc-status']));
    stream.once('close', () => resolve('closed'));
  });
}
