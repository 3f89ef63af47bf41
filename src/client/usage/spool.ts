import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { errorMessage } from '../../error_properties.js';
import { limits } from '../../limits.js';
import type { Clock } from '../runtime/clock.js';
import { type Entry, firstEntries } from './entry.js';
import { MAX_CONTENT_BYTES } from './frame.js';
import { Losses } from './losses.js';
import type { Segment } from './segment.js';
import { type SpoolDisk, SpoolFullError } from './spool_disk.js';
import type { SpoolWarnings } from './spool_warnings.js';
import { recordsOf } from './usage_records.js';

interface SpoolParts {
  readonly maxMemoryRecords: number;
  /** Undefined: attempts are kept only in memory. */
  readonly disk: SpoolDisk | undefined;
  readonly clock: Clock;
  readonly warnings: SpoolWarnings;
}

interface Waiter {
  readonly upTo: number;
  resolve(isKept: boolean): void;
}

/** The maximum of records and bytes of one write to the disk. */
const WRITE = { records: 256, bytes: 512 * 1024 };
/** The pause after a failed write. */
const DISK_RETRY_MS = 5_000;
/** The interval of the search for segments of ended processes. */
const ADOPT_MS = 60_000;

/**
 * Keeps attempts until the service has acknowledged them: in memory, and on disk if there is a directory. An attempt on
 * disk survives the end of the process. While the memory is at least half full, new attempts are stored only on disk
 * and are read back later. When memory and disk are full, new attempts are dropped and counted.
 */
export class Spool {
  readonly losses = new Losses();
  /** Called when attempts can be sent. */
  onReady: () => void = () => {};
  recorded = 0;
  dropped = 0;

  /** The entries that can be sent. */
  private readonly ready = new Set<Entry>();
  /** The entries that are not yet on disk, in the order of recording. */
  private readonly unwritten = new Set<Entry>();
  private readonly spilled: Segment[] = [];
  /** The number of entries whose content is in memory. */
  private heldInMemory = 0;
  private spilling = 0;
  private isWriting = false;
  private isLoading = false;
  private isClosed = false;
  /** The error because of which writes are paused; undefined: writes are possible. */
  private writeError: unknown;
  private waiters: Waiter[] = [];
  private cancelRetry = () => {};
  private cancelAdoption = () => {};
  /** The file operations in progress. */
  private readonly fileOperations = new Set<Promise<void>>();

  constructor(private readonly parts: SpoolParts) {
    if (parts.disk) this.adoptAfter(0);
  }

  /** The number of attempts that can be sent. */
  get readyCount(): number {
    return this.ready.size;
  }

  /** Attempts in memory, including those that are being sent. */
  get inMemory(): number {
    return this.heldInMemory;
  }

  get diskBytes(): number {
    return this.parts.disk?.bytes ?? 0;
  }

  /** Whether the spool has no attempts, neither in memory nor on disk. */
  get isEmpty(): boolean {
    return this.heldInMemory === 0 && this.spilled.length === 0 && this.losses.size === 0 && !this.isLoading;
  }

  /** Adds the attempts of a receipt. Never waits and never throws. */
  record(receipt: Receipt): void {
    for (const record of recordsOf(receipt)) {
      this.recorded++;
      try {
        this.add(record);
      } catch (error) {
        this.drop(record, `it cannot be encoded: ${errorMessage(error)}`);
      }
    }
  }

  /** Removes entries from the queue, to be sent. */
  take(most: { readonly records: number; readonly bytes: number }): Entry[] {
    const taken = firstEntries(this.ready, most);
    for (const entry of taken) this.ready.delete(entry);
    return taken;
  }

  /** The service has stored or rejected the entries. */
  acknowledge(entries: readonly Entry[]): void {
    const segments = new Set<Segment>();
    for (const entry of entries) {
      entry.isAcknowledged = true;
      this.heldInMemory--;
      this.unwritten.delete(entry);
      const { segment } = entry;
      if (segment?.unacknowledged) segment.unacknowledged--;
      if (segment) segments.add(segment);
    }
    for (const segment of segments) this.settle(segment);
    this.resolveWaiters();
    this.loadNextSegment();
  }

