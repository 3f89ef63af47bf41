/**
 * The format of a backup file: a header line, then the engine's files as a compressed tarball. Without agentllm,
 * `tail -n +2 FILE | tar xz` unpacks it.
 */
import { createHash } from 'node:crypto';
import { access, constants, type FileHandle, lstat, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import { z } from 'zod';
import { writeFileAtomically } from '../../atomic_file.js';
import { errorCode, errorMessage } from '../../error_properties.js';
import { StartError } from '../../errors.js';

const MAGIC = 'agentllm-backup ';
const FORMAT = 1;
const MAX_HEADER_BYTES = 4096;

const headerSchema = z.object({
  /** The version of agentllm that wrote the backup. */
  version: z.string(),
  made_at: z.string(),
  revision: z.number(),
  identity: z.string(),
  /** Size of the compressed tarball. */
  bytes: z.number(),
  /** SHA-256 of the compressed tarball. */
  sha256: z.string(),
  /** Size of the tarball. */
  unpacked_bytes: z.number(),
});

/** The contents of the header line. */
export type BackupHeader = z.output<typeof headerSchema>;

export interface Backup {
  readonly header: BackupHeader;
  readonly tarball: Uint8Array;
}

/** Throws a StartError when the file cannot be written, or exists and `force` is false. */
export async function refuseOverwrite(file: string, force: boolean): Promise<void> {
  await access(dirname(file), constants.W_OK).catch((error: unknown) => {
    throw cannotWrite(file, error);
  });
  const existing = await lstat(file).catch((error: unknown) => {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw cannotWrite(file, error);
  });
  if (existing && !force)
    throw new StartError(`${file} already exists: use another file name, or add --force to replace it.`);
  if (existing?.isDirectory()) throw new StartError(`${file} is a directory: use a file name.`);
}

/** Writes the file atomically, readable only for its owner. */
export async function writeBackup(
  file: string,
  tarball: Uint8Array,
  source: Pick<BackupHeader, 'version' | 'made_at' | 'revision' | 'identity'>,
  force: boolean,
): Promise<BackupHeader> {
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

/**
 * Reads a backup and verifies its checksum.
 * @throws StartError when the file cannot be read or is damaged.
 */
export async function readBackup(file: string): Promise<Backup> {
  const handle = await open(file, 'r').catch((error: unknown) => {
    throw new StartError(`${file} cannot be read (${errorMessage(error)}).`, { cause: error });
  });
  try {
    const { header, length } = await readHeader(file, handle);
    const packed = await readExactly(handle, length, header.bytes);
    if (packed === undefined || sumOf(packed) !== header.sha256) throw damaged(file);
    const tarball = await promisify(gunzip)(packed, { maxOutputLength: header.unpacked_bytes || 1 }).catch(() => {
      throw damaged(file);
    });
    return { header, tarball };
  } catch (error) {
    if (error instanceof StartError) throw error;
    throw new StartError(`${file} cannot be read (${errorMessage(error)}).`, { cause: error });
  } finally {
    await handle.close();
  }
}

async function readHeader(file: string, handle: FileHandle): Promise<{ header: BackupHeader; length: number }> {
  const { buffer, bytesRead } = await handle.read({ buffer: Buffer.alloc(MAX_HEADER_BYTES), position: 0 });
  const start = buffer.subarray(0, bytesRead);
  const length = start.indexOf('\n') + 1;
  const [, format, json] = /^agentllm-backup (\d+) (.*)\n$/.exec(start.toString('utf8', 0, length)) ?? [];
  if (json === undefined) throw new StartError(`${file} is not a backup of agentllm.`);
  if (Number(format) !== FORMAT)
    throw new StartError(
      `${file} was written by another version of agentllm (format ${format}): restore it with that version.`,
    );
  try {
    return { header: headerSchema.parse(JSON.parse(json)), length };
  } catch {
    throw damaged(file);
  }
}

/** The rest of the file; undefined when it does not have this length. */
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
const damaged = (file: string) => new StartError(`${file} is a damaged backup: it is truncated or has been changed.`);

function cannotWrite(file: string, error: unknown): unknown {
  if (error instanceof StartError) return error;
  return new StartError(`${file} cannot be written (${errorMessage(error)}).`, { cause: error });
}
