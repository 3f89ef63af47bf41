import { type FileHandle, open, readFile, rm } from 'node:fs/promises';
import { type Frames, readFrames } from './frame.js';

/** The maximum size of a file that is read, in bytes. A larger file is not a segment of this spool. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

/** A file of the spool. It is append-only and is deleted as a whole. */
export class Segment {
  /** The number of unacknowledged attempts; undefined until the segment of an ended process is read. */
  unacknowledged: number | undefined;
  records = 0;
  /** Whether an append is in progress. Its attempts are not yet counted. */
  isBusy = false;
  isRemoved = false;

  private constructor(
    readonly path: string,
    /** Whether its attempts are not in memory. */
    public isSpilled: boolean,
    public bytes: number,
    private file: FileHandle | undefined,
  ) {}

  /** Creates the file; rejects with EEXIST if there is one. */
  static async create(path: string, isSpilled: boolean): Promise<Segment> {
    const segment = new Segment(path, isSpilled, 0, await open(path, 'ax', 0o600));
    segment.unacknowledged = 0;
    return segment;
  }

  /** A segment of a process that has ended. */
  static adopted(path: string, bytes: number): Segment {
    return new Segment(path, true, bytes, undefined);
  }

  /** Whether the segment accepts no further appends. */
  get isSealed(): boolean {
    return this.file === undefined;
  }

  /**
   * Resolves when the bytes are on disk. A failure seals the segment, because a part of the bytes may have been
   * written.
   */
  async append(frames: Buffer, records: number): Promise<void> {
    try {
      // The bytes are counted before the write, because a failed write can leave a part of them.
      this.bytes += frames.length;
      await this.file?.writeFile(frames);
      await this.file?.datasync();
      this.records += records;
    } catch (error) {
      await this.seal();
      throw error;
    }
  }

  async seal(): Promise<void> {
    const { file } = this;
    this.file = undefined;
    await file?.close().catch(() => undefined);
  }

  async read(): Promise<Frames> {
    if (this.bytes > MAX_FILE_BYTES) throw new Error(`it has ${this.bytes} bytes, more than a segment can have`);
    return readFrames(await readFile(this.path));
  }

  async remove(): Promise<void> {
    this.isRemoved = true;
    await this.seal();
    await rm(this.path, { force: true });
  }
}
