import { createConnection, type Socket } from 'node:net';
import { resolve as absolute } from 'node:path';
import { createInterface } from 'node:readline';
import { errorCode } from '../error_properties.js';
import { StartError } from '../errors.js';
import { findHolder } from '../store/embedded/directory_lock.js';
import { withShortPath } from '../unix_socket.js';
import { ADMIN_SOCKET, type AdminRequest, adminDirectory, type Output, response } from './protocol.js';

/** Maximum time without a message. A service that runs a command sends a message every second. */
const SILENCE_MS = 10_000;

/** Runs a command in the service that owns the data directory; undefined if no service listens there. */
export async function runInService(
  dataDir: string,
  request: AdminRequest,
  output: Output,
): Promise<number | undefined> {
  const socket = await open(dataDir);
  return socket && (await exchange(socket, dataDir, request, output));
}

/** The error of a command that cannot run because the process that owns the directory does not respond. */
export async function noResponse(dataDir: string): Promise<StartError> {
  const holder = await findHolder(dataDir);
  const owner = holder ? `process ${holder.pid}, which owns` : 'the process that owns';
  return new StartError(
    `No response from ${owner} the data directory ${absolute(dataDir)}: it is suspended, blocked or still starting, ` +
      'or an older version without an admin socket. Try again, or stop that process first.',
  );
}

async function open(dataDir: string): Promise<Socket | undefined> {
  const directory = adminDirectory(dataDir);
  const connect = (path: string) =>
    new Promise<Socket>((resolve, reject) => {
      const socket = createConnection({ path });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(socket);
      });
    });
  try {
    return await withShortPath(directory, ADMIN_SOCKET, connect);
  } catch (error) {
    const code = errorCode(error);
    if (code === 'ENOENT' || code === 'ECONNREFUSED' || code === 'ENOTDIR') return undefined;
    if (code === 'EAGAIN' || code === 'ECONNRESET') throw await noResponse(dataDir);
    throw new StartError(
      `The service's admin socket in ${directory} cannot be used (${code}); it may belong to another user`,
      {
        cause: error,
      },
    );
  }
}

function exchange(socket: Socket, dataDir: string, request: AdminRequest, output: Output): Promise<number> {
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      socket.destroy();
      settle();
    };
    const timer = setTimeout(() => void noResponse(dataDir).then((error) => finish(() => reject(error))), SILENCE_MS);
    const onEnd = () =>
      finish(() =>
        reject(
          new StartError(
            'The service ended the connection before the command completed. Check its effect, then run it again.',
          ),
        ),
      );
    socket.on('error', onEnd);
    createInterface({ input: socket })
      .on('line', (line) => {
        timer.refresh();
        const { out, err, exit } = readMessage(line);
        if (out !== undefined) output.out(out);
        if (err !== undefined) output.err(err);
        if (exit !== undefined) finish(() => resolve(exit));
      })
      .on('close', onEnd);
    socket.write(`${JSON.stringify(request)}\n`);
  });
}

function readMessage(line: string) {
  try {
    return response.parse(JSON.parse(line));
  } catch {
    return { err: 'agentllm: the service sent an invalid response', exit: 1 };
  }
}
