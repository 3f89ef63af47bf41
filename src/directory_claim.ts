/**
 * Claims on a directory, which ensure that its files have a single owner.
 *
 * A file with a PID is not reliable across containers and after a PID is reused. With a timestamp in a file, a process
 * that is only slow loses the lock. Therefore a listening UNIX-domain socket shows that the owner is alive: the kernel
 * closes it when the process ends for any reason, and keeps it while the process is stopped.
 *
 * A process *claims* (makes a socket visible as `claim-*`), then *lists* the other claims, and holds the directory if
 * none of them is alive. Two processes can never both hold it, because each claims before it lists. Assume that both
 * hold it. A's list did not contain B's claim, so B claimed after A listed, and therefore after A claimed. B listed
 * even later, so B's list contained A's claim, and A responded because it is alive. So B does not hold the lock: a
 * contradiction. A socket first listens under another name and is then renamed to a visible claim. So every visible
 * claim listens, and a refused connection means that its process is dead. Names are never reused, so unlinking a dead
 * claim cannot remove a live one.
 *
 * A claim whose state cannot be determined counts as alive. Claims do not protect a directory that two machines share
 * over a network.
 */
import { randomUUID } from 'node:crypto';
import { chmod, readdir, rename, stat, unlink } from 'node:fs/promises';
import { createServer, connect as dial, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { errorCode } from './error_properties.js';
import { listenInDirectory, withShortPath } from './unix_socket.js';

/** A live claim that does not respond within this time counts as the holder. */
const RESPONSE_TIMEOUT_MS = 500;
/** A socket that was not renamed within this time belongs to a process that died before the rename. */
const ABANDONED_AFTER_MS = 60_000;

const CLAIM = /^claim-(\d+)-.*\.sock$/;
const UNCLAIMED = /^new-.*\.sock$/;

type Role = 'candidate' | 'holder';

interface OwnerInfo {
  role: Role;
  pid: number;
  since: string;
}

/** A live claim of another owner. */
export interface Rival {
  readonly role: Role;
  readonly pid: number;
  /** Describes the claim, for a message. */
  readonly detail: string;
}

/** A directory that this process holds until it releases it, or ends. */
export interface HeldClaim {
  release(): Promise<void>;
}

/**
 * Claims a directory, once. Returns the rival if another claim is alive; two candidates can both get each other.
 *
 * @param lockDirectory contains the sockets of the claims; it must exist.
 */
export async function claimDirectory(lockDirectory: string): Promise<HeldClaim | { readonly rival: Rival }> {
  const claim = await makeClaim(lockDirectory);
  try {
    const rival = await findLiveRival(lockDirectory, claim.name);
    if (rival === undefined) {
      claim.become('holder');
      await removeAbandoned(lockDirectory);
      return { release: () => claim.withdraw() };
    }
    await claim.withdraw();
    return { rival };
  } catch (error) {
    await claim.withdraw();
    throw error;
  }
}

/** Whether a process has claimed the directory, alive or not, and has not withdrawn the claim. */
export async function hasClaim(lockDirectory: string): Promise<boolean> {
  const names = await readdir(lockDirectory).catch(() => []);
  return names.some((name) => CLAIM.test(name));
}

interface Claim {
  readonly name: string;
  become(role: Role): void;
  withdraw(): Promise<void>;
}

async function makeClaim(lockDirectory: string): Promise<Claim> {
  const identity = `${process.pid}-${randomUUID()}.sock`;
  const name = `claim-${identity}`;
  const info: OwnerInfo = { role: 'candidate', pid: process.pid, since: new Date().toISOString() };
  const server = createServer((socket) => sendInfo(socket, info));
  const unclaimed = join(lockDirectory, `new-${identity}`);
  await listenInDirectory(server, lockDirectory, `new-${identity}`);
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
      info.role = role;
    },
    withdraw: () => {
      // close() stops listening immediately. Its callback would also wait for open connections of processes that may be
      // stopped.
      withdrawn ??= removeIfPresent(join(lockDirectory, name)).finally(() => server.close());
      return withdrawn;
    },
  };
}

