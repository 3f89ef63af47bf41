import { onAbort } from '../abort.js';
import { ServiceError } from '../errors.js';
import { databaseFailure } from '../store/failure.js';
import { type Listener, listen } from '../store/notifications.js';
import type { Store } from '../store/store.js';
import { catchUp } from '../store/write/change_log.js';
import { tryWrite } from '../store/write/revision_counter.js';

/**
 * Called when the database can no longer be reached or written to, when the cause of that is another one than any since
 * it began, and when it can again.
 */
export type OnWritable = (writable: boolean, error?: unknown) => void;

/**
 * Keeps the store's state at the newest revision: loads it once and then follows
 * the log, so that what other replicas write is seen here too. Reads are served
 * from the state and go on while the database is away.
 */
export class Feed {
  private timer: NodeJS.Timeout | undefined;
  private turn: Promise<void> | undefined;
  private closed = false;
  private writable = true;
  private listener: Listener | undefined;
  private readonly listeners: OnWritable[] = [];
  private readonly causes = new Set<string>();

  private constructor(
    private readonly store: Store,
    private readonly pollIntervalMs: number,
  ) {}

  /** Loads the configuration and begins to follow it. */
  static async start(store: Store, pollIntervalMs: number): Promise<Feed> {
    await catchUp(store);
    const feed = new Feed(store, pollIntervalMs);
    feed.schedule();
    const { listenUrl } = store.database;
    if (listenUrl !== undefined) feed.listener = listen(listenUrl, (writer) => feed.heard(writer));
    return feed;
  }

  /** Whether the database answered, and took writes, when it was last asked. */
  get isWritable(): boolean {
    return this.writable;
  }

  onWritable(hear: OnWritable): void {
    this.listeners.push(hear);
  }

  /** Looks at the log now; calls at the same time share one look. */
  poll(): Promise<void> {
    this.turn ??= this.look().finally(() => {
      this.turn = undefined;
    });
    return this.turn;
  }

  /** Looks after a write that was heard of, if it is not our own; a look that runs may have read the head before it. */
  private heard(writer: string | undefined): void {
    if (writer === this.store.mark) return;
    if (this.turn) void this.turn.then(() => this.poll());
    else void this.poll();
  }

  /** Resolves when the state has a revision; rejects when the signal aborts first. */
  async reached(revision: number | bigint, signal: AbortSignal): Promise<void> {
    if (this.store.state.revision >= revision) return;
    void this.poll();
    await new Promise<void>((resolve, reject) => {
      let release = () => {};
      const stop = this.store.onAdvance(() => {
        if (this.store.state.revision < revision) return;
        stop();
        release();
        resolve();
      });
      release = onAbort(signal, () => {
        stop();
        const metadata = { wanted: String(revision), reached: String(this.store.state.revision) };
        reject(ServiceError.of('REVISION_NOT_REACHED', metadata));
      });
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    clearTimeout(this.timer);
    await this.listener?.close();
    await this.turn;
  }

  private async look(): Promise<void> {
    try {
      await catchUp(this.store);
      if (this.store.writesFail) await tryWrite(this.store.database.knex);
      this.store.writesFail = false;
      this.report(true);
    } catch (error) {
      this.report(false, databaseFailure(error));
    }
  }

  /** Each cause is reported once for as long as the database stays unavailable, not at every poll. */
  private report(writable: boolean, error?: unknown): void {
    const cause = causeOf(error);
    const changed = writable !== this.writable || (!writable && !this.causes.has(cause));
    if (writable) this.causes.clear();
    else this.causes.add(cause);
    this.writable = writable;
    if (changed) for (const hear of this.listeners) hear(writable, error);
  }

  // One look after the other, never two at once, with a tenth of jitter so that replicas do not ask in step.
  private schedule(): void {
    if (this.closed) return;
    const delay = this.pollIntervalMs * (0.95 + Math.random() / 10);
    this.timer = setTimeout(() => void this.poll().then(() => this.schedule()), delay);
  }
}

/** By which causes are told apart: the code that the database or the network gave. */
function causeOf(error: unknown): string {
  const { code } = (error instanceof Error && (error.cause ?? error)) as { code?: unknown };
  return typeof code === 'string' ? code : '';
}
