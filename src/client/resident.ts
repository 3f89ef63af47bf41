import { randomUUID } from 'node:crypto';
import type { WatchStarted } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { BudgetState } from '../../gen/ts/agentllm/v1/budget.js';
import type { Receipt } from '../../gen/ts/agentllm/v1/receipt.js';
import { onAbort } from '../abort.js';
import { errorMessage } from '../error_properties.js';
import { limits } from '../limits.js';
import type { AckBatcher } from './ack_batcher.js';
import { Acknowledger } from './acknowledgements.js';
import type { WatchedResidentAgent } from './agent.js';
import type { AgentExtension, ExtendedAgent } from './agent_extension.js';
import { BudgetLeases } from './budgets/budget_leases.js';
import { type Change, Changes } from './change.js';
import type { ClientEvents } from './client_events.js';
import type { Connection } from './connection.js';
import { AgentLLMError } from './error.js';
import { Events, type ListenOptions } from './events.js';
import { LeaseManager } from './lease_manager.js';
import { OutcomeReporter } from './outcomes.js';
import type { ResidentSettings } from './resident_settings.js';
import { nothingHeld, notWatched } from './resolution.js';
import { type Pin, PinnedRun, type Run, type RunSource } from './run.js';
import { SnapshotCache } from './snapshot_cache.js';
import type { ClientState, Status } from './state.js';
import { UsageRecorder } from './usage/usage_recorder.js';
import { NO_USAGE, type UsageSpool } from './usage/usage_spool.js';
import { openStreamOver } from './usage/usage_stream.js';
import { type Batch, View } from './view.js';
import { Warnings } from './warning.js';
import { type WatchObserver, WatchStream } from './watch_stream.js';
import { WatchedHandle } from './watched_agent.js';

/** The components that a resident client uses. */
export interface ResidentParts {
  /** For the watch and other background work; does not keep the process alive. */
  readonly connection: Connection;
  /** For calls that a caller waits for. */
  readonly calls: Connection;
  readonly ackBatcher: AckBatcher;
}

const METHOD = 'agentllm.v1.AgentLLMConfigWatchService/WatchConfigs';
const KEEP_ALIVE_MS = 10_000;

/** Holds the state that the watch delivers, and serves agents, runs and listeners from it. */
export class Resident implements WatchObserver, RunSource {
  readonly clientId = randomUUID();
  readonly warnings = new Warnings((warning) => this.events.emit('warning', warning));
  readonly leases: LeaseManager;
  readonly spool: UsageSpool;
  readonly budgets: BudgetLeases;
  readonly outcomes: OutcomeReporter;
  token = '';
  minRevision = 0n;

  private held: View | undefined;
  private status: Status = 'CONNECTING';
  private since = new Date();
  /** When the held state was last known to be current. */
  private currentUntil = new Date();
  private error: AgentLLMError | undefined;
  private replica = '';
  /** The newest revision of the service when the stream was opened; the client is READY once it has reached it. */
  private target = 0n;
  private closing: Promise<void> | undefined;

  private readonly connection: Connection;
  private readonly names: ReadonlySet<string> | undefined;
  private readonly events = new Events<ClientEvents>((error, event) => this.listenerFailed(error, event));
  private readonly handles = new Map<string, WatchedResidentAgent>();
  private readonly readers = new Set<Changes>();
  private readonly runs = new Set<WeakRef<PinnedRun>>();
  private readonly refs = new WeakMap<PinnedRun, WeakRef<PinnedRun>>();
  /** Removes runs that were garbage-collected without end(). */
  private readonly collectedRuns = new FinalizationRegistry<WeakRef<PinnedRun>>((ref) => this.runs.delete(ref));
  private readonly cache: SnapshotCache | undefined;
  private readonly recorder: UsageRecorder | undefined;
  private readonly acknowledger: Acknowledger;
  private readonly watch: WatchStream;
  private timedChange: NodeJS.Timeout | undefined;
  readonly extend: (agent: ExtendedAgent) => void;

