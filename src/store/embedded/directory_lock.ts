/**
 * One owner per data directory.
 *
 * PGlite has no lock of its own: two processes on one directory lost 1 078 acknowledged rows without an error. A file
 * with a PID proves nothing across containers and after a PID is reused, and a file with a time robs a holder that is
 * merely slow. So the proof of life is a listening UNIX-domain socket, which the kernel takes away when its process
 * dies, however it dies, and keeps while the process is only stopped.
 *
 * A process *claims* (makes a socket visible under `.lock/claim-*`), then *lists* the other claims, and holds the lock
 * if none of them is alive. Why two processes can never both hold it: each claims before it lists. Had both won, A's
 * list missed B's claim, so B claimed after A listed; A had claimed by then, so B's list, which is later still, showed
 * A's claim, and A, being alive, answered. A claim that is visible is always already listening, because the socket
 * listens under another name first and is then renamed; so a refused connection means a dead process, not one that is
 * about to listen. And names are never used twice, so unlinking a dead claim can not hit a live one.
 *
 * Any doubt counts as alive. It does not protect a directory that two machines share over a network.
 */
import { randomUUID } from 'node:crypto';
import { chmod, readdir, rename, stat, unlink } from 'node:fs/promises';
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { resolve as absolute, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errorCode, explainDirectoryFailure, makeOwnDirectory } from './data_directory.js';
import { withShortPath } from './socket_path.js';

/** How long a live claim may take to say what it is before it counts as the holder. */
const ANSWER_WITHIN_MS = 500;
/** Candidates that keep meeting each other give up after this; with eight at once it takes well under a second. */
const CONTEND_FOR_MS = 10_000;
/** A socket that was never renamed this long after it was made belongs to a process that died in between. */
const ABANDONED_AFTER_MS = 60_000;

const CLAIM = /^claim-(\d+)-.*\.sock$/;
const UNCLAIMED = /^new-.*\.sock$/;

export interface DirectoryLock {
  readonly directory: string;
  /** Gives the directory up. Close the database first. */
  release(): Promise<void>;
}

/** Another process, or another part of this one, owns the data directory. */
export class DirectoryInUseError extends Error {
  override readonly name = 'DirectoryInUseError';
  constructor(
    readonly directory: string,
    readonly holderPid: number,
    detail: string,
  ) {
    super(
      `The data directory ${directory} is in use by process ${holderPid} (${detail}): ` +
        'stop that process, or set DATA_DIR to another directory.',
    );
  }
}

type Role = 'candidate' | 'holder';

interface Introduction {
  role: Role;
  pid: number;
  since: string;
}

/** Becomes the owner of `dataDir`, or fails with DirectoryInUseError. Creates the directory if it is missing. */
export async function acquireDirectoryLock(dataDir: string): Promise<DirectoryLock> {
  const directory = absolute(dataDir);
  const lockDirectory = join(directory, '.lock');
  await makeOwnDirectory(directory);
  await makeOwnDirectory(lockDirectory, directory);
  try {
    return await contend(directory, lockDirectory);
  } catch (error) {
    if (error instanceof DirectoryInUseError) throw error;
    throw explainDirectoryFailure(directory, withSocketAdvice(error));
  }
}

/** Who owns the directory now, asked without wanting it. */
export async function findHolder(dataDir: string): Promise<{ readonly pid: number } | undefined> {
  const lockDirectory = join(absolute(dataDir), '.lock');
  return findLiveRival(lockDirectory, '').catch(() => undefined);
}

async function contend(directory: string, lockDirectory: string): Promise<DirectoryLock> {
  const giveUpAt = performance.now() + CONTEND_FOR_MS;
  for (;;) {
    const claim = await makeClaim(lockDirectory);
    let rival: Rival | undefined;
    try {
      rival = await findLiveRival(lockDirectory, claim.name);
    } catch (error) {
      await claim.withdraw();
      throw error;
    }
    if (rival === undefined) {
      claim.become('holder');
      await sweepUnclaimed(lockDirectory);
      return { directory, release: () => claim.withdraw() };
    }
    await claim.withdraw();
    if (rival.role === 'holder') throw new DirectoryInUseError(directory, rival.pid, rival.detail);
    if (performance.now() > giveUpAt) throw new DirectoryInUseError(directory, rival.pid, 'which is also starting');
    await delay(20 + Math.random() * 80);
  }
}

interface Claim {
  readonly name: string;
  become(role: Role): void;
  withdraw(): Promise<void>;
}

