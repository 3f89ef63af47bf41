import { randomUUID } from 'node:crypto';
import type { WatchStarted } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { onAbort } from '../abort.js';
import { limits } from '../limits.js';
import type { AckBatcher } from './ack_batcher.js';
import { Acknowledger } from './acknowledgements.js';
import type { WatchedResidentAgent } from './agent.js';
import { type Change, Changes } from './change.js';
import type { Connection } from './connection.js';
import { AgentLLMError } from './error.js';
import { Events, type ListenOptions } from './events.js';
import { LeaseManager } from './lease_manager.js';
import { nothingHeld, notWatched } from './resolution.js';
import { type Pin, PinnedRun, type Run, type RunSource } from './run.js';
import { type CacheOptions, SnapshotCache } from './snapshot_cache.js';
import type { ClientState, Status } from './state.js';
import { type Batch, View } from './view.js';
import type { ClientWarning } from './warning.js';
import { type WatchObserver, WatchStream } from './watch_stream.js';
import { WatchedHandle } from './watched_agent.js';

/** What a resident client tells of. */
export interface ClientEvents {
  /** The status has changed. */
  readonly state: ClientState;
  /** Something that is held is different. */
  readonly change: Change;
  /** Something that somebody should know of; `warnings` has the last ones. */
  readonly warning: ClientWarning;
}

/** What a resident client is made of. */
export interface ResidentSettings {
  readonly agents: readonly string[] | 'all';
  readonly clientName: string;
  readonly clientVersion: string;
  readonly cache: CacheOptions | undefined;
  readonly leaseMs: number;
}

/** What it works with. */
export interface ResidentParts {
  /** For the stream; keeps no process alive. */
  readonly connection: Connection;
  /** For calls that somebody waits for. */
  readonly calls: Connection;
  readonly outbox: AckBatcher;
}

const METHOD = 'agentllm.v1.AgentLLMConfigWatchService/WatchConfigs';
const MOST_WARNINGS = 20;
const ALIVE_MS = 10_000;

/** Holds what the stream brings, and everything that is asked of it. */
export class Resident implements WatchObserver, RunSource {
  readonly clientId = randomUUID();
  readonly warnings: ClientWarning[] = [];
  readonly leases: LeaseManager;
  token = '';
  least = 0n;

  private held: View | undefined;
  private status: Status = 'CONNECTING';
  private since = new Date();
  /** When everything was known to be the newest for the last time. */
  private freshUntil = new Date();
  private error: AgentLLMError | undefined;
  private replica = '';
  /** The newest revision of the service when the stream began. */
  private target = 0n;
  private closing: Promise<void> | undefined;

  private readonly connection: Connection;
  private readonly names: ReadonlySet<string> | undefined;
  private readonly events = new Events<ClientEvents>((error, event) => this.listenerFailed(error, event));
  private readonly handles = new Map<string, WatchedResidentAgent>();
  private readonly readers = new Set<Changes>();
  private readonly runs = new Set<WeakRef<PinnedRun>>();
  private readonly refs = new WeakMap<PinnedRun, WeakRef<PinnedRun>>();
  /** Runs that nobody has ended and nobody has any more. */
  private readonly lost = new FinalizationRegistry<WeakRef<PinnedRun>>((ref) => this.runs.delete(ref));
  private readonly keeper: SnapshotCache | undefined;
  private readonly acknowledger: Acknowledger;
  private readonly follow: WatchStream;
  private retirement: NodeJS.Timeout | undefined;

  constructor({ connection, calls, outbox }: ResidentParts, settings: ResidentSettings) {
    const { agents, clientName, clientVersion, cache, leaseMs: lifetimeMs } = settings;
    const warn = this.warn.bind(this);
    // Of a store that may be another one no revision is waited for.
    const revision = () => (this.token === '' ? this.least : this.view.revision);
    this.connection = connection;
    this.leases = new LeaseManager({ calls, stream: connection, lifetimeMs, revision, warn });
    this.names = agents === 'all' ? undefined : new Set(agents);
    this.keeper = cache && new SnapshotCache(cache, agents, warn);
    this.load();
    this.acknowledger = new Acknowledger(connection, this.clientId, outbox);
    const refs = agents === 'all' ? [] : agents.map((name) => ({ name }));
    const who = { client_id: this.clientId, client_name: clientName, client_version: clientVersion };
    this.follow = new WatchStream(connection, { agents: refs, all_agents: agents === 'all', ...who }, this);
  }

