/**
 * The file that a backup is: a line that says what it is, and behind it the engine's files as a compressed tarball.
 * Without agentllm, `tail -n +2 FILE | tar xz` unpacks it.
 */
import { createHash } from 'node:crypto';
import { access, constants, type FileHandle, lstat, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import { z } from 'zod';
import { writeFileAtomically } from '../../atomic_file.js';
import { StartError } from '../../errors.js';
import { errorCode } from '../embedded/data_directory.js';

const MAGIC = 'agentllm-backup ';
const FORMAT = 1;
const LONGEST_FIRST_LINE = 4096;

const about = z.object({
  /** The version of agentllm that made it. */
  version: z.string(),
  made_at: z.string(),
  revision: z.number(),
  identity: z.string(),
  /** Of the compressed part. */
  bytes: z.number(),
  sha256: z.string(),
  /** Of the tarball. */
  unpacked_bytes: z.number(),
});

/** What the first line says. */
export type AboutBackup = z.output<typeof about>;

export interface Backup {
  readonly about: AboutBackup;
  readonly tarball: Uint8Array;
}

/** Throws when the file cannot or may not be written: it is there, and nobody said that it may be replaced. */
export async function refuseOverwrite(file: string, force: boolean): Promise<void> {
  await access(dirname(file), constants.W_OK).catch((error: unknown) => {
    throw cannotWrite(file, error);
  });
  const there = await lstat(file).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw cannotWrite(file, error);
  });
  if (there && !force)
    throw new StartError(`${file} is there already: name another file, or add --force to replace it.`);
  if (there?.isDirectory()) throw new StartError(`${file} is a directory: name a file.`);
}

/** Writes the file whole or not at all, for its owner alone. */
export async function writeBackup(
  file: string,
  tarball: Uint8Array,
  source: Pick<AboutBackup, 'version' | 'made_at' | 'revision' | 'identity'>,
  force: boolean,
): Promise<AboutBackup> {
  const packed = await promisify(gzip)(tarball, { level: 1 });
  const sums = { bytes: packed.length, sha256: sumOf(packed), unpacked_bytes: tarball.length };
  const firstLine = `${MAGIC}${FORMAT} ${JSON.stringify({ ...source, ...sums })}\n`;
  try {
    await writeFileAtomically(file, [Buffer.from(firstLine), packed], { mode: 0o600, overwrite: force });
  } catch (error) {
    if (errorCode(error) === 'EEXIST') await refuseOverwrite(file, false);
    throw cannotWrite(file, error);
  }
  return { ...source, ...sums };
}

/** Reads a backup and checks every byte of it. */
export async function readBackup(file: string): Promise<Backup> {
  const handle = await open(file, 'r').catch((error: unknown) => {
    throw new StartError(`${file} cannot be read (${messageOf(error)}).`, { cause: error });
  });
  try {
    const { said, length } = await readFirstLine(file, handle);
    const packed = await readExactly(handle, length, said.bytes);
    if (packed === undefined || sumOf(packed) !== said.sha256) throw damaged(file);
    const tarball = await promisify(gunzip)(packed, { maxOutputLength: said.unpacked_bytes || 1 }).catch(() => {
      throw damaged(file);
    });
    return { about: said, tarball };
  } catch (error) {
    if (error instanceof StartError) throw error;
    throw new StartError(`${file} cannot be read (${messageOf(error)}).`, { cause: error });
  } finally {
    await handle.close();
  }
}

async function readFirstLine(file: string, handle: FileHandle): Promise<{ said: AboutBackup; length: number }> {
  const { buffer, bytesRead } = await handle.read({ buffer: Buffer.alloc(LONGEST_FIRST_LINE), position: 0 });
  const start = buffer.subarray(0, bytesRead);
  const length = start.indexOf('\n') + 1;
  const [, format, json] = /^agentllm-backup (\d+) (.*)\n$/.exec(start.toString('utf8', 0, length)) ?? [];
  if (json === undefined) throw new StartError(`${file} is no backup that agentllm has made.`);
  if (Number(format) !== FORMAT)
    throw new StartError(
      `${file} was made by another version of agentllm (format ${format}): restore it with that one.`,
    );
  try {
    return { said: about.parse(JSON.parse(json)), length };
  } catch {
    throw damaged(file);
  }
}

/** The rest of the file, or nothing when it has not this length. */
async function readExactly(handle: FileHandle, from: number, bytes: number): Promise<Buffer | undefined> {
  if ((await handle.stat()).size !== from + bytes) return undefined;
  const all = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; ) {
    const { bytesRead } = await handle.read({ buffer: all, offset: at, position: from + at });
    if (bytesRead === 0) return undefined;
    at += bytesRead;
  }
  return all;
}

const sumOf = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const damaged = (file: string) => new StartError(`${file} is a damaged backup: it is cut short or has been changed.`);
const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

function cannotWrite(file: string, error: unknown): unknown {
  if (error instanceof StartError) return error;
  return new StartError(`${file} cannot be written (${messageOf(error)}).`, { cause: error });
}