  /** Resolves with whether all attempts that were recorded so far are on disk or acknowledged. */
  sync(): Promise<boolean> {
    return new Promise((resolve) => {
      this.waiters.push({ upTo: this.recorded, resolve });
      this.resolveWaiters();
    });
  }

  /** Resolves when all writes have ended. The next process sends the unacknowledged attempts on disk. */
  async close(): Promise<void> {
    this.isClosed = true;
    this.cancelRetry();
    this.cancelAdoption();
    // A last try to write, in case the disk works again.
    if (this.writeError) this.resumeWrites();
    while (this.fileOperations.size > 0) await Promise.all(this.fileOperations);
    for (const { resolve } of this.waiters.splice(0))
      resolve(this.unwritten.size === 0 && this.parts.disk !== undefined);
    await this.parts.disk?.close().catch((error: unknown) => this.parts.warnings.diskFailed(error));
  }

  /** The number of attempts that would be lost if the process ended now. */
  get unkept(): number {
    return this.parts.disk ? this.unwritten.size : this.heldInMemory;
  }

  private add(record: UsageRecord): void {
    const content = UsageRecord.encode(record).finish();
    const problem = this.problemOf(content);
    if (problem) this.drop(record, problem);
    else this.addEntry(content);
  }

  /** The reason why an attempt cannot be added; undefined if it can. */
  private problemOf(content: Uint8Array): string | undefined {
    const { disk, maxMemoryRecords } = this.parts;
    if (this.isClosed) return 'the client is closed';
    if (content.length > MAX_CONTENT_BYTES)
      return `an attempt has ${content.length} bytes, more than the spool accepts`;
    if (this.heldInMemory < maxMemoryRecords) return undefined;
    if (!disk) return `${maxMemoryRecords} attempts wait for the service`;
    return `the memory is full, and the disk accepts no attempts: ${errorMessage(this.writeError ?? 'writes are too slow')}`;
  }

  private addEntry(content: Uint8Array): void {
    const { disk, maxMemoryRecords } = this.parts;
    const isSpilled =
      disk !== undefined && !this.writeError && this.heldInMemory - this.spilling >= maxMemoryRecords / 2;
    const entry = { content, number: this.recorded, segment: undefined, isAcknowledged: false, isSpilled };
    this.heldInMemory++;
    if (isSpilled) this.spilling++;
    else this.ready.add(entry);
    if (disk) this.unwritten.add(entry);
    if (disk && !this.isWriting && !this.writeError) this.startWriting();
    if (!isSpilled) this.onReady();
  }

  private drop({ agent, attempt }: UsageRecord, reason: string): void {
    this.dropped++;
    this.losses.add(agent, attempt?.started_at ?? this.parts.clock.date());
    this.parts.warnings.lost('dropped', `attempts are dropped, because ${reason}`);
    this.onReady();
  }

