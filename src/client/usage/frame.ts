/*
 * A frame is one record in a segment: a marker, the length and the checksum of the content, and the content. With the
 * marker, a reader finds the next frame after damaged bytes.
 */
import { createHash } from 'node:crypto';

const MARKER = Buffer.from([0xa7, 0x55, 0x53, 0x41]);
const CHECKSUM_BYTES = 8;
const HEADER_BYTES = MARKER.length + 4 + CHECKSUM_BYTES;
/** The maximum length of the content of a frame. The largest possible record has less than a tenth of it. */
export const MAX_CONTENT_BYTES = 256 * 1024;

const checksumOf = (length: Uint8Array, content: Uint8Array): Buffer =>
  createHash('sha256').update(length).update(content).digest().subarray(0, CHECKSUM_BYTES);

export function frameOf(content: Uint8Array): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(content.length);
  return Buffer.concat([MARKER, length, checksumOf(length, content), content]);
}

/** The length of the frame of a content in bytes. */
export const frameBytes = (content: Uint8Array): number => HEADER_BYTES + content.length;

/** What the file of a segment contains. */
export interface Frames {
  readonly contents: readonly Buffer[];
  /** The number of damaged places that are followed by an intact frame. */
  readonly damaged: number;
  /** The number of bytes after the last intact frame, which are left by an interrupted write. */
  readonly tornBytes: number;
}

/** Reads all intact frames. */
export function readFrames(file: Buffer): Frames {
  const contents: Buffer[] = [];
  let damaged = 0;
  let at = 0;
  while (at < file.length) {
    const begin = nextFrame(file, at);
    if (begin === undefined) break;
    if (begin > at) damaged++;
    const content = contentAt(file, begin) as Buffer;
    contents.push(content);
    at = begin + frameBytes(content);
  }
  return { contents, damaged, tornBytes: file.length - at };
}

/** The position of the next intact frame. */
function nextFrame(file: Buffer, from: number): number | undefined {
  let at = file.indexOf(MARKER, from);
  while (at !== -1 && contentAt(file, at) === undefined) at = file.indexOf(MARKER, at + 1);
  return at === -1 ? undefined : at;
}

/** The content of the frame at a position; undefined if the frame is not intact. */
function contentAt(file: Buffer, at: number): Buffer | undefined {
  if (at + HEADER_BYTES > file.length) return undefined;
  const length = file.subarray(at + MARKER.length, at + MARKER.length + 4);
  const size = length.readUInt32LE(0);
  const end = at + HEADER_BYTES + size;
  if (size > MAX_CONTENT_BYTES || end > file.length) return undefined;
  const content = file.subarray(at + HEADER_BYTES, end);
  const checksum = file.subarray(at + MARKER.length + 4, at + HEADER_BYTES);
  return checksumOf(length, content).equals(checksum) ? content : undefined;
}
