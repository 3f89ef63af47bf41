import type { AckBatcher } from './ack_batcher.js';
import type { Connection } from './connection.js';

/** A random time before the first one of several, so that all processes that heard of a change do not tell at once. */
const FIRST_MS = { least: 50, most: 300 };
/** Between two acknowledgements of changes, and of revisions with nothing in them for this process. */
const PAUSE_MS = 1_000;
const QUIET_PAUSE_MS = 10_000;
const CALL_MS = 5_000;
const LAST_CALL_MS = 1_000;

/** Tells the service what was applied, in the background: it delays and fails nothing. */
export class Acknowledger {
  private applied = 0n;
  private told = 0n;
  private toldAt = Number.NEGATIVE_INFINITY;
  private timer: NodeJS.Timeout | undefined;
  /** When the timer ends, in ms of `performance.now()`. */
  private due = 0;

  constructor(
    private readonly connection: Connection,
    private readonly clientId: string,
    private readonly outbox: AckBatcher,
  ) {}

  /** A stream begins, perhaps on a replica that knows nothing of this process: what was told is told again. */
  restart(): void {
    this.told = 0n;
    this.toldAt = Number.NEGATIVE_INFINITY;
  }

  /** @param quiet nothing in it is for this process. */
  apply(revision: bigint, quiet: boolean): void {
    this.applied = revision;
    if (revision === this.told) return;
    const jitter = FIRST_MS.least + Math.random() * (FIRST_MS.most - FIRST_MS.least);
    const now = performance.now();
    const due = Math.max(now + jitter, this.toldAt + (quiet ? QUIET_PAUSE_MS : PAUSE_MS));
    if (this.timer && this.due <= due) return;
    clearTimeout(this.timer);
    this.due = due;
    this.timer = setTimeout(() => void this.tell(CALL_MS), due - now).unref();
  }

  /** Tells it once more and no later; resolves when that is done or has taken too long. */
  async end(): Promise<void> {
    clearTimeout(this.timer);
    if (this.applied !== this.told) await this.tell(LAST_CALL_MS);
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.outbox.leave(this.connection);
  }

  private async tell(ms: number): Promise<void> {
    this.timer = undefined;
    const revision = this.applied;
    this.toldAt = performance.now();
    try {
      await this.outbox.send(this.connection, { client_id: this.clientId, revision }, ms);
      this.told = revision;
    } catch {
      // The next one says all that this one would have said.
    }
  }
}