  private startWriting(): void {
    this.isWriting = true;
    // Deferred, so that the model call does not wait for the write.
    this.track(new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.write()));
  }

  private async write(): Promise<void> {
    const { disk } = this.parts;
    while (disk && this.unwritten.size > 0 && !this.writeError) {
      const batch = firstEntries(this.unwritten, WRITE, (entry, { isSpilled }) => entry.isSpilled === isSpilled);
      try {
        const segment = await disk.append(
          batch.map(({ content }) => content),
          batch[0]?.isSpilled ?? false,
        );
        this.written(batch, segment);
      } catch (error) {
        this.pauseWrites(error);
      }
    }
    this.isWriting = false;
    this.resolveWaiters();
    this.loadNextSegment();
  }

  private written(batch: readonly Entry[], segment: Segment): void {
    segment.isBusy = false;
    for (const entry of batch) {
      this.unwritten.delete(entry);
      if (entry.isAcknowledged) continue;
      entry.segment = segment;
      segment.unacknowledged = (segment.unacknowledged ?? 0) + 1;
      if (!entry.isSpilled) continue;
      this.heldInMemory--;
      this.spilling--;
    }
    if (segment.isSpilled && !this.spilled.includes(segment)) this.spilled.push(segment);
    this.settle(segment);
    this.resolveWaiters();
  }

  /** Pauses writes. Entries that wait for the disk are sent from memory. */
  private pauseWrites(error: unknown): void {
    this.writeError = error;
    this.parts.warnings.diskFailed(error, error instanceof SpoolFullError);
    for (const entry of this.unwritten) {
      if (!entry.isSpilled) continue;
      entry.isSpilled = false;
      this.spilling--;
      this.ready.add(entry);
    }
    this.onReady();
    if (!this.isClosed) this.cancelRetry = this.parts.clock.after(DISK_RETRY_MS, () => this.resumeWrites());
  }

  private resumeWrites(): void {
    this.cancelRetry();
    this.writeError = undefined;
    if (!this.isWriting && this.unwritten.size > 0) this.startWriting();
  }

  private settle(segment: Segment): void {
    this.track(this.settleSegment(segment));
  }

  private async settleSegment(segment: Segment): Promise<void> {
    try {
      const isDeleted = await this.parts.disk?.settle(segment);
      if (isDeleted && this.writeError instanceof SpoolFullError && !this.isClosed) this.resumeWrites();
    } catch (error) {
      this.parts.warnings.diskFailed(error);
    }
  }

  private track(operation: Promise<void>): void {
    this.fileOperations.add(operation);
    void operation.finally(() => this.fileOperations.delete(operation));
  }

  /** Reads the oldest segment whose attempts are not in memory, if the memory has enough space. */
  private loadNextSegment(): void {
    const segment = this.spilled[0];
    const space = this.parts.maxMemoryRecords / 2 - (this.heldInMemory - this.spilling);
    const hasSpace = space >= limits.segmentRecords || this.heldInMemory === 0;
    if (!segment || segment.isBusy || this.isLoading || this.isClosed || !hasSpace) return;
    this.isLoading = true;
    this.spilled.shift();
    const loaded = this.read(segment).finally(() => {
      this.isLoading = false;
      this.loadNextSegment();
      this.onReady();
    });
    this.track(loaded);
  }

  private async read(segment: Segment): Promise<void> {
    const { disk } = this.parts;
    try {
      await disk?.seal(segment);
      const { contents, damaged } = await segment.read();
      segment.isSpilled = false;
      segment.unacknowledged = contents.length;
      for (const content of contents) {
        this.heldInMemory++;
        this.ready.add({ content, number: 0, segment, isAcknowledged: false, isSpilled: false });
      }
      if (damaged > 0) this.parts.warnings.lost(segment.path, `${segment.path} is damaged in ${damaged} places`);
      this.settle(segment);
    } catch (error) {
      disk?.forget(segment);
      this.parts.warnings.diskFailed(error);
    }
  }

  private adoptAfter(ms: number): void {
    this.cancelAdoption = this.parts.clock.after(ms, () => {
      const adopted = this.adopt().finally(() => {
        if (!this.isClosed) this.adoptAfter(ADOPT_MS);
      });
      this.track(adopted);
    });
  }

  private async adopt(): Promise<void> {
    try {
      this.spilled.push(...((await this.parts.disk?.adopt()) ?? []));
      this.loadNextSegment();
    } catch (error) {
      this.parts.warnings.diskFailed(error);
    }
  }

  private resolveWaiters(): void {
    if (this.waiters.length === 0) return;
    const oldest = this.parts.disk
      ? this.oldestNumber(this.unwritten)
      : this.heldInMemory > 0
        ? 0
        : Number.POSITIVE_INFINITY;
    const isStuck = this.parts.disk === undefined || this.writeError !== undefined;
    this.waiters = this.waiters.filter(({ upTo, resolve }) => {
      if (oldest > upTo) resolve(true);
      else if (isStuck) resolve(false);
      else return true;
      return false;
    });
  }

  private oldestNumber(entries: ReadonlySet<Entry>): number {
    for (const { number } of entries) return number;
    return Number.POSITIVE_INFINITY;
  }
}
