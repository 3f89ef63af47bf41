import { type FileHandle, open, readFile, rm } from 'node:fs/promises';
import { type Frames, readFrames } from './frame.js';

/** Bytes of a file that is read; a longer one is not a segment of this spool. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

/** A file of the spool. It is only appended to, and deleted as a whole. */
export class Segment {
  /** The number of attempts that the service has not acknowledged; unknown (undefined) until an adopted segment is read. */
  unacknowledged: number | undefined;
  records = 0;
  /** Whether an append is in progress, whose attempts are not counted yet. */
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

  /** Whether nothing can be appended any more. */
  get isSealed(): boolean {
    return this.file === undefined;
  }

  /** Resolves when the bytes are on disk. After a failure the segment is sealed, because it may have a part of them. */
  async append(frames: Buffer, records: number): Promise<void> {
    try {
      // Counted before the write, of which a failure can leave a part.
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