  constructor({ connection, calls, ackBatcher }: ResidentParts, settings: ResidentSettings, extend?: AgentExtension) {
    const { agents, clientName, clientVersion, cache, leaseMs: lifetimeMs, usage, reservation: options } = settings;
    const warn = this.warnings.add;
    // Without a resume token the store may be another one, in which the held revision has no meaning.
    const revision = () => (this.token === '' ? this.minRevision : this.view.revision);
    this.connection = connection;
    // Only the entry points for AI SDKs make model calls.
    this.recorder = extend && usage && new UsageRecorder(usage, { open: openStreamOver(connection), warn });
    this.spool = this.recorder ?? NO_USAGE;
    this.outcomes = new OutcomeReporter(calls, this.spool);
    this.budgets = new BudgetLeases({ calls, stream: connection, options, view: () => this.held });
    this.extend = extend?.(this.budgets.settleBefore((receipt) => this.onReceipt(receipt))) ?? (() => {});
    this.leases = new LeaseManager({ calls, stream: connection, lifetimeMs, revision, warn });
    this.names = agents === 'all' ? undefined : new Set(agents);
    this.cache = cache && new SnapshotCache(cache, agents, warn);
    this.load();
    this.acknowledger = new Acknowledger(connection, this.clientId, ackBatcher);
    const refs = agents === 'all' ? [] : agents.map((name) => ({ name }));
    const identity = { client_id: this.clientId, client_name: clientName, client_version: clientVersion };
    this.watch = new WatchStream(connection, { agents: refs, all_agents: agents === 'all', ...identity }, this);
  }

  // Methods that the program calls.

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
    this.extend({ handle, runId: '' });
    // With agents: 'all' only the handles of existing agents are stored, so that arbitrary names do not fill the
    // memory.
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

  run(pin: Pin, id: string): Run {
    const run = new PinnedRun(pin, id, this);
    const ref = new WeakRef(run);
    this.runs.add(ref);
    this.refs.set(run, ref);
    this.collectedRuns.register(run, ref, run);
    return run as PinnedRun & Run;
  }

  forget(run: PinnedRun): void {
    const ref = this.refs.get(run);
    if (ref) this.runs.delete(ref);
    this.collectedRuns.unregister(run);
  }

  failed(error: unknown): void {
    this.listenerFailed(error, 'moved');
  }

