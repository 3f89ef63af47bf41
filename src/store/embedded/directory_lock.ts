/**
 * The lock on a data directory, which ensures a single owner.
 *
 * PGlite has no lock: two processes on one directory lost 1 078 acknowledged rows without an error.
 */
import { resolve as absolute, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { claimDirectory, findLiveRival } from '../../directory_claim.js';
import { errorCode } from '../../error_properties.js';
import { explainDirectoryFailure, makeOwnDirectory } from './data_directory.js';

/**
 * A candidate that still conflicts with another one after this time gives up. Eight candidates need less than a second.
 */
const CONTENTION_TIMEOUT_MS = 10_000;

export interface DirectoryLock {
  readonly directory: string;
  /** Releases the directory. Close the database first. */
  release(): Promise<void>;
}

/** Another process, or another component of this process, owns the data directory. */
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

/**
 * Acquires the lock on `dataDir`. Creates the directory if it is missing.
 * @throws DirectoryInUseError when another owner is alive.
 */
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

/** The current owner of the directory, without acquiring the lock; undefined when there is none. */
export async function findHolder(dataDir: string): Promise<{ readonly pid: number } | undefined> {
  const lockDirectory = join(absolute(dataDir), '.lock');
  return findLiveRival(lockDirectory).catch(() => undefined);
}

async function contend(directory: string, lockDirectory: string): Promise<DirectoryLock> {
  const deadline = performance.now() + CONTENTION_TIMEOUT_MS;
  for (;;) {
    const claim = await claimDirectory(lockDirectory);
    if (!('rival' in claim)) return { directory, release: claim.release };
    const { role, pid, detail } = claim.rival;
    if (role === 'holder') throw new DirectoryInUseError(directory, pid, detail);
    if (performance.now() > deadline) throw new DirectoryInUseError(directory, pid, 'which is also starting');
    await delay(20 + Math.random() * 80);
  }
}

function withSocketAdvice(error: unknown): unknown {
  const code = errorCode(error);
  if (code !== 'ENOTSUP' && code !== 'EOPNOTSUPP' && code !== 'EINVAL') return error;
  return new Error(`its file system has no UNIX-domain sockets, which the lock needs: set DATA_DIR to a local disk`, {
    cause: error,
  });
}
