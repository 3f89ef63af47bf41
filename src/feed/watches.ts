import { setTimeout as sleep } from 'node:timers/promises';
import { ConcurrencyLimiter } from '../concurrency_limiter.js';
import type { State } from '../domain/state.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { databaseFailure } from '../store/failure.js';
import type { CommittedRevision, RevisionListener } from '../store/replica_state.js';
import type { Store } from '../store/store.js';
import { inSlices, timeSlice } from '../time_slice.js';
import { type AgentMaterial, type CatalogueMaterial, type ChangeEvent, changeEventOf } from './change_event.js';
import type { Filter } from './filter.js';
import { LiveIndex } from './live_index.js';
import { Replay, readEvents } from './replay.js';
import { Ring } from './ring.js';
import { agentsFor, catalogueOf } from './snapshot.js';
import { type MessageEncoder, type Sink, type Snapshot, Watch, type WatcherIdentity } from './watch.js';

/** A revision and its nonce, which distinguishes it from the same number after a restore. */
export interface ResumePosition {
  readonly revision: number;
  readonly nonce: string;
}

/** Interval of the sweep over all watches. */
const SWEEP_MS = 1_000;
/** Delay before a watch that needs the change log retries while the database is unavailable. */
const DATABASE_RETRY_MS = 200;

/**
 * All watches of this replica. A new revision is stored once in the ring and written to the live streams that it
 * concerns. Every other stream reads the ring at its own pace, or the change log through one shared reader. So a client
 * that does not read uses memory only for its cursor and for one message that waits in its transport.
 */
export class Watches {
  private readonly watches = new Set<Watch>();
  /** Streams with a reserved watch that is not open yet. */
  private readonly reservations = new Set<Sink>();
  /** Counts watches and reservations. */
  private readonly limiter = new ConcurrencyLimiter({ total: () => limits.maxWatches });
  private readonly byClient = new Map<string, Watch>();
  private readonly live = new LiveIndex();
  private readonly ring = new Ring();
  private readonly replay: Replay;
  /** The catalogue of the newest snapshot. */
  private cachedCatalogue: { state: State; version: number; items: readonly CatalogueMaterial[] } | undefined;
  /** The agents of the newest snapshot, for streams that begin at the same revision. */
  private cachedAgents: { state: State; revision: number; hash: string; agents: readonly AgentMaterial[] } | undefined;
  private sweepTimer: NodeJS.Timeout | undefined;
  private readonly unsubscribe: () => void;
  /** Called when a watch has caught up. */
  onLive: (watch: Watch) => void = () => {};
  /** Creates the error of new streams; set once the service closes. */
  private closed: (() => ServiceError) | undefined;

  constructor(
    private readonly store: Store,
    private readonly encoder: MessageEncoder,
    /** Notified of each revision before it is delivered. */
    private readonly beforeDelivery: RevisionListener,
  ) {
    this.replay = new Replay((from) => readEvents(store, from));
    this.unsubscribe = store.subscribe({
      applied: (revision) => this.applied(revision),
      replaced: () => this.replaced(),
    });
    this.scheduleSweep();
  }

  get count(): number {
    return this.watches.size;
  }

  /** Number of watches that have not caught up. */
  get lagging(): number {
    let lagging = 0;
    for (const { live } of this.watches) if (!live) lagging++;
    return lagging;
  }

  /** The newest stream of a process. */
  ofClient(clientId: string): Watch | undefined {
    return this.byClient.get(clientId);
  }

  get every(): Iterable<Watch> {
    return this.watches;
  }

  /** The event of a revision, from the ring or the change log. */
  eventAt(revision: number): ChangeEvent | Promise<ChangeEvent> {
    return this.ring.at(revision) ?? this.replay.at(revision);
  }

  /**
   * Reserves a watch for a stream. The reservation counts as a watch until it is opened, or released with the returned
   * function. Its stream ends with the others in `close`.
   * @throws TOO_MANY_WATCHES when the limit is reached.
   */
  reserve(sink: Sink): () => void {
    this.checkOpen();
    this.limiter.enter(undefined, tooManyWatches);
    this.reservations.add(sink);
    return () => {
      if (this.reservations.delete(sink)) this.limiter.leave();
    };
  }

