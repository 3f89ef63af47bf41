import { chmod, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../log.js';
import { makeOwnDirectory } from '../store/embedded/data_directory.js';
import { withShortPath } from '../store/embedded/socket_path.js';
import {
  ADMIN_SOCKET,
  type AdminAnswer,
  type AdminRequest,
  adminDirectory,
  BEAT_MS,
  request as requestSchema,
  type Say,
} from './protocol.js';

const LONGEST_REQUEST = 64 * 1024;
const REQUEST_WITHIN_MS = 5_000;
/** How long an asker may take to read the answer. */
const READ_WITHIN_MS = 5_000;
const MOST_CONNECTIONS = 64;

/** Runs a command to its end and returns its exit code; must not throw for what a person has done wrong. */
export type RunCommand = (request: AdminRequest, say: Say) => Promise<number>;

export interface AdminServer {
  /** Takes no more commands, and waits for those that run. */
  close(graceMs: number): Promise<void>;
}

/** Listens in the data directory, whose lock this process holds: a socket that is there was left by a dead process. */
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
    void converse(socket, (request, say) => {
      const exit = runLogged(run, request, say, log);
      const answered = exit.then(() => closed(socket));
      running.add(answered);
      void answered.finally(() => running.delete(answered));
      return exit;
    });
  });
  server.maxConnections = MOST_CONNECTIONS;
  await withShortPath(directory, ADMIN_SOCKET, (short) => listen(server, short));
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

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      // Accepting may fail later (too many open files); whoever asks then gets no answer, and says so.
      server.on('error', () => undefined);
      server.unref();
      resolve();
    });
  });
}

async function runLogged(run: RunCommand, request: AdminRequest, say: Say, log: Log): Promise<number> {
  const { command } = request;
  try {
    const exit = await run(request, say);
    log.info({ command, exit }, 'ran a command');
    return exit;
  } catch (error) {
    log.error({ err: error, command }, 'a command failed');
    say.err('agentllm: the command failed in the service; its log has the reason');
    return 1;
  }
}

async function converse(socket: Socket, run: RunCommand): Promise<void> {
  socket.on('error', () => socket.destroy());
  const tell = (answer: AdminAnswer) => {
    if (socket.writable) socket.write(`${JSON.stringify(answer)}\n`);
  };
  const request = await readRequest(socket);
  // Whatever else comes is thrown away, or a client that is not read from would never be seen to go.
  socket.resume();
  if (typeof request === 'string') {
    tell({ err: `agentllm: ${request}` });
    tell({ exit: 2 });
  } else {
    tell({});
    const beat = setInterval(() => socket.writableLength === 0 && tell({}), BEAT_MS).unref();
    const exit = await run(request, { out: (out) => tell({ out }), err: (err) => tell({ err }) });
    clearInterval(beat);
    tell({ exit });
  }
  socket.end(() => socket.destroy());
  setTimeout(() => socket.destroy(), READ_WITHIN_MS).unref();
}

/** The request, or what is wrong with it. */
async function readRequest(socket: Socket): Promise<AdminRequest | string> {
  const line = await readLine(socket);
  if (line === undefined)
    return `one line of at most ${LONGEST_REQUEST} bytes is expected within ${REQUEST_WITHIN_MS} ms`;
  try {
    const parsed = requestSchema.safeParse(JSON.parse(line));
    return parsed.success ? parsed.data : 'the line must be {"command": "…", "options": {…}}';
  } catch {
    return 'the line is no JSON';
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
      if (!complete && length <= LONGEST_REQUEST) return;
      const line = Buffer.concat(chunks);
      const end = line.indexOf('\n');
      finish(complete && end <= LONGEST_REQUEST ? line.toString('utf8', 0, end) : undefined);
    };
    const cut = () => finish(undefined);
    const timer = setTimeout(cut, REQUEST_WITHIN_MS).unref();
    socket.on('data', read).on('end', cut).on('close', cut);
  });
}

function closed(socket: Socket): Promise<void> {
  if (socket.destroyed) return Promise.resolve();
  return new Promise((resolve) => socket.once('close', () => resolve()));
}
