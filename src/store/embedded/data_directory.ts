import { access, constants, mkdir, rename, rm, stat, statfs } from 'node:fs/promises';
import { resolve as absolute, dirname, join } from 'node:path';
import { errorCode, errorMessage } from '../../error_properties.js';

/** A new cluster takes 39 MB, including one 16 MB WAL segment. The first load adds a second segment. */
const NEW_CLUSTER_BYTES = 96 * 1024 * 1024;

/** DATA_DIR cannot be used. The message states the cause and the remedy. */
export class DataDirectoryError extends Error {
  override readonly name = 'DataDirectoryError';
  constructor(
    message: string,
    readonly code: string | undefined,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

export interface ClusterPaths {
  /** The cluster in use. */
  cluster: string;
  /** Where a cluster is created before it is renamed, so that a killed first start leaves no partial `cluster`. */
  unfinished: string;
  /** A separate data directory in which a restore creates its cluster. */
  restoring: string;
  /** The complete cluster of a restore. If the restore is killed after creating it, the next open completes it. */
  restored: string;
}

export function clusterPaths(dataDir: string): ClusterPaths {
  return {
    cluster: join(dataDir, 'pg'),
    unfinished: join(dataDir, 'pg.new'),
    restoring: join(dataDir, '.restore'),
    restored: join(dataDir, 'pg.restored'),
  };
}

/** Whether DATA_DIR contains a database. Creates nothing and needs no lock. */
export async function holdsDatabase(dataDir: string): Promise<boolean> {
  const { cluster, restored } = clusterPaths(dataDir);
  try {
    return (await exists(cluster)) || (await exists(restored));
  } catch (error) {
    throw explainDirectoryFailure(dataDir, error);
  }
}

/**
 * Prepares DATA_DIR for the engine. The caller must hold the lock.
 * @throws DataDirectoryError when the directory cannot be used.
 */
export async function prepareDataDirectory(dataDir: string): Promise<ClusterPaths> {
  await makeOwnDirectory(dataDir);
  const paths = clusterPaths(dataDir);
  try {
    await access(dataDir, constants.R_OK | constants.W_OK | constants.X_OK);
    await rm(paths.unfinished, { recursive: true, force: true });
    await settleRestore(paths);
    if (await exists(paths.cluster)) {
      await access(paths.cluster, constants.R_OK | constants.W_OK | constants.X_OK);
    } else {
      await requireFreeSpace(dataDir);
    }
  } catch (error) {
    throw explainDirectoryFailure(dataDir, error);
  }
  return paths;
}

/**
 * Completes or reverts a restore whose process was killed. If it was killed between its last two renames, there is no
 * cluster. Then the restored cluster is activated, so that no empty cluster is created. If it was killed earlier, the
 * old cluster stays in use.
 */
export async function settleRestore({ cluster, restoring, restored }: ClusterPaths): Promise<void> {
  await rm(restoring, { recursive: true, force: true });
  if (!(await exists(restored))) return;
  if (await exists(cluster)) await rm(restored, { recursive: true, force: true });
  else await rename(restored, cluster);
}

/**
 * Creates the directory and its parents, accessible only to the owner. An existing directory keeps its mode.
 * @param dataDir the data directory that it belongs to, for error messages.
 */
export async function makeOwnDirectory(directory: string, dataDir = directory): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    if (!(await stat(directory)).isDirectory()) {
      throw Object.assign(new Error('not a directory'), { code: 'ENOTDIR' });
    }
  } catch (error) {
    throw explainDirectoryFailure(dataDir, await causeOf(directory, error));
  }
}

/**
 * Node reports ENOENT when a recursive mkdir fails on a read-only file system. An access check of the parent returns
 * the actual cause.
 */
async function causeOf(directory: string, error: unknown): Promise<unknown> {
  if (errorCode(error) !== 'ENOENT') return error;
  const parent = dirname(absolute(directory));
  if (parent === absolute(directory)) return error;
  try {
    await access(parent, constants.W_OK | constants.X_OK);
    return error;
  } catch (cause) {
    return causeOf(parent, cause);
  }
}

export function explainDirectoryFailure(directory: string, error: unknown): Error {
  if (error instanceof DataDirectoryError) return error;
  const code = errorCode(error);
  const advice = code === undefined ? undefined : ADVICE[code];
  const reason = advice ?? `cannot be used (${errorMessage(error)}).`;
  return new DataDirectoryError(`The data directory ${directory} ${reason}`, code, { cause: error });
}

const ADVICE: Record<string, string | undefined> = {
  EACCES: 'may not be read and written by this user: change its owner or mode, or set DATA_DIR to another directory.',
  EPERM: 'may not be read and written by this user: change its owner or mode, or set DATA_DIR to another directory.',
  EROFS: 'is on a read-only file system: mount it writable, or set DATA_DIR to another directory.',
  ENOSPC: 'is on a full disk: free some space, or set DATA_DIR to another disk.',
  EDQUOT: 'has used up its disk quota: free some space, or set DATA_DIR to another disk.',
  ENOTDIR: 'is not a directory: remove the file of that name, or set DATA_DIR to another directory.',
  EEXIST: 'is not a directory: remove the file of that name, or set DATA_DIR to another directory.',
  ENAMETOOLONG: 'has too long a name: set DATA_DIR to a shorter one.',
  ELOOP: 'is a symbolic link that points to itself: set DATA_DIR to another directory.',
  ENOENT: 'cannot be created: a symbolic link in its path is dangling. Set DATA_DIR to another directory.',
  EIO: 'is on a disk that reports input/output errors: check the disk before starting again.',
};

async function requireFreeSpace(dataDir: string): Promise<void> {
  const { bavail, bsize } = await statfs(dataDir);
  const free = bavail * bsize;
  // Some network and virtual file systems report no sizes.
  if (bsize === 0 || free >= NEW_CLUSTER_BYTES) return;
  throw new DataDirectoryError(
    `The data directory ${dataDir} has ${Math.floor(free / 1e6)} MB free, and a new database needs ` +
      `${Math.ceil(NEW_CLUSTER_BYTES / 1e6)} MB: free some space, or set DATA_DIR to another disk.`,
    'ENOSPC',
  );
}

export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return false;
    throw error;
  }
}
