import { chmod, rm } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../log.js';
import { makeOwnDirectory } from '../store/embedded/data_directory.js';
import { listenInDirectory } from '../unix_socket.js';
import {
  ADMIN_SOCKET,
  type AdminRequest,
  type AdminResponse,
  adminDirectory,
  HEARTBEAT_MS,
  type Output,
  request as requestSchema,
} from './protocol.js';

const MAX_REQUEST_BYTES = 64 * 1024;
const REQUEST_TIMEOUT_MS = 5_000;
/** Maximum time for a client to read the response. */
const READ_TIMEOUT_MS = 5_000;
const MAX_CONNECTIONS = 64;

/** Runs a command and resolves to its exit code; must not throw because of user errors. */
export type RunCommand = (request: AdminRequest, output: Output) => Promise<number>;

export interface AdminServer {
  /** Rejects new commands and waits for those in progress. */
  close(graceMs: number): Promise<void>;
}

/** Listens in the data directory. This process holds its lock, so an existing socket belongs to a dead process. */
export async function startAdminServer(dataDir: string, run: RunCommand, log: Log): Promise<AdminServer> {
  const directory = adminDirectory(dataDir);
  const path = join(directory, ADMIN_SOCKET);
  await makeOwnDirectory(directory);
  await chmod(directory, 0o700);
  await rm(path, { force: true });
  const sockets = new Set<Socket>();
  const running = new Set<Promise<void>>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    void exchange(socket, (request, output) => {
      const exit = runLogged(run, request, output, log);
      const finished = exit.then(() => closed(socket));
      running.add(finished);
      void finished.finally(() => running.delete(finished));
      return exit;
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  await listenInDirectory(server, directory, ADMIN_SOCKET);
  await chmod(path, 0o600);
  return {
    async close(graceMs) {
      server.close();
      await rm(path, { force: true });
      await Promise.race([Promise.allSettled(running), delay(graceMs, undefined, { ref: false })]);
      for (const socket of sockets) socket.destroy();
    },
  };
}

async function runLogged(run: RunCommand, request: AdminRequest, output: Output, log: Log): Promise<number> {
  const { command } = request;
  try {
    const exit = await run(request, output);
    log.info({ command, exit }, 'ran a command');
    return exit;
  } catch (error) {
    log.error({ err: error, command }, 'a command failed');
    output.err('agentllm: the command failed in the service; the log of the service has the reason');
    return 1;
  }
}

async function exchange(socket: Socket, run: RunCommand): Promise<void> {
  socket.on('error', () => socket.destroy());
  const send = (response: AdminResponse) => {
    if (socket.writable) socket.write(`${JSON.stringify(response)}\n`);
  };
  const request = await readRequest(socket);
  // Further data is read and discarded, because the end of the connection is detected only while the socket is read.
  socket.resume();
  if (typeof request === 'string') {
    send({ err: `agentllm: ${request}` });
    send({ exit: 2 });
  } else {
    send({});
    const heartbeat = setInterval(() => socket.writableLength === 0 && send({}), HEARTBEAT_MS).unref();
    const exit = await run(request, { out: (out) => send({ out }), err: (err) => send({ err }) });
    clearInterval(heartbeat);
    send({ exit });
  }
  socket.end(() => socket.destroy());
  setTimeout(() => socket.destroy(), READ_TIMEOUT_MS).unref();
}

/** Returns the request, or a description of the problem. */
async function readRequest(socket: Socket): Promise<AdminRequest | string> {
  const line = await readLine(socket);
  if (line === undefined)
    return `a line of at most ${MAX_REQUEST_BYTES} bytes is expected within ${REQUEST_TIMEOUT_MS} ms`;
  try {
    const parsed = requestSchema.safeParse(JSON.parse(line));
    return parsed.success ? parsed.data : 'the line must be {"command": "…", "options": {…}}';
  } catch {
    return 'the line is not JSON';
  }
}

function readLine(socket: Socket): Promise<string | undefined> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const finish = (line: string | undefined) => {
      clearTimeout(timer);
      socket.off('data', read).off('end', cut).off('close', cut);
      resolve(line);
    };
    const read = (chunk: Buffer) => {
      chunks.push(chunk);
      length += chunk.length;
      const complete = chunk.includes('\n');
      if (!complete && length <= MAX_REQUEST_BYTES) return;
      const line = Buffer.concat(chunks);
      const end = line.indexOf('\n');
      finish(complete && end <= MAX_REQUEST_BYTES ? line.toString('utf8', 0, end) : undefined);
    };
    const cut = () => finish(undefined);
    const timer = setTimeout(cut, REQUEST_TIMEOUT_MS).unref();
    socket.on('data', read).on('end', cut).on('close', cut);
  });
}

function closed(socket: Socket): Promise<void> {
  if (socket.destroyed) return Promise.resolve();
  return new Promise((resolve) => socket.once('close', () => resolve()));
}