  // What is asked of it.

  get state(): ClientState {
    const { status, since, error, replica } = this;
    return { status, since, revision: this.held?.revision ?? 0n, error, replica };
  }

  get current(): View | undefined {
    return this.held;
  }

  get view(): View {
    if (!this.held) throw nothingHeld(this.error);
    return this.held;
  }

  agent(name: string): WatchedResidentAgent {
    const known = this.handles.get(name);
    if (known) return known;
    this.check(name);
    const handle = new WatchedHandle(name, this);
    // Whoever asks for names that nobody has does not fill the memory with them.
    if (this.names || this.held?.agent(name)) this.handles.set(name, handle);
    return handle;
  }

  check(name: string): void {
    if (typeof name !== 'string' || name === '' || (this.names && !this.names.has(name))) throw notWatched(name);
  }

  on<E extends keyof ClientEvents>(event: E, listener: (value: ClientEvents[E]) => unknown, options?: ListenOptions) {
    return this.events.on(event, listener, options);
  }

  changes({ signal }: ListenOptions = {}): Changes {
    const reader = new Changes((one) => this.readers.delete(one), signal);
    if (this.closing) reader.end();
    else if (!signal?.aborted) this.readers.add(reader);
    return reader;
  }

  run(pin: Pin): Run {
    const run = new PinnedRun(pin, this);
    const ref = new WeakRef(run);
    this.runs.add(ref);
    this.refs.set(run, ref);
    this.lost.register(run, ref, run);
    return run as PinnedRun & Run;
  }

  forget(run: PinnedRun): void {
    const ref = this.refs.get(run);
    if (ref) this.runs.delete(ref);
    this.lost.unregister(run);
  }

  failed(error: unknown): void {
    this.listenerFailed(error, 'moved');
  }