  /**
   * Starts a watch that runs until its stream is closed.
   * @param resumeAt a position that the caller has checked; undefined: start with a snapshot.
   */
  open(filter: Filter, watcher: WatcherIdentity, sink: Sink, resumeAt?: ResumePosition): Watch {
    this.checkOpen();
    // A reserved watch is already counted.
    if (!this.reservations.delete(sink)) this.limiter.enter(undefined, tooManyWatches);
    const watch = new Watch(filter, watcher, sink);
    this.watches.add(watch);
    this.byClient.set(watcher.client_id, watch);
    sink.onClose(() => this.remove(watch));
    watch.cursor = resumeAt?.revision ?? 0;
    // A client resumes after the last revision that it has applied.
    watch.applied = resumeAt?.revision;
    void this.run(watch, resumeAt);
    return watch;
  }

  /** Ends every watch, and each one that is opened later, with a new error from `errorOf`. */
  close(errorOf: () => ServiceError): void {
    this.closed = errorOf;
    clearTimeout(this.sweepTimer);
    this.unsubscribe();
    for (const watch of [...this.watches]) this.end(watch, errorOf());
    for (const sink of this.reservations) sink.end(errorOf());
  }

  private checkOpen(): void {
    if (this.closed) throw this.closed();
  }

  private async run(watch: Watch, resumeAt: ResumePosition | undefined): Promise<void> {
    try {
      if (timeSlice.isSpent) await timeSlice.next();
      if (watch.sink.closed) return;
      const snapshot = resumeAt ? undefined : this.snapshotFor(watch.filter);
      await watch.send(this.encoder.started(watch.watcher, resumeAt !== undefined, this.store.state.revision));
      // Set after the first message: a sweep sends no bookmark without a nonce, and `started` comes before any bookmark.
      watch.nonce = resumeAt?.nonce ?? '';
      if (snapshot) await this.sendSnapshot(watch, snapshot);
      await this.catchUp(watch);
      // The first bookmark after catching up. The last message of a snapshot already contains one.
      if (watch.live && (!snapshot || watch.cursor !== snapshot.revision)) this.bookmark(watch);
    } catch (error) {
      this.end(watch, error);
    }
  }

  private async sendSnapshot(watch: Watch, snapshot: Snapshot): Promise<void> {
    const { sink, filter } = watch;
    for await (const message of inSlices(this.encoder.snapshot(snapshot, filter), () => sink.closed))
      await watch.send(message);
    if (sink.closed) return;
    watch.cursor = snapshot.revision;
    watch.nonce = snapshot.nonce;
    watch.sent = snapshot.revision;
  }

  /** Writes the missing revisions as fast as the client reads them; then the watch becomes live. */
  private async catchUp(watch: Watch): Promise<void> {
    const isClosed = () => watch.sink.closed;
    while (!isClosed()) {
      if (timeSlice.isSpent) await timeSlice.next();
      if (isClosed()) return;
      if (watch.cursor >= this.store.state.revision) {
        this.live.add(watch);
        this.onLive(watch);
        return;
      }
      const event = this.ring.at(watch.cursor + 1) ?? (await this.fromLog(watch.cursor + 1));
      if (!event) continue;
      for await (const message of inSlices(this.encoder.changes(event, watch.filter), isClosed)) {
        watch.sent = event.revision;
        await watch.send(message);
      }
      watch.cursor = event.revision;
      watch.nonce = event.nonce;
    }
  }

  /** Reads one revision from the change log; undefined after a delay while the database is unavailable. */
  private async fromLog(revision: number): Promise<ChangeEvent | undefined> {
    try {
      return await this.replay.at(revision);
    } catch (error) {
      if (!isUnavailable(error)) throw error;
      await sleep(DATABASE_RETRY_MS, undefined, { ref: false });
      return undefined;
    }
  }

  private applied(revision: CommittedRevision): void {
    let event: ChangeEvent;
    try {
      this.beforeDelivery.applied?.(revision);
      event = changeEventOf(this.store.state, revision);
    } catch (error) {
      // A live watch has no cursor, so it would miss this revision without an error.
      for (const watch of [...this.watches]) this.end(watch, error);
      return;
    }
    this.ring.push(event);
    for (const watch of this.live.concernedBy(event)) {
      try {
        // When the time slice is spent, the remaining watches read the event from the ring later.
        if (timeSlice.isSpent) this.fallBehind(watch, event.revision - 1, '', timeSlice.next());
        else this.deliver(watch, event);
      } catch (error) {
        this.end(watch, error);
      }
    }
  }

  private deliver(watch: Watch, event: ChangeEvent): void {
    const messages = this.encoder.changes(event, watch.filter);
    watch.sent = event.revision;
    // Several messages are written as the client reads them. Otherwise every stream would buffer a large write
    // completely.
    if (messages.length > 1) this.fallBehind(watch, event.revision - 1, event.nonce, Promise.resolve());
    else if (!watch.write(messages[0] as Buffer))
      this.fallBehind(watch, event.revision, event.nonce, watch.sink.drained());
  }

