import { open, readdir, rename, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { StartError } from '../../errors.js';
import { openDatabase } from '../database.js';
import { type ClusterPaths, clusterPaths, exists, settleRestore } from '../embedded/data_directory.js';
import { acquireDirectoryLock } from '../embedded/directory_lock.js';
import { fsyncDirectory } from '../embedded/durable_files.js';
import { Store } from '../store.js';
import { type AboutBackup, type Backup, readBackup } from './backup_file.js';
import { migrator } from './migrate.js';
import { renewStoreIdentity } from './store_identity.js';

export interface RestoreOptions {
  readonly dataDir: string;
  readonly file: string;
  /** Replace a database that is there; it is kept aside. */
  readonly force: boolean;
  readonly onStep?: (text: string) => void;
}

export interface Restored {
  readonly about: AboutBackup;
  /** The identity that the restored store has taken. */
  readonly identity: string;
  /** Where the database is now that was there before. */
  readonly keptAside: string | undefined;
}

/**
 * Makes the embedded database in `dataDir` from a backup. Until the new one is complete and has been opened and looked
 * at, nothing of what was there is touched; a process killed at any point leaves the old database or the new one.
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
        `${dataDir} holds a database already: set DATA_DIR to another directory, or add --force to replace it (the old one is kept aside).`,
      );
    onStep?.(`unpacking revision ${backup.about.revision} of ${backup.about.made_at}`);
    const identity = await makeCluster(backup, file, paths);
    return { about: backup.about, identity, keptAside: await putInPlace(dataDir, paths) };
  } finally {
    await lock.release();
  }
}

/** Unpacks, opens, checks and renews a cluster beside the one in use. */
async function makeCluster(backup: Backup, file: string, { restoring, restored }: ClusterPaths): Promise<string> {
  try {
    const identity = await openAndRenew(backup, restoring);
    const { cluster } = clusterPaths(restoring);
    await fsyncTree(cluster);
    await rename(cluster, restored);
    return identity;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StartError(`${file} cannot be restored, and nothing was changed. ${reason}`, { cause: error });
  } finally {
    await rm(restoring, { recursive: true, force: true });
  }
}

async function openAndRenew({ tarball }: Backup, directory: string): Promise<string> {
  const database = await openDatabase({
    url: undefined,
    dataDir: directory,
    loadDump: tarball,
    poolSize: 1,
    acquireTimeoutMs: 30_000,
  });
  try {
    // Throws when a newer version has made the schema; an older one is migrated by the next start.
    await migrator(database).check();
    return (await renewStoreIdentity(new Store(database))).identity;
  } finally {
    await database.close();
  }
}

/** From here to the end a kill is made good by `settleRestore` of the next open. */
async function putInPlace(dataDir: string, { cluster, restored }: ClusterPaths): Promise<string | undefined> {
  fsyncDirectory(dataDir);
  let aside: string | undefined;
  if (await exists(cluster)) {
    aside = join(dataDir, `pg.replaced-${new Date().toISOString().replaceAll(':', '-')}`);
    await rename(cluster, aside);
  }
  await rename(restored, cluster);
  fsyncDirectory(dataDir);
  return aside;
}

/** The engine leaves when its files reach the disk to the system; what takes the place of a database has to be there. */
async function fsyncTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await fsyncTree(path);
    else if (entry.isFile()) await fsyncFile(path);
  }
  fsyncDirectory(directory);
}

async function fsyncFile(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