  /** Resolves when a state is held. The wait keeps the process alive. */
  ready(address: string, ms: number, { signal }: ListenOptions = {}): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (message: string, cause: unknown, code: 'UNAVAILABLE' | 'CANCELLED') =>
        reject(AgentLLMError.here(message, { code, method: METHOD, cause }));
      const settle = (act: () => void) => {
        clearTimeout(timer);
        removeListener();
        release();
        act();
      };
      const check = () => {
        if (this.held) settle(resolve);
        else if (this.status === 'FAILED') settle(() => reject(this.error));
      };
      const onTimeout = () => {
        const reason = this.error?.message ?? 'it has not responded';
        settle(() => fail(`No service is ready at ${address} within ${ms} ms: ${reason}`, this.error, 'UNAVAILABLE'));
      };
      const timer = setTimeout(onTimeout, Math.min(ms, limits.maxTimerMs));
      const removeListener = this.on('state', check);
      let release = () => {};
      release = onAbort(signal, () => settle(() => fail('The caller aborted the wait', signal?.reason, 'CANCELLED')));
      if (!signal?.aborted) check();
    });
  }

  /** Sends a last acknowledgement, ends the watch and writes the cache file. */
  close(): Promise<void> {
    this.closing ??= this.end();
    return this.closing;
  }

  // Methods that the watch calls.

  started({ replica }: WatchStarted, newest: bigint): void {
    this.replica = replica;
    this.target = newest;
    this.acknowledger.restart();
  }

  batch(batch: Batch): void {
    const before = this.held;
    // Each revision is delivered once; applying an earlier one again would revert later changes.
    if (before && !batch.snapshot && batch.revision <= before.revision) return;
    const { view, change } = (before ?? View.empty()).apply(batch);
    const gap = batch.snapshot && before !== undefined;
    this.hold(view);
    this.leases.changed(batch, view);
    if (gap || change.urgent) this.moveRuns(change, gap || batch.catalogue.some(({ urgent }) => urgent), batch);
    this.acknowledger.apply(view.revision, false);
    this.cache?.save(view);
    if (change.catalogue) this.scheduleTimedChange();
    if (view.revision >= this.target) this.setStatus('READY', undefined);
    this.publish(change);
  }

  bookmark(revision: bigint, token: string): void {
    const { held } = this;
    if (!held || revision < held.revision) return;
    if (revision > held.revision || token !== held.token) this.hold(held.at(revision, token));
    this.acknowledger.apply(revision, true);
    // A stream that has not reached the newest revision also sends bookmarks.
    if (revision < this.target) return;
    this.cache?.refresh(this.view);
    this.setStatus('READY', undefined);
  }

  budgetStates(states: readonly BudgetState[], complete: boolean): void {
    if (this.budgets.states.apply(states, complete) && this.held) this.publishEffect();
  }

  broken(error: AgentLLMError, permanent: boolean): void {
    this.setStatus(permanent ? 'FAILED' : this.held ? 'STALE' : 'CONNECTING', error);
  }

  startOver(sameStore: boolean): void {
    const { held } = this;
    // Removes the resume token from the held state too, and thus from the cache file.
    if (held) this.hold(held.at(held.revision, ''));
    this.token = '';
    if (!sameStore) this.leases.clear();
    this.minRevision = sameStore && held ? held.revision : 0n;
  }

  private onReceipt(receipt: Receipt): void {
    this.recorder?.record(receipt);
    this.events.emit('receipt', receipt);
  }

  private load(): void {
    const cached = this.cache?.load();
    if (!cached) return;
    this.hold(cached.view);
    this.scheduleTimedChange();
    this.status = 'STALE';
    this.since = cached.savedAt;
    this.currentUntil = cached.savedAt;
  }

  private hold(view: View): void {
    this.held = view;
    this.token = view.token;
  }

  private setStatus(status: Status, error: AgentLLMError | undefined): void {
    const { status: before } = this;
    this.error = error;
    if (this.closing && status !== 'STALE' && status !== 'FAILED') return;
    if (status === before) return;
    const now = new Date();
    if (before === 'READY') this.currentUntil = now;
    this.status = status;
    this.since = status === 'STALE' ? this.currentUntil : now;
    this.events.emit('state', this.state);
  }

  /** Moves the runs whose pin an urgent change overrides. */
  private moveRuns(change: Change, all: boolean, { agents }: Batch): void {
    const urgent = all ? undefined : agents.filter((agent) => agent.urgent).map(({ name }) => name);
    for (const ref of this.runs) ref.deref()?.onUrgentChange(change, urgent);
  }

  private publish(change: Change): void {
    for (const reader of this.readers) reader.push(change);
    this.events.emit('change', change);
  }

  /** At the shutdown date of a model and at the start of a price, resolutions change without a change in the store. */
  private scheduleTimedChange(): void {
    clearTimeout(this.timedChange);
    const next = this.held?.catalogue.nextTimedChange(new Date());
    if (!next) return;
    const due = () => {
      if (this.held && next.at <= new Date()) {
        this.hold(this.held.withNewCatalogue());
        // Listeners are not notified when only the number of days before a shutdown changes.
        if (next.isEffect) this.publishEffect();
      }
      this.scheduleTimedChange();
    };
    this.timedChange = setTimeout(due, Math.min(next.at.getTime() - Date.now() + 1, limits.maxTimerMs)).unref();
  }

  private publishEffect(): void {
    const others = { agents: [], urgent: false, cause: undefined, snapshot: false, merged: 1 };
    this.publish({ revision: this.view.revision, catalogue: true, ...others });
  }

  private listenerFailed(error: unknown, event: string): void {
    // A listener of warnings that fails causes no further warning, because it would receive that one and fail again.
    if (event === 'warning') return;
    this.warnings.add('LISTENER_FAILED', `A listener of '${event}' failed: ${errorMessage(error)}`, error);
  }

  private async end(): Promise<void> {
    // The watch does not keep the process alive, but its closing must finish.
    const keepAlive = setInterval(() => {}, KEEP_ALIVE_MS);
    try {
      await this.endAll();
    } finally {
      clearInterval(keepAlive);
    }
  }

  private async endAll(): Promise<void> {
    const recorded = this.recorder?.close();
    this.leases.close();
    await this.budgets.close();
    if (this.status === 'READY') {
      // Saved again with the current time, because the state is known to be current.
      this.cache?.save(this.view);
      await this.acknowledger.end();
    }
    this.acknowledger.stop();
    await this.watch.close();
    clearTimeout(this.timedChange);
    const closed = AgentLLMError.here('This client was closed', { code: 'CANCELLED', method: METHOD });
    this.setStatus(this.held ? 'STALE' : 'FAILED', closed);
    for (const reader of [...this.readers]) reader.end();
    await Promise.all([recorded, this.cache?.flush()]);
    await this.connection.close();
  }
}
