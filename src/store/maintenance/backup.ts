import { StartError } from '../../errors.js';
import { version } from '../../package.js';
import type { Database } from '../database.js';
import { type BackupHeader, refuseOverwrite, writeBackup } from './backup_file.js';
import { holdsStore } from './store_identity.js';

export interface BackupOptions {
  /** An absolute path, because the service has another working directory than the caller. */
  readonly file: string;
  /** Replace an existing file. */
  readonly force: boolean;
  readonly onStep?: (text: string) => void;
}

/** Writes a consistent copy of the embedded database to a file. */
export async function makeBackup(database: Database, options: BackupOptions): Promise<BackupHeader> {
  const { file, force, onStep } = options;
  await refuseOverwrite(file, force);
  if (!database.dump) throw new StartError('A PostgreSQL server is backed up with its own pg_dump.');
  // The schema may be older or newer than this program, so that either version can back up before an upgrade.
  if (!(await holdsStore(database.knex))) throw new StartError('There is nothing to back up: the database is empty.');
  onStep?.('copying the database; writes wait meanwhile');
  const { head, tarball } = await database.dump();
  const { revision, identity } = head;
  onStep?.(`compressing and writing ${(tarball.length / 1e6).toFixed(0)} MB`);
  return writeBackup(file, tarball, { version, made_at: new Date().toISOString(), revision, identity }, force);
}
