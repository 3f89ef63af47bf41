import { AgentHandle, type ResidentAgent } from './agent.js';
import type { Change } from './change.js';
import { Events, type ListenOptions } from './events.js';
import type { LeaseManager } from './lease_manager.js';
import type { View } from './view.js';

/** For how long a run goes on with the same revision: its whole life, one turn, or not at all. */
export type Pin = 'run' | 'turn' | 'call';

/** A run left the revision that it was pinned to, because a change could not wait. */
export interface RunMoved {
  /** The revision that it was pinned to. */
  readonly from: bigint;
  /** The revision that it goes on with. */
  readonly to: bigint;
  /** Why: an urgent change, or everything taken anew after a gap in which there may have been one. */
  readonly change: Change;
}

/**
 * A piece of work of an agent process that shall not see its configuration change half-way. It holds one revision of
 * everything: with `pin: 'run'` until it ends, with `'turn'` until the next `turn()`; with `'call'` each `resolve()` is
 * current. An urgent change of an agent that the run has asked for, or of the catalogue, moves it to the newest
 * revision at once, and so does a snapshot after a gap; `on('moved')` tells of it.
 */
export interface Run extends Disposable {
  /** How it is pinned. */
  readonly pin: Pin;
  /** The store revision that it resolves from now; 0n while nothing is held. */
  readonly revision: bigint;
  /** The agent, as it is at the revision of the run. Fails like `agent()` of the client. */
  agent(name: string): ResidentAgent;
  /** Begins the next turn: with `pin: 'turn'` the run goes on with what is newest now. */
  turn(): void;
  /** Calls back when the run is moved; what it returns ends it, and so does the signal. */
  on(event: 'moved', listener: (moved: RunMoved) => unknown, options?: ListenOptions): () => void;
  /** Ends it, and lets go of what it holds; `using` does it too. What is asked afterwards is answered as it is then. */
  end(): void;
}

/** What a run needs of its client. */
export interface RunSource {
  /** What is held now; undefined: nothing yet. */
  readonly current: View | undefined;
  /** The same; throws when there is nothing. */
  readonly view: View;
  /** Keys are of no revision: one that was taken back is nobody's any more. */
  readonly leases: LeaseManager;
  /** Throws for an agent that is not held. */
  check(name: string): void;
  forget(run: PinnedRun): void;
  failed(error: unknown): void;
}

export class PinnedRun {
  private pinned: View | undefined;
  private ended = false;
  private readonly handles = new Map<string, AgentHandle>();
  /** Agents with an urgent change that this run has not asked for; asking for one moves it. */
  private readonly outdated = new Map<string, Change>();
  private readonly events: Events<{ moved: RunMoved }>;

  constructor(
    readonly pin: Pin,
    private readonly source: RunSource,
  ) {
    this.events = new Events((error) => source.failed(error));
    this.take(source.current);
    // Node 20 has the symbol since 20.5.
    const dispose = Symbol.dispose as symbol | undefined;
    if (dispose) Object.defineProperty(this, dispose, { value: () => this.end() });
  }

  /** What its agents are resolved from; throws when there is nothing. */
  get view(): View {
    if (this.pinned) return this.pinned;
    const { view } = this.source;
    if (this.pin !== 'call' && !this.ended) this.take(view);
    return view;
  }

  get leases(): LeaseManager {
    return this.source.leases;
  }

  get revision(): bigint {
    return (this.pinned ?? this.source.current)?.revision ?? 0n;
  }

  agent(name: string): ResidentAgent {
    const known = this.handles.get(name);
    if (known) return known;
    this.source.check(name);
    const change = this.outdated.get(name);
    if (change) this.move(change);
    const handle = new AgentHandle(name, this);
    this.handles.set(name, handle);
    return handle;
  }

  turn(): void {
    if (this.pin === 'turn' && !this.ended) this.take(this.source.current);
  }

  on(event: 'moved', listener: (moved: RunMoved) => unknown, options?: ListenOptions): () => void {
    return this.events.on(event, listener, options);
  }

  end(): void {
    if (this.ended) return;
    this.ended = true;
    if (this.pinned) this.pinned.pins--;
    this.pinned = undefined;
    this.source.forget(this);
  }

  /** Hears of a change that may not let it go on. @param urgent agents with urgent changes; undefined: all of them. */
  hear(change: Change, urgent: readonly string[] | undefined): void {
    if (!this.pinned || this.ended) return;
    if (!urgent || urgent.some((name) => this.handles.has(name))) this.move(change);
    else for (const name of urgent) this.outdated.set(name, change);
  }

  private move(change: Change): void {
    const from = this.revision;
    this.take(this.source.current);
    this.events.emit('moved', { from, to: this.revision, change });
  }

  private take(view: View | undefined): void {
    if (this.pin === 'call') return;
    if (this.pinned) this.pinned.pins--;
    if (view) view.pins++;
    this.pinned = view;
    this.outdated.clear();
  }
}