  /** Resolves when there is something to resolve from. Waiting for it keeps the process alive. */
  ready(address: string, ms: number, { signal }: ListenOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      const refuse = (message: string, cause: unknown, code: 'UNAVAILABLE' | 'CANCELLED') =>
        reject(AgentLLMError.here(message, { code, method: METHOD, cause }));
      const settle = (act: () => void) => {
        clearTimeout(timer);
        off();
        release();
        act();
      };
      const look = () => {
        if (this.held) settle(resolve);
        else if (this.status === 'FAILED') settle(() => reject(this.error));
      };
      const late = () => {
        const why = this.error?.message ?? 'it has not answered';
        settle(() => refuse(`No service is ready at ${address} within ${ms} ms: ${why}`, this.error, 'UNAVAILABLE'));
      };
      const timer = setTimeout(late, Math.min(ms, limits.maxTimerMs));
      const off = this.on('state', look);
      let release = () => {};
      release = onAbort(signal, () => settle(() => refuse('The caller aborted the wait', signal?.reason, 'CANCELLED')));
      if (!signal?.aborted) look();
    });
  }

  /** Ends the stream, with a last acknowledgement, and writes the file. */
  close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  // What the stream brings.

  started({ replica }: WatchStarted, newest: bigint): void {
    this.replica = replica;
    this.target = newest;
    this.acknowledger.restart();
  }

  batch(batch: Batch): void {
    const before = this.held;
    // Each comes once; one that did come again would take back what came since.
    if (before && !batch.snapshot && batch.revision <= before.revision) return;
    const { view, change } = (before ?? View.empty()).apply(batch);
    const gap = batch.snapshot && before !== undefined;
    this.take(view);
    this.leases.changed(batch, view);
    if (gap || change.urgent) this.pierce(change, gap || batch.catalogue.some(({ urgent }) => urgent), batch);
    this.acknowledger.apply(view.revision, false);
    this.keeper?.save(view);
    if (change.catalogue) this.awaitRetirement();
    if (view.revision >= this.target) this.become('READY', undefined);
    this.tell(change);
  }

  bookmark(revision: bigint, token: string): void {
    const { held } = this;
    if (!held || revision < held.revision) return;
    if (revision > held.revision || token !== held.token) this.take(held.at(revision, token));
    this.acknowledger.apply(revision, true);
    // A stream that still catches up gives signs of life, too.
    if (revision < this.target) return;
    this.keeper?.refresh(this.view);
    this.become('READY', undefined);
  }

  broken(error: AgentLLMError, lasting: boolean): void {
    this.become(lasting ? 'FAILED' : this.held ? 'STALE' : 'CONNECTING', error);
  }

  startOver(sameStore: boolean): void {
    const { held } = this;
    // Nor may what is held, or kept in the file, bring it back.
    if (held) this.take(held.at(held.revision, ''));
    this.token = '';
    if (!sameStore) this.leases.clear();
    this.least = sameStore && held ? held.revision : 0n;
  }

  // How it does so.

  private load(): void {
    const kept = this.keeper?.load();
    if (!kept) return;
    this.take(kept.view);
    this.awaitRetirement();
    this.status = 'STALE';
    this.since = kept.savedAt;
    this.freshUntil = kept.savedAt;
  }

  private take(view: View): void {
    this.held = view;
    this.token = view.token;
  }

  private become(status: Status, error: AgentLLMError | undefined): void {
    const { status: before } = this;
    this.error = error;
    if (this.closing && status !== 'STALE' && status !== 'FAILED') return;
    if (status === before) return;
    const now = new Date();
    if (before === 'READY') this.freshUntil = now;
    this.status = status;
    this.since = status === 'STALE' ? this.freshUntil : now;
    this.events.emit('state', this.state);
  }

  /** Moves the runs that must not go on with what they are pinned to. */
  private pierce(change: Change, all: boolean, { agents }: Batch): void {
    const urgent = all ? undefined : agents.filter((agent) => agent.urgent).map(({ name }) => name);
    for (const ref of this.runs) ref.deref()?.hear(change, urgent);
  }

  private tell(change: Change): void {
    for (const reader of this.readers) reader.push(change);
    this.events.emit('change', change);
  }

  /** A model that is switched off on a day changes what is to be said of it, with no change in the store. */
  private awaitRetirement(): void {
    clearTimeout(this.retirement);
    const at = this.held?.catalogue.nextRetirement(new Date());
    if (!at) return;
    const due = () => {
      if (this.held && at <= new Date()) {
        this.take(this.held.renewed());
        const { revision } = this.view;
        const nothing = { agents: [], urgent: false, cause: undefined, snapshot: false, merged: 1 };
        this.tell({ revision, catalogue: true, ...nothing });
      }
      this.awaitRetirement();
    };
    this.retirement = setTimeout(due, Math.min(at.getTime() - Date.now() + 1, limits.maxTimerMs)).unref();
  }

  private warn(kind: ClientWarning['kind'], message: string, cause: unknown): void {
    const warning = { kind, message, cause, at: new Date() };
    this.warnings.push(warning);
    if (this.warnings.length > MOST_WARNINGS) this.warnings.shift();
    // What is found within connect() finds its listeners when the caller has them.
    setImmediate(() => this.events.emit('warning', warning)).unref();
  }

  private listenerFailed(error: unknown, event: string): void {
    // A listener of warnings that fails would be told of its own failure without end.
    if (event === 'warning') return;
    const why = error instanceof Error ? error.message : String(error);
    this.warn('LISTENER_FAILED', `A listener of '${event}' failed: ${why}`, error);
  }

  private async end(): Promise<void> {
    // Nothing else of a stream keeps the process alive, and who closes it waits for this.
    const alive = setInterval(() => {}, ALIVE_MS);
    try {
      await this.endAll();
    } finally {
      clearInterval(alive);
    }
  }

  private async endAll(): Promise<void> {
    this.leases.close();
    if (this.status === 'READY') {
      // With the time of now: it is known to be the newest.
      this.keeper?.save(this.view);
      await this.acknowledger.end();
    }
    this.acknowledger.stop();
    await this.follow.close();
    clearTimeout(this.retirement);
    const closed = AgentLLMError.here('This client was closed', { code: 'CANCELLED', method: METHOD });
    this.become(this.held ? 'STALE' : 'FAILED', closed);
    for (const reader of [...this.readers]) reader.end();
    await this.keeper?.flush();
    await this.connection.close();
  }
}
