import { setTimeout as sleep } from 'node:timers/promises';
import { ConcurrencyLimiter } from '../concurrency_limiter.js';
import type { State } from '../domain/state.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { databaseFailure } from '../store/failure.js';
import type { CommittedRevision, Follower } from '../store/replica_state.js';
import type { Store } from '../store/store.js';
import { inSlices, timeSlice } from '../time_slice.js';
import { type AgentMaterial, type CatalogueMaterial, type ChangeEvent, changeEventOf } from './change_event.js';
import type { Filter } from './filter.js';
import { LiveIndex } from './live_index.js';
import { Replay } from './replay.js';
import { Ring } from './ring.js';
import { agentsFor, catalogueOf } from './snapshot.js';
import { type MessageEncoder, type Sink, type Snapshot, Watch, type WatcherIdentity } from './watch.js';

/** A revision, and by which nonce it is known. */
export interface ResumePosition {
  readonly revision: number;
  readonly nonce: string;
}

/** How the sweep goes through the watches: one in a second. */
const SWEEP_MS = 1_000;
/** How long a watch that needs the log waits for a database that is away. */
const DATABASE_PAUSE_MS = 200;

/**
 * All watches of this replica. New revisions go into the ring, once, and to the streams that have caught up and that
 * they concern; every other stream comes by at its own pace and reads the ring, or the log through one shared reader.
 * So a stream that is not read costs its cursor and the one message that waits in its transport.
 */
export class Watches {
  private readonly watches = new Set<Watch>();
  /** Of watches that are to be opened, and wait. */
  private readonly openings = new Set<Sink>();
  /** Counts both. */
  private readonly limiter = new ConcurrencyLimiter({ total: () => limits.maxWatches });
  private readonly byClient = new Map<string, Watch>();
  private readonly live = new LiveIndex();
  private readonly ring = new Ring();
  private readonly replay: Replay;
  private taken: { state: State; version: number; moments: readonly CatalogueMaterial[] } | undefined;
  /** The agents of the newest snapshot, for the streams that begin at the same revision. */
  private listed: { state: State; revision: number; mark: string; agents: readonly AgentMaterial[] } | undefined;
  private sweep: NodeJS.Timeout | undefined;
  private readonly unfollow: () => void;
  /** What new streams hear, once there are to be none. */
  private closed: (() => ServiceError) | undefined;

  constructor(
    private readonly store: Store,
    private readonly frames: MessageEncoder,
    /** Notified of each revision before it is delivered. */
    private readonly beforeDelivery: Follower,
  ) {
    this.replay = new Replay(store);
    this.unfollow = store.follow({ applied: (made) => this.applied(made), replaced: () => this.replaced() });
    this.scheduleSweep();
  }

  get count(): number {
    return this.watches.size;
  }

  /** Those that have not been given everything yet. */
  get behind(): number {
    let behind = 0;
    for (const { live } of this.watches) if (!live) behind++;
    return behind;
  }

  /** The newest stream of a process. */
  ofClient(clientId: string): Watch | undefined {
    return this.byClient.get(clientId);
  }

  get every(): Iterable<Watch> {
    return this.watches;
  }

  /** What a revision touched, from the ring or the log. */
  entryAt(revision: number): ChangeEvent | Promise<ChangeEvent> {
    return this.ring.at(revision) ?? this.replay.at(revision);
  }

  /**
   * Keeps room for a watch that is to be opened on a stream; throws when there is none. It counts as one until it is
   * opened, or released by what is returned, and ends like one when there are to be none.
   */
  reserve(sink: Sink): () => void {
    this.checkOpen();
    this.limiter.enter(undefined, tooManyWatches);
    this.openings.add(sink);
    return () => {
      if (this.openings.delete(sink)) this.limiter.leave();
    };
  }

