import { randomBytes } from 'node:crypto';
import { link, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { errorCode } from './error_properties.js';

export interface AtomicFileOptions {
  /** Permissions of the file, before the umask of the process. */
  readonly mode: number;
  /** false: rejects with `EEXIST` if there is a file; by default it is replaced. */
  readonly overwrite?: boolean;
}

/** Matches what `writeFileAtomically` appends to the name of a file for its temporary file. */
export const TEMPORARY_SUFFIX = /^\.[0-9a-f]{12}\.tmp$/;

/**
 * Writes a file completely or not at all, even if the power fails: the content is written to a temporary file in the
 * same directory, which is then renamed. After a failure the temporary file is removed; a killed process leaves it.
 */
export async function writeFileAtomically(
  path: string,
  content: Uint8Array | readonly Uint8Array[],
  { mode, overwrite = true }: AtomicFileOptions,
): Promise<void> {
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  try {
    await writeSynced(temporary, content instanceof Uint8Array ? [content] : content, mode);
    if (overwrite) await rename(temporary, path);
    else await renameToNew(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
  await syncDirectory(dirname(path));
}

async function writeSynced(path: string, parts: readonly Uint8Array[], mode: number): Promise<void> {
  const file = await open(path, 'wx', mode);
  try {
    for (const part of parts) await file.writeFile(part);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Uses a hard link, because unlike a rename it never replaces a file that another process has created meanwhile. */
async function renameToNew(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch (error) {
    if (errorCode(error) === 'EEXIST') throw error;
    return renameToReserved(from, to);
  }
  await rm(from);
}

/** For a file system without hard links: an empty file reserves the name. */
async function renameToReserved(from: string, to: string): Promise<void> {
  await (await open(to, 'wx')).close();
  try {
    await rename(from, to);
  } catch (error) {
    await rm(to, { force: true }).catch(() => undefined);
    throw error;
  }
}

/** Makes the names in a directory durable, if the system allows directories to be opened. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r').catch(() => undefined);
  try {
    await directory?.sync();
  } catch (error) {
    if (!['EINVAL', 'EPERM', 'ENOTSUP'].includes(errorCode(error) ?? '')) throw error;
  } finally {
    await directory?.close();
  }
}

/** The beginning of the name of a directory that is being removed. */
export const REMOVED_PREFIX = 'removed-';

/**
 * Removes a directory so that other processes see all of it or nothing: the directory is renamed first. A process that is
 * killed meanwhile leaves the renamed directory.
 */
export async function removeDirectory(path: string): Promise<void> {
  const renamed = join(dirname(path), `${REMOVED_PREFIX}${basename(path)}`);
  await rename(path, renamed);
  await rm(renamed, { recursive: true, force: true });
}
