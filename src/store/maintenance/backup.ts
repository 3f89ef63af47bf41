import { StartError } from '../../errors.js';
import { version } from '../../package.js';
import type { Database } from '../database.js';
import { holdsStore } from '../write/head.js';
import { type AboutBackup, refuseOverwrite, writeBackup } from './backup_file.js';

export interface BackupOptions {
  /** Absolute: the service has another working directory than who asks it. */
  readonly file: string;
  /** Replace a file that is there. */
  readonly force: boolean;
  readonly onStep?: (text: string) => void;
}

/** Writes the whole embedded database, as of one moment between two writes, into a file. */
export async function makeBackup(database: Database, options: BackupOptions): Promise<AboutBackup> {
  const { file, force, onStep } = options;
  await refuseOverwrite(file, force);
  if (!database.dump) throw new StartError('A PostgreSQL server is backed up with its own pg_dump.');
  // Its schema may be older or newer than this program: a backup before an upgrade is made with either version.
  if (!(await holdsStore(database.knex))) throw new StartError('There is nothing to back up: the database is empty.');
  onStep?.('copying the database; writes wait meanwhile');
  const { head, tarball } = await database.dump();
  const { revision, identity } = head;
  onStep?.(`compressing and writing ${(tarball.length / 1e6).toFixed(0)} MB`);
  return writeBackup(file, tarball, { version, made_at: new Date().toISOString(), revision, identity }, force);
}