async function makeClaim(lockDirectory: string): Promise<Claim> {
  const identity = `${process.pid}-${randomUUID()}.sock`;
  const name = `claim-${identity}`;
  const introduction: Introduction = { role: 'candidate', pid: process.pid, since: new Date().toISOString() };
  const server = createServer((socket) => introduce(socket, introduction));
  const unclaimed = join(lockDirectory, `new-${identity}`);
  await withShortPath(lockDirectory, `new-${identity}`, (path) => listen(server, path));
  try {
    await chmod(unclaimed, 0o600);
    await rename(unclaimed, join(lockDirectory, name));
  } catch (error) {
    server.close();
    throw error;
  }
  let withdrawn: Promise<void> | undefined;
  return {
    name,
    become: (role) => {
      introduction.role = role;
    },
    withdraw: () => {
      // close() takes the listening socket away at once; its callback would wait for askers that may be stopped.
      withdrawn ??= removeIfPresent(join(lockDirectory, name)).finally(() => server.close());
      return withdrawn;
    },
  };
}

function introduce(socket: Socket, introduction: Introduction): void {
  socket.unref();
  socket.on('error', () => socket.destroy());
  socket.resume();
  socket.end(`${JSON.stringify(introduction)}\n`, () => socket.destroy());
}

interface Rival {
  role: Role;
  pid: number;
  detail: string;
}

/** The holder if one is alive, else a live candidate, else nothing. Removes the claims of the dead on its way. */
async function findLiveRival(lockDirectory: string, ownName: string): Promise<Rival | undefined> {
  const names = (await readdir(lockDirectory)).filter((name) => CLAIM.test(name) && name !== ownName);
  const rivals = await Promise.all(names.map((name) => probe(lockDirectory, name)));
  const alive = rivals.filter((rival) => rival !== undefined);
  return alive.find((rival) => rival.role === 'holder') ?? alive[0];
}

async function probe(lockDirectory: string, name: string): Promise<Rival | undefined> {
  const reply = await askUntilClear(lockDirectory, name);
  if (reply === 'dead') {
    await removeIfPresent(join(lockDirectory, name));
    return undefined;
  }
  if (typeof reply === 'object') return { role: reply.role, pid: reply.pid, detail: `since ${reply.since}` };
  return { role: 'holder', pid: Number(CLAIM.exec(name)?.[1]), detail: 'which is alive but does not answer' };
}

/** `cut off`: it was there and hung up without a word, as a candidate does that withdraws with us in its backlog. */
type Reply = Introduction | 'dead' | 'silent' | 'cut off';

/** A claim that cut us off is asked again: by then it is gone, or it answers. */
async function askUntilClear(lockDirectory: string, name: string): Promise<Reply> {
  let reply: Reply = 'cut off';
  for (let attempt = 0; attempt < 5 && reply === 'cut off'; attempt++) {
    if (attempt > 0) await delay(10);
    reply = await withShortPath(lockDirectory, name, ask);
  }
  return reply;
}

function ask(path: string): Promise<Reply> {
  return new Promise((resolve) => {
    const socket = dial(path);
    const finish = (reply: Reply): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(reply);
    };
    const timer = setTimeout(() => finish('silent'), ANSWER_WITHIN_MS);
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (text.includes('\n') || text.length > 1_000) finish(readIntroduction(text));
    });
    socket.on('end', () => finish(text === '' ? 'cut off' : readIntroduction(text)));
    socket.on('error', (error) => finish(readRefusal(errorCode(error))));
  });
}

/** A full backlog (EAGAIN), missing rights and whatever else there may be are doubts, and a doubt is a holder. */
function readRefusal(code: string | undefined): Reply {
  if (code === 'ECONNREFUSED' || code === 'ENOENT') return 'dead';
  return code === 'ECONNRESET' || code === 'EPIPE' ? 'cut off' : 'silent';
}

function readIntroduction(text: string): Introduction | 'silent' {
  try {
    const { role, pid, since } = JSON.parse(text) as Partial<Introduction>;
    if ((role !== 'candidate' && role !== 'holder') || typeof pid !== 'number') return 'silent';
    return { role, pid, since: String(since) };
  } catch {
    return 'silent';
  }
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => {
      server.off('error', reject);
      // Accepting may fail later (too many open files); the claim stays alive, and the asker sees a silent holder.
      server.on('error', () => undefined);
      server.unref();
      resolve();
    });
  });
}

async function removeIfPresent(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
}

/** Only the holder sweeps, and only what is old: a young one may be about to be renamed by a live process. */
async function sweepUnclaimed(lockDirectory: string): Promise<void> {
  const names = await readdir(lockDirectory).catch(() => []);
  for (const name of names.filter((entry) => UNCLAIMED.test(entry))) {
    const path = join(lockDirectory, name);
    const made = await stat(path).catch(() => undefined);
    if (made && Date.now() - made.mtimeMs > ABANDONED_AFTER_MS) await removeIfPresent(path).catch(() => undefined);
  }
}

function withSocketAdvice(error: unknown): unknown {
  const code = errorCode(error);
  if (code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'EINVAL') return error;
  return new Error(`its file system has no UNIX-domain sockets, which the lock needs: set DATA_DIR to a local disk`, {
    cause: error,
  });
}
