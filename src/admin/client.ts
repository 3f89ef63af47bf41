import { createConnection, type Socket } from 'node:net';
import { resolve as absolute } from 'node:path';
import { createInterface } from 'node:readline';
import { StartError } from '../errors.js';
import { errorCode } from '../store/embedded/data_directory.js';
import { findHolder } from '../store/embedded/directory_lock.js';
import { withShortPath } from '../store/embedded/socket_path.js';
import { ADMIN_SOCKET, type AdminRequest, adminDirectory, answer, type Say } from './protocol.js';

/** A service that runs a command says so every second, so this is one that does nothing. */
const SILENT_AFTER_MS = 10_000;

/** Has the service that owns the directory run a command; undefined when no service listens there. */
export async function askService(dataDir: string, request: AdminRequest, say: Say): Promise<number | undefined> {
  const socket = await dial(dataDir);
  return socket && (await converse(socket, dataDir, request, say));
}

/** Why a command could not be run, although somebody has the directory. */
export async function noAnswer(dataDir: string): Promise<StartError> {
  const holder = await findHolder(dataDir);
  const who = holder ? `process ${holder.pid}, which owns` : 'the process that owns';
  return new StartError(
    `No answer from ${who} the data directory ${absolute(dataDir)}: it is stopped or stuck, or still starting, ` +
      'or an older version without an admin socket. Try again, or stop that process first.',
  );
}

async function dial(dataDir: string): Promise<Socket | undefined> {
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
    if (code === 'EAGAIN' || code === 'ECONNRESET') throw await noAnswer(dataDir);
    throw new StartError(`The service's admin socket in ${directory} cannot be used (${code}): is it another user's?`, {
      cause: error,
    });
  }
}

function converse(socket: Socket, dataDir: string, request: AdminRequest, say: Say): Promise<number> {
  return new Promise((resolve, reject) => {
    const finish = (settle: () => void) => {
      clearTimeout(timer);
      socket.destroy();
      settle();
    };
    const timer = setTimeout(
      () => void noAnswer(dataDir).then((error) => finish(() => reject(error))),
      SILENT_AFTER_MS,
    );
    const ended = () =>
      finish(() =>
        reject(new StartError('The service ended before the command did. Look whether it is done, and run it again.')),
      );
    socket.on('error', ended);
    createInterface({ input: socket })
      .on('line', (line) => {
        timer.refresh();
        const { out, err, exit } = readAnswer(line);
        if (out !== undefined) say.out(out);
        if (err !== undefined) say.err(err);
        if (exit !== undefined) finish(() => resolve(exit));
      })
      .on('close', ended);
    socket.write(`${JSON.stringify(request)}\n`);
  });
}

function readAnswer(line: string) {
  try {
    return answer.parse(JSON.parse(line));
  } catch {
    return { err: 'agentllm: the service answered something that is no answer', exit: 1 };
  }
}
