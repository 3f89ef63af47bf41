import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import { until } from '../support/until.js';
import { underAttack } from './attacked_service.js';
import { openSocket, useLongAgents } from './support.js';

vi.setConfig({ testTimeout: 90_000 });

const UNREAD_MS = 3_000;
const service = useLongAgents({ unreadMs: UNREAD_MS });

const get = (path: string) => `GET ${path} HTTP/1.1\r\nhost: localhost\r\n\r\n`;
const LIST = get('/v1/agents?pageSize=1000');

/** Writes an empty line, which HTTP allows: an unread socket detects that its peer has closed only by a write. */
function touch(socket: Socket): void {
  if (socket.writable) socket.write('\r\n');
}

it('the service responds to other callers when a client pipelines 300 lists and reads none', async () => {
  const socket = await openSocket(service().httpPort);
  socket.pause();
  const measured = await underAttack(service(), async () => {
    socket.write(LIST.repeat(300));
    await sleep(2_000);
  });
  expect(measured.errors).toEqual([]);
  expect(measured.longestMs).toBeLessThan(1_000);
  expect(measured.grewMb).toBeLessThan(200);
  // 300 exceed the limit of waiting requests, so the connection is closed immediately.
  touch(socket);
  await until(() => socket.destroyed);
});

it('the service prepares one pipelined response at a time and closes a connection that does not read it', async () => {
  const sockets = await Promise.all(Array.from({ length: 5 }, () => openSocket(service().httpPort)));
  const endedAt: number[] = [];
  for (const socket of sockets) {
    socket.pause();
    socket.once('close', () => endedAt.push(performance.now()));
  }
  const started = performance.now();
  const measured = await underAttack(service(), async () => {
    for (const socket of sockets) socket.write(LIST.repeat(60));
    const toucher = setInterval(() => sockets.forEach(touch), 200);
    await until(() => endedAt.length === sockets.length).finally(() => clearInterval(toucher));
  });
  expect(measured.errors).toEqual([]);
  expect(measured.longestMs).toBeLessThan(1_000);
  expect(measured.grewMb).toBeLessThan(200);
  expect(Math.min(...endedAt) - started).toBeGreaterThan(UNREAD_MS / 2);
});

it('the service closes the connection of a client that reads one byte at a time', async () => {
  const socket = await openSocket(service().httpPort);
  socket.pause();
  let ended = false;
  socket.once('close', () => {
    ended = true;
  });
  const drip = setInterval(() => void socket.read(1), 100);
  socket.write(LIST.repeat(20));
  const toucher = setInterval(() => touch(socket), 200);
  const started = performance.now();
  await until(() => ended).finally(() => {
    clearInterval(drip);
    clearInterval(toucher);
  });
  expect(performance.now() - started).toBeGreaterThan(UNREAD_MS / 2);
});

it('the service responds to all pipelined requests in order when the client reads them', async () => {
  const socket = await openSocket(service().httpPort);
  const paths = Array.from({ length: 60 }, (_, n) =>
    n % 3 === 0 ? '/v1/agents?pageSize=1000' : `/v1/agents/by-name/long_${n}`,
  );
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk;
  });
  const measured = await underAttack(service(), async () => {
    socket.write(`${paths.map(get).join('')}GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n`);
    await until(() => socket.readableEnded);
  });
  expect(measured.errors).toEqual([]);
  expect(measured.longestMs).toBeLessThan(1_000);
  const responses = text.split('HTTP/1.1 200 OK\r\n').slice(1);
  expect(responses.length).toBe(paths.length + 1);
  for (const [n, path] of paths.entries())
    expect(responses[n]).toContain(path.includes('by-name') ? `"name":"long_${n}"` : '"nextPageToken":"W');
});
