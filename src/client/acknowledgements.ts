import type { AckBatcher } from './ack_batcher.js';
import type { Connection } from './connection.js';

/** Random delay, so that the processes that receive a change do not acknowledge it simultaneously. */
const JITTER_MS = { min: 50, max: 300 };
/** Minimum time between two acknowledgements. */
const PAUSE_MS = 1_000;
/** Minimum time before the acknowledgement of a revision that contains nothing for this process. */
const QUIET_PAUSE_MS = 10_000;
const CALL_MS = 5_000;
const LAST_CALL_MS = 1_000;

/** Acknowledges applied revisions in the background. A failed acknowledgement has no effect on the client. */
export class Acknowledger {
  private applied = 0n;
  private acknowledged = 0n;
  private sentAt = Number.NEGATIVE_INFINITY;
  /** The number of restarts. */
  private stream = 0;
  private timer: NodeJS.Timeout | undefined;
  /** When the timer fires, in ms of `performance.now()`. */
  private due = 0;

  constructor(
    private readonly connection: Connection,
    private readonly clientId: string,
    private readonly batcher: AckBatcher,
  ) {}

  /**
   * Acknowledges the applied revision again, because a new stream may be on a replica that does not know this process.
   */
  restart(): void {
    this.stream++;
    this.acknowledged = 0n;
    this.sentAt = Number.NEGATIVE_INFINITY;
  }

  /** Schedules an acknowledgement. @param quiet the revision contains nothing for this process. */
  apply(revision: bigint, quiet: boolean): void {
    this.applied = revision;
    if (revision === this.acknowledged) return;
    const jitter = JITTER_MS.min + Math.random() * (JITTER_MS.max - JITTER_MS.min);
    const now = performance.now();
    const due = Math.max(now + jitter, this.sentAt + (quiet ? QUIET_PAUSE_MS : PAUSE_MS));
    if (this.timer && this.due <= due) return;
    clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(() => void this.send(CALL_MS), due - now).unref();
  }

  /** Sends the last acknowledgement; resolves when it was received, or after 1 s. */
  async end(): Promise<void> {
    clearTimeout(this.timer);
    if (this.applied !== this.acknowledged) await this.send(LAST_CALL_MS);
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.batcher.leave(this.connection);
  }

  private async send(ms: number): Promise<void> {
    this.timer = undefined;
    const { applied: revision, stream } = this;
    this.sentAt = performance.now();
    try {
      await this.batcher.send(this.connection, { client_id: this.clientId, revision }, ms);
      // The replica of a newer stream may not know this acknowledgement.
      if (stream === this.stream) this.acknowledged = revision;
    } catch {
      // The next acknowledgement includes this revision.
    }
  }
}
