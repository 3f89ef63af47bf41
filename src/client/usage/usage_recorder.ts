import type { Receipt } from '../../../gen/ts/agentllm/v1/receipt.js';
import { backgroundClock, type Clock } from '../runtime/clock.js';
import type { Warn } from '../warning.js';
import { flushAtExit } from './exit_flush.js';
import { Spool } from './spool.js';
import { SpoolDisk } from './spool_disk.js';
import { SpoolWarnings } from './spool_warnings.js';
import type { SpoolSettings } from './usage_options.js';
import { UsageSender } from './usage_sender.js';
import type { UsageSpool, UsageStats } from './usage_spool.js';
import type { OpenStream } from './usage_stream.js';

interface RecorderParts {
  readonly open: OpenStream;
  readonly warn: Warn;
  readonly clock?: Clock;
}

/** Records the usage of one client: adds its receipts to the spool and sends the spool to the service. */
export class UsageRecorder implements UsageSpool {
  private readonly spool: Spool;
  private readonly sender: UsageSender;
  private readonly clock: Clock;
  private forgetExit = () => {};

  constructor(
    private readonly settings: SpoolSettings,
    { open, warn, clock = backgroundClock }: RecorderParts,
  ) {
    const { directory, maxDiskBytes, maxMemoryRecords } = settings;
    this.clock = clock;
    this.warnings = new SpoolWarnings(warn, clock, directory);
    const disk = directory === undefined ? undefined : new SpoolDisk(directory, maxDiskBytes);
    this.spool = new Spool({ maxMemoryRecords, disk, clock, warnings: this.warnings });
    this.sender = new UsageSender({ spool: this.spool, open, clock, warnings: this.warnings });
  }

  private readonly warnings: SpoolWarnings;

  /** Never waits and never throws. */
  record(receipt: Receipt): void {
    if (receipt.attempts.length > 0) this.forgetExit = flushAtExit(this);
    this.spool.record(receipt);
  }

  stats(): UsageStats {
    const { spool, sender } = this;
    const { recorded, dropped, inMemory, unkept, diskBytes } = spool;
    const { acknowledged, rejected, error } = sender;
    return { recorded, acknowledged, rejected, dropped, inMemory, unkept, diskBytes, error };
  }

  sync(): Promise<boolean> {
    return this.spool.sync();
  }

  async flush(ms = this.settings.closeMs): Promise<boolean> {
    // The timers and connections of the client do not keep the process alive, but a caller waits for this flush.
    const keepAlive = setInterval(() => {}, KEEP_ALIVE_MS);
    try {
      return await this.sender.flush(ms);
    } finally {
      clearInterval(keepAlive);
    }
  }

  /**
   * Sends the remaining attempts for at most `closeMs`. If there is a directory, unacknowledged attempts stay on disk.
   */
  async close(): Promise<void> {
    this.forgetExit();
    await this.flush();
    this.sender.close();
    const { unkept } = this.spool;
    await this.within(this.spool.close());
    const lost = this.settings.directory === undefined ? unkept : this.spool.unkept;
    if (lost > 0) this.warnings.lost('close', `the client was closed before the service acknowledged ${lost} attempts`);
  }

  /** A disk that does not respond must not prevent the end of the process. */
  private within(work: Promise<void>): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.clock.after(DISK_MS, resolve);
      void work.finally(() => {
        cancel();
        resolve();
      });
    });
  }
}

const DISK_MS = 5_000;
const KEEP_ALIVE_MS = 10_000;
