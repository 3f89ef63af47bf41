import { onAbort } from '../abort.js';
import { ServiceError } from '../errors.js';
import { databaseFailure } from '../store/failure.js';
import { type Listener, listen } from '../store/notifications.js';
import type { Store } from '../store/store.js';
import { catchUp } from '../store/write/change_log.js';
import { tryWrite } from '../store/write/revision_counter.js';

/**
 * Called when the database becomes unavailable or read-only, when a further cause of the outage appears, and when the
 * database accepts writes again.
 */
export type OnWritable = (writable: boolean, error?: unknown) => void;

/**
 * Keeps the store's state at the newest revision. It loads the state once and then reads the change log, which contains
 * the writes of all replicas. Reads are served from the state and continue while the database is unavailable.
 */
export class Feed {
  private timer: NodeJS.Timeout | undefined;
  private polling: Promise<void> | undefined;
  private closed = false;
  private writable = true;
  private listener: Listener | undefined;
  private readonly listeners: OnWritable[] = [];
  private readonly causes = new Set<string>();

  private constructor(
    private readonly store: Store,
    private readonly pollIntervalMs: number,
  ) {}

  /** Loads the configuration and starts to poll the change log. */
  static async start(store: Store, pollIntervalMs: number): Promise<Feed> {
    await catchUp(store);
    const feed = new Feed(store, pollIntervalMs);
    const { listenTarget } = store.database;
    if (listenTarget) feed.listener = listen(listenTarget, (writer) => feed.onNotification(writer));
    feed.schedule();
    return feed;
  }

  /** Whether the database was reachable and accepted writes at the last poll. */
  get isWritable(): boolean {
    return this.writable;
  }

  onWritable(listener: OnWritable): void {
    this.listeners.push(listener);
  }

  /** Polls the change log now; concurrent calls share one poll. Does nothing once the feed is closed. */
  async poll(): Promise<void> {
    if (this.closed) return;
    this.polling ??= this.pollOnce().finally(() => {
      this.polling = undefined;
    });
    await this.polling;
  }

  /** Polls after the write of another replica. A poll that is in progress may have read the head before that write. */
  private onNotification(writer: string | undefined): void {
    if (writer === this.store.replicaId) return;
    if (this.polling) void this.polling.then(() => this.poll());
    else void this.poll();
  }

  /** Resolves when the state has a revision; rejects when the signal aborts first. */
  async reached(revision: number | bigint, signal: AbortSignal): Promise<void> {
    if (this.store.state.revision >= revision) return;
    void this.poll();
    await new Promise<void>((resolve, reject) => {
      let release = () => {};
      const check = () => {
        if (this.store.state.revision < revision) return;
        unsubscribe();
        release();
        resolve();
      };
      const unsubscribe = this.store.subscribe({ applied: check, replaced: check });
      release = onAbort(signal, () => {
        unsubscribe();
        const metadata = { wanted: String(revision), reached: String(this.store.state.revision) };
        reject(ServiceError.of('REVISION_NOT_REACHED', metadata));
      });
    });
  }

  async close(): Promise<void> {
    this.closed = true;
    clearTimeout(this.timer);
    await this.listener?.close();
    await this.polling;
  }

  private async pollOnce(): Promise<void> {
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
    if (changed) for (const listener of this.listeners) listener(writable, error);
  }

  // The next poll starts after the previous one has ended. A jitter of ±5 % prevents replicas from
  // polling at the same time.
  private schedule(): void {
    if (this.closed) return;
    const delay = this.pollIntervalMs * (0.95 + Math.random() / 10);
    this.timer = setTimeout(() => void this.poll().then(() => this.schedule()), delay);
  }
}

/** The code from the database or the network that distinguishes causes. */
function causeOf(error: unknown): string {
  const { code } = (error instanceof Error && (error.cause ?? error)) as { code?: unknown };
  return typeof code === 'string' ? code : '';
}