function sendInfo(socket: Socket, info: OwnerInfo): void {
  socket.unref();
  socket.on('error', () => socket.destroy());
  socket.resume();
  socket.end(`${JSON.stringify(info)}\n`, () => socket.destroy());
}

/**
 * The holder if one is alive, else a live candidate, else undefined. Removes claims of dead processes.
 *
 * @param ownName the claim of the caller, which is not its rival.
 */
export async function findLiveRival(lockDirectory: string, ownName = ''): Promise<Rival | undefined> {
  const names = (await readdir(lockDirectory)).filter((name) => CLAIM.test(name) && name !== ownName);
  const rivals = await Promise.all(names.map((name) => probe(lockDirectory, name)));
  const alive = rivals.filter((rival) => rival !== undefined);
  return alive.find((rival) => rival.role === 'holder') ?? alive[0];
}

async function probe(lockDirectory: string, name: string): Promise<Rival | undefined> {
  const response = await queryWithRetry(lockDirectory, name);
  if (response === 'dead') {
    await removeIfPresent(join(lockDirectory, name));
    return undefined;
  }
  if (typeof response === 'object')
    return { role: response.role, pid: response.pid, detail: `since ${response.since}` };
  return { role: 'holder', pid: Number(CLAIM.exec(name)?.[1]), detail: 'which is alive but does not respond' };
}

/** `closed`: the connection was closed without data, for example by a candidate that withdrew after it was accepted. */
type OwnerResponse = OwnerInfo | 'dead' | 'silent' | 'closed';

/**
 * Repeats the query when the connection was closed without data. The next query finds that the claim is removed, or
 * gets a response.
 */
async function queryWithRetry(lockDirectory: string, name: string): Promise<OwnerResponse> {
  let response: OwnerResponse = 'closed';
  for (let attempt = 0; attempt < 5 && response === 'closed'; attempt++) {
    if (attempt > 0) await delay(10);
    response = await withShortPath(lockDirectory, name, query);
  }
  return response;
}

function query(path: string): Promise<OwnerResponse> {
  return new Promise((resolve) => {
    const socket = dial(path);
    const finish = (response: OwnerResponse): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(response);
    };
    const timer = setTimeout(() => finish('silent'), RESPONSE_TIMEOUT_MS);
    let text = '';
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (text.includes('\n') || text.length > 1_000) finish(parseInfo(text));
    });
    socket.on('end', () => finish(text === '' ? 'closed' : parseInfo(text)));
    socket.on('error', (error) => finish(responseForError(errorCode(error))));
  });
}

/**
 * Only ECONNREFUSED and ENOENT prove that a claim is dead. After other errors, such as EAGAIN (full backlog), it counts
 * as the holder.
 */
function responseForError(code: string | undefined): OwnerResponse {
  if (code === 'ECONNREFUSED' || code === 'ENOENT') return 'dead';
  return code === 'ECONNRESET' || code === 'EPIPE' ? 'closed' : 'silent';
}

function parseInfo(text: string): OwnerInfo | 'silent' {
  try {
    const { role, pid, since } = JSON.parse(text) as Partial<OwnerInfo>;
    if ((role !== 'candidate' && role !== 'holder') || typeof pid !== 'number') return 'silent';
    return { role, pid, since: String(since) };
  } catch {
    return 'silent';
  }
}

async function removeIfPresent(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
}

/** Removes old sockets that were never renamed. New ones are kept, because a live process may rename them soon. */
async function removeAbandoned(lockDirectory: string): Promise<void> {
  const names = await readdir(lockDirectory).catch(() => []);
  for (const name of names.filter((entry) => UNCLAIMED.test(entry))) {
    const path = join(lockDirectory, name);
    const created = await stat(path).catch(() => undefined);
    if (created && Date.now() - created.mtimeMs > ABANDONED_AFTER_MS)
      await removeIfPresent(path).catch(() => undefined);
  }
}
