import { open, readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { syncDirectory } from '../../atomic_file.js';
import { errorMessage } from '../../error_properties.js';
import { StartError } from '../../errors.js';
import { openDatabase } from '../database.js';
import { type ClusterPaths, clusterPaths, exists, settleRestore } from '../embedded/data_directory.js';
import { acquireDirectoryLock } from '../embedded/directory_lock.js';
import { Store } from '../store.js';
import { type Backup, type BackupHeader, readBackup } from './backup_file.js';
import { migrator } from './migrate.js';
import { renewStoreIdentity } from './store_identity.js';

export interface RestoreOptions {
  readonly dataDir: string;
  readonly file: string;
  /** Replace an existing database, which is renamed and kept. */
  readonly force: boolean;
  readonly onStep?: (text: string) => void;
}

export interface Restored {
  readonly header: BackupHeader;
  /** The new identity of the restored store. */
  readonly identity: string;
  /** The directory of the previous database; undefined when there was none. */
  readonly previousDatabase: string | undefined;
}

/**
 * Restores the embedded database in `dataDir` from a backup. The existing database is not changed until the new one is
 * complete and has been opened and checked. If the process is killed at any point, either the old or the new one
 * remains.
 */
export async function restoreBackup(options: RestoreOptions): Promise<Restored> {
  const { file, force, onStep } = options;
  const dataDir = resolve(options.dataDir);
  onStep?.(`checking ${file}`);
  const backup = await readBackup(file);
  const lock = await acquireDirectoryLock(dataDir);
  try {
    const paths = clusterPaths(dataDir);
    await settleRestore(paths);
    if (!force && (await exists(paths.cluster)))
      throw new StartError(
        `${dataDir} already contains a database: set DATA_DIR to another directory, or add --force to replace it (the old one is renamed and kept).`,
      );
    onStep?.(`unpacking revision ${backup.header.revision} of ${backup.header.made_at}`);
    const identity = await createCluster(backup, file, paths);
    return { header: backup.header, identity, previousDatabase: await activateCluster(dataDir, paths) };
  } finally {
    await lock.release();
  }
}

/** Unpacks a cluster next to the one in use, opens and checks it, and gives it a new identity. */
async function createCluster(backup: Backup, file: string, { restoring, restored }: ClusterPaths): Promise<string> {
  try {
    const identity = await openWithNewIdentity(backup, restoring);
    const { cluster } = clusterPaths(restoring);
    await syncTree(cluster);
    await rename(cluster, restored);
    return identity;
  } catch (error) {
    throw new StartError(`${file} cannot be restored, and nothing was changed. ${errorMessage(error)}`, {
      cause: error,
    });
  } finally {
    await rm(restoring, { recursive: true, force: true });
  }
}

async function openWithNewIdentity({ tarball }: Backup, directory: string): Promise<string> {
  const database = await openDatabase({
    url: undefined,
    dataDir: directory,
    loadDump: tarball,
    poolSize: 1,
    acquireTimeoutMs: 30_000,
  });
  try {
    // Throws when the schema is newer than this program. An older schema is migrated by the next start.
    await migrator(database).check();
    return (await renewStoreIdentity(new Store(database))).identity;
  } finally {
    await database.close();
  }
}

/** If the process is killed during this function, `settleRestore` completes the restore at the next open. */
async function activateCluster(dataDir: string, { cluster, restored }: ClusterPaths): Promise<string | undefined> {
  await syncDirectory(dataDir);
  let previous: string | undefined;
  if (await exists(cluster)) {
    previous = join(dataDir, `pg.replaced-${new Date().toISOString().replaceAll(':', '-')}`);
    await rename(cluster, previous);
  }
  await rename(restored, cluster);
  await syncDirectory(dataDir);
  return previous;
}

/** The engine does not sync its files here, but they must be on disk before they replace a database. */
async function syncTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await syncTree(path);
    else if (entry.isFile()) await syncFile(path);
  }
  await syncDirectory(directory);
}

async function syncFile(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
