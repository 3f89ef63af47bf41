import { errorCode } from '../../error_properties.js';
import { limits } from '../../limits.js';
import { frameBytes, frameOf } from './frame.js';
import { ProcessDirectory } from './process_directory.js';
import type { Segment } from './segment.js';

/** A segment without unacknowledged attempts is deleted from this size on, although it could be appended to. */
const ROLL_BYTES = 64 * 1024;

/** The bytes on disk have reached their limit. */
export class SpoolFullError extends Error {
  override readonly name = 'SpoolFullError';
}

/** The segments on disk: those of this process, and those of processes that have ended. */
export class SpoolDisk {
  private own: ProcessDirectory | undefined;
  private readonly adopted = new Set<ProcessDirectory>();
  private readonly owners = new Map<Segment, ProcessDirectory>();
  private active: Segment | undefined;

  constructor(
    readonly directory: string,
    private readonly maxBytes: number,
  ) {}

  get bytes(): number {
    let sum = 0;
    for (const segment of this.owners.keys()) sum += segment.bytes;
    return sum;
  }

  /**
   * Resolves with the segment when the contents are on disk. The caller counts its attempts and clears `isBusy`.
   *
   * @param isSpilled whether the contents will not stay in memory.
   */
  async append(contents: readonly Uint8Array[], isSpilled: boolean): Promise<Segment> {
    const bytes = contents.reduce((sum, content) => sum + frameBytes(content), 0);
    if (this.bytes + bytes > this.maxBytes) throw new SpoolFullError(`it has reached ${this.maxBytes} bytes`);
    const segment = await this.segmentFor(bytes, contents.length, isSpilled);
    segment.isBusy = true;
    try {
      await segment.append(Buffer.concat(contents.map(frameOf)), contents.length);
      return segment;
    } catch (error) {
      segment.isBusy = false;
      if (this.active === segment) this.active = undefined;
      await this.settle(segment);
      throw error;
    }
  }

  /** Takes over the segments of processes that have ended. */
  async adopt(): Promise<Segment[]> {
    const held = () => [...this.adopted, ...(this.own ? [this.own] : [])];
    const found = await ProcessDirectory.adoptAll(this.directory, (path) => held().some((one) => one.has(path)));
    for (const directory of found) {
      this.adopted.add(directory);
      for (const segment of directory.segments) this.owners.set(segment, directory);
    }
    return found.flatMap(({ segments }) => [...segments]);
  }

  /** Ends the appending to a segment. */
  async seal(segment: Segment): Promise<void> {
    if (this.active === segment) this.active = undefined;
    await segment.seal();
  }

  /** Deletes a segment if everything in it is acknowledged. Returns whether it was deleted. */
  async settle(segment: Segment, isLast = false): Promise<boolean> {
    const isActive = this.active === segment;
    if (segment.isBusy || segment.isRemoved || segment.unacknowledged !== 0) return false;
    if (isActive && segment.bytes < ROLL_BYTES && !isLast) return false;
    if (isActive) this.active = undefined;
    const owner = this.owners.get(segment);
    this.owners.delete(segment);
    owner?.segments.delete(segment);
    await segment.remove();
    if (owner && this.adopted.has(owner) && owner.segments.size === 0) {
      this.adopted.delete(owner);
      await owner.release();
    }
    return true;
  }

  /** Stops to count a segment that cannot be read. It stays on disk for the next process. */
  forget(segment: Segment): void {
    this.owners.delete(segment);
  }

  /** What is left can be adopted by another process. */
  async close(): Promise<void> {
    if (this.active) await this.settle(this.active, true);
    for (const directory of [...this.adopted, ...(this.own ? [this.own] : [])]) await directory.release();
  }

  private async segmentFor(bytes: number, records: number, isSpilled: boolean): Promise<Segment> {
    const { active } = this;
    const hasRoom =
      active &&
      !active.isSealed &&
      active.isSpilled === isSpilled &&
      active.bytes + bytes <= limits.segmentBytes &&
      active.records + records <= limits.segmentRecords;
    if (hasRoom) return active;
    this.active = undefined;
    await active?.seal();
    if (active) await this.settle(active);
    this.own ??= await ProcessDirectory.create(this.directory);
    const { own } = this;
    const segment = await own.createSegment(isSpilled).catch(async (error: unknown) => {
      if (errorCode(error) === 'ENOENT') await this.loseOwn(own);
      throw error;
    });
    this.owners.set(segment, own);
    this.active = segment;
    return segment;
  }

  /** The directory has been deleted; the next attempt creates another one. */
  private async loseOwn(own: ProcessDirectory): Promise<void> {
    this.own = undefined;
    await own.release().catch(() => undefined);
  }
}