  /**
   * Begins a watch: with a snapshot, or behind a revision that the caller has checked.
   * It goes on by itself until its stream is closed.
   */
  open(filter: Filter, who: WatcherIdentity, sink: Sink, resumeAt?: ResumePosition): Watch {
    this.checkOpen();
    // A watch that was reserved is counted already.
    if (!this.openings.delete(sink)) this.limiter.enter(undefined, tooManyWatches);
    const watch = new Watch(filter, who, sink);
    this.watches.add(watch);
    this.byClient.set(who.client_id, watch);
    sink.onClose(() => this.forget(watch));
    Object.assign(watch, { cursor: resumeAt?.revision ?? 0, nonce: resumeAt?.nonce ?? '' });
    // Who goes on behind a revision says that it has applied it.
    watch.applied = resumeAt?.revision;
    void this.run(watch, resumeAt !== undefined);
    return watch;
  }

  /** Ends every watch, and those that come later, each with an error of its own. */
  close(why: () => ServiceError): void {
    this.closed = why;
    clearTimeout(this.sweep);
    this.unfollow();
    for (const watch of [...this.watches]) this.end(watch, why());
    for (const sink of this.openings) sink.end(why());
  }

  private checkOpen(): void {
    if (this.closed) throw this.closed();
  }

  private async run(watch: Watch, resumed: boolean): Promise<void> {
    try {
      if (timeSlice.isSpent) await timeSlice.next();
      if (watch.sink.closed) return;
      const snapshot = resumed ? undefined : this.snapshotFor(watch.filter);
      // A snapshot is at the newest revision: nothing has happened since it was taken.
      await watch.send(this.frames.started(watch.who, resumed, this.store.state.revision));
      if (snapshot) await this.sendSnapshot(watch, snapshot);
      await this.catchUp(watch);
      // The first sign that everything is there; a snapshot says so by its end.
      if (watch.live && (!snapshot || watch.cursor !== snapshot.revision)) this.bookmark(watch);
    } catch (error) {
      this.end(watch, error);
    }
  }

  private async sendSnapshot(watch: Watch, snapshot: Snapshot): Promise<void> {
    const { sink, filter } = watch;
    for await (const frame of inSlices(this.frames.snapshot(snapshot, filter), () => sink.closed))
      await watch.send(frame);
    if (sink.closed) return;
    watch.cursor = snapshot.revision;
    watch.nonce = snapshot.nonce;
    watch.sent = snapshot.revision;
  }

  /** Hands over revision after revision, as fast as they are taken, until there are no more. */
  private async catchUp(watch: Watch): Promise<void> {
    const isOver = () => watch.sink.closed;
    while (!isOver()) {
      if (timeSlice.isSpent) await timeSlice.next();
      if (isOver()) return;
      if (watch.cursor >= this.store.state.revision) {
        this.live.add(watch);
        return;
      }
      const entry = this.ring.at(watch.cursor + 1) ?? (await this.fromLog(watch.cursor + 1));
      if (!entry) continue;
      for await (const frame of inSlices(this.frames.entry(entry, watch.filter), isOver)) {
        watch.sent = entry.revision;
        await watch.send(frame);
      }
      watch.cursor = entry.revision;
      watch.nonce = entry.nonce;
    }
  }

  /** While the database is away, who needs the log waits. */
  private async fromLog(revision: number): Promise<ChangeEvent | undefined> {
    try {
      return await this.replay.at(revision);
    } catch (error) {
      if (!isAway(error)) throw error;
      await sleep(DATABASE_PAUSE_MS, undefined, { ref: false });
      return undefined;
    }
  }

  private applied(made: CommittedRevision): void {
    this.beforeDelivery.applied(made);
    let entry: ChangeEvent;
    try {
      entry = changeEventOf(this.store.state, made);
    } catch (error) {
      // Who has caught up has no cursor: to go on without this revision would be to leave it out in silence.
      for (const watch of [...this.watches]) this.end(watch, error);
      return;
    }
    this.ring.push(entry);
    for (const watch of this.live.concernedBy(entry)) {
      try {
        // The others read it from the ring, each when it has its turn.
        if (timeSlice.isSpent) this.fallBehind(watch, entry.revision - 1, '', timeSlice.next());
        else this.deliver(watch, entry);
      } catch (error) {
        this.end(watch, error);
      }
    }
  }

  private deliver(watch: Watch, entry: ChangeEvent): void {
    const frames = this.frames.entry(entry, watch.filter);
    watch.sent = entry.revision;
    // What takes several messages is handed over as it is taken, or a big write would wait whole in every stream.
    if (frames.length > 1) this.fallBehind(watch, entry.revision - 1, entry.nonce, Promise.resolve());
    else if (!watch.write(frames[0] as Buffer))
      this.fallBehind(watch, entry.revision, entry.nonce, watch.sink.drained());
  }