  /** Removes a watch from the live ones; it becomes live again when it has caught up. */
  private fallBehind(watch: Watch, cursor: number, nonce: string, ready: Promise<void>): void {
    this.live.remove(watch);
    watch.cursor = cursor;
    // The watch can be resumed from the cursor only when that revision has been written completely.
    watch.nonce = cursor === this.store.state.revision ? nonce : '';
    ready.then(() => this.catchUp(watch)).catch((error) => this.end(watch, error));
  }

  /**
   * The state was reloaded: the store was restored or has a new identity, so its revision numbers have other contents.
   */
  private replaced(): void {
    this.ring.clear();
    this.replay.clear();
    this.cachedAgents = undefined;
    this.cachedCatalogue = undefined;
    try {
      this.beforeDelivery.replaced?.();
    } finally {
      for (const watch of [...this.watches]) this.end(watch, ServiceError.of('STORE_CHANGED', {}));
    }
  }

  /** The next sweep is scheduled when the previous one has ended. */
  private scheduleSweep(): void {
    if (this.closed) return;
    this.sweepTimer = setTimeout(() => void this.sweep().finally(() => this.scheduleSweep()), SWEEP_MS).unref();
  }

  private async sweep(): Promise<void> {
    for await (const watch of inSlices([...this.watches], () => this.closed !== undefined)) {
      if (watch.sink.closed) continue;
      const now = performance.now();
      const { waitingSince } = watch.sink;
      if (waitingSince !== undefined && now - waitingSince > limits.slowConsumerMs)
        this.end(watch, ServiceError.of('SLOW_CONSUMER', { seconds: `${limits.slowConsumerMs / 1000}` }));
      else if (now - watch.lastWrite >= limits.bookmarkMs) this.sendBookmark(watch);
    }
    if (this.lagging === 0) this.replay.clear();
  }

  /**
   * Bookmarks are also sent during a catch-up and a database outage, because clients close a stream without messages.
   */
  private sendBookmark(watch: Watch): void {
    if (watch.live) this.bookmark(watch);
    else if (watch.sink.waitingSince === undefined && watch.nonce !== '')
      watch.write(this.encoder.bookmark(watch.cursor, watch.nonce, watch.filter));
  }

  private bookmark(watch: Watch): void {
    const { revision, nonce } = this.store.state;
    this.sendLive(watch, this.encoder.bookmark(revision, nonce, watch.filter));
  }

  /** Writes a message to a live watch, which is at the newest revision. */
  sendLive(watch: Watch, bytes: Buffer): void {
    const { revision, nonce } = this.store.state;
    if (!watch.write(bytes)) this.fallBehind(watch, revision, nonce, watch.sink.drained());
  }

  private end(watch: Watch, thrown: unknown): void {
    this.remove(watch);
    watch.sink.end(thrown);
  }

  private remove(watch: Watch): void {
    this.live.remove(watch);
    if (this.watches.delete(watch)) this.limiter.leave();
    if (this.byClient.get(watch.watcher.client_id) === watch) this.byClient.delete(watch.watcher.client_id);
  }

  /** The state at the newest revision. Rows are replaced, never modified, so the snapshot stays consistent. */
  private snapshotFor(filter: Filter): Snapshot {
    const { state } = this.store;
    const { revision, nonce } = state;
    return { revision, nonce, agents: this.agentsOf(filter), catalogue: this.catalogue() };
  }

  /** Streams with the same filter that begin at the same revision share one list. */
  private agentsOf(filter: Filter): readonly AgentMaterial[] {
    const { state } = this.store;
    const { revision } = state;
    const { cachedAgents: cached } = this;
    if (cached?.state === state && cached.revision === revision && cached.hash === filter.hash) return cached.agents;
    const agents = agentsFor(state, filter);
    this.cachedAgents = { state, revision, hash: filter.hash, agents };
    return agents;
  }

  /** Streams share one list, and its encoded items, until the catalogue changes. */
  private catalogue(): readonly CatalogueMaterial[] {
    const { state } = this.store;
    const { catalogueVersion: version } = state;
    if (this.cachedCatalogue?.state !== state || this.cachedCatalogue.version !== version)
      this.cachedCatalogue = { state, version, items: catalogueOf(state) };
    return this.cachedCatalogue.items;
  }
}

const tooManyWatches = (count: number) => ServiceError.of('TOO_MANY_WATCHES', { watches: String(count) });

const isUnavailable = (error: unknown): boolean => {
  const failure = databaseFailure(error);
  return failure instanceof ServiceError && failure.reason === 'DATABASE_UNAVAILABLE';
};