  /** Takes a watch out of those that are served at once; it comes back when it has caught up. */
  private fallBehind(watch: Watch, cursor: number, nonce: string, room: Promise<void>): void {
    this.live.remove(watch);
    watch.cursor = cursor;
    // A place to go on from only when the whole of the revision has been handed over.
    watch.nonce = cursor === this.store.state.revision ? nonce : '';
    room.then(() => this.catchUp(watch)).catch((error) => this.end(watch, error));
  }

  /** The state was read anew. Only a store that was put back or renewed is; its numbers mean something else. */
  private replaced(): void {
    this.beforeDelivery.replaced();
    this.ring.clear();
    this.replay.clear();
    for (const watch of [...this.watches]) this.end(watch, ServiceError.of('STORE_CHANGED', {}));
  }

  /** One look after the other, however long one takes. */
  private scheduleSweep(): void {
    if (this.closed) return;
    this.sweep = setTimeout(() => void this.look().finally(() => this.scheduleSweep()), SWEEP_MS).unref();
  }

  private async look(): Promise<void> {
    for await (const watch of inSlices([...this.watches], () => this.closed !== undefined)) {
      if (watch.sink.closed) continue;
      const now = performance.now();
      const { waitingSince } = watch.sink;
      if (waitingSince !== undefined && now - waitingSince > limits.slowConsumerMs)
        this.end(watch, ServiceError.of('SLOW_CONSUMER', { seconds: `${limits.slowConsumerMs / 1000}` }));
      else if (now - watch.lastWrite >= limits.bookmarkMs) this.signOfLife(watch);
    }
  }

  /** Also for who is far behind, or waits for the database: a stream that says nothing is given up as dead. */
  private signOfLife(watch: Watch): void {
    if (watch.live) this.bookmark(watch);
    else if (watch.sink.waitingSince === undefined && watch.nonce !== '')
      watch.write(this.frames.bookmark(watch.cursor, watch.nonce, watch.filter));
  }

  private bookmark(watch: Watch): void {
    const { revision, nonce } = this.store.state;
    if (!watch.write(this.frames.bookmark(revision, nonce, watch.filter)))
      this.fallBehind(watch, revision, nonce, watch.sink.drained());
  }

  private end(watch: Watch, thrown: unknown): void {
    this.forget(watch);
    watch.sink.end(thrown);
  }

  private forget(watch: Watch): void {
    this.live.remove(watch);
    if (this.watches.delete(watch)) this.limiter.leave();
    if (this.byClient.get(watch.who.client_id) === watch) this.byClient.delete(watch.who.client_id);
  }

  /** Everything at this moment. Rows are only replaced, so what is taken down here stays true of it. */
  private snapshotFor(filter: Filter): Snapshot {
    const { state } = this.store;
    const { revision, nonce } = state;
    return { revision, nonce, agents: this.agentsOf(filter), catalogue: this.catalogue() };
  }

  /** The same list for all streams with the same filter that begin at a revision. */
  private agentsOf(filter: Filter): readonly AgentMaterial[] {
    const { state } = this.store;
    const { revision } = state;
    const { listed } = this;
    if (listed?.state === state && listed.revision === revision && listed.mark === filter.mark) return listed.agents;
    const agents = agentsFor(state, filter);
    this.listed = { state, revision, mark: filter.mark, agents };
    return agents;
  }

  /** The same list for as long as the catalogue stands: what is encoded of it serves all who begin. */
  private catalogue(): readonly CatalogueMaterial[] {
    const { state } = this.store;
    const { catalogueVersion: version } = state;
    if (this.taken?.state !== state || this.taken.version !== version)
      this.taken = { state, version, moments: catalogueOf(state) };
    return this.taken.moments;
  }
}

const tooManyWatches = (_: number, total: number) => ServiceError.of('TOO_MANY_WATCHES', { watches: String(total) });

const isAway = (error: unknown): boolean => {
  const failure = databaseFailure(error);
  return failure instanceof ServiceError && failure.reason === 'DATABASE_UNAVAILABLE';
};
