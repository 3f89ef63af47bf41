import { AgentHandle, type ResidentAgent } from './agent.js';
import type { ExtendedAgent } from './agent_extension.js';
import type { BudgetLeases } from './budgets/budget_leases.js';
import type { Change } from './change.js';
import { Events, type ListenOptions } from './events.js';
import type { LeaseManager } from './lease_manager.js';
import type { OutcomeReporter } from './outcomes.js';
import type { View } from './view.js';

/** How long a run keeps the same revision: until it ends, until its next turn, or not at all. */
export type Pin = 'run' | 'turn' | 'call';

/** An urgent change moved a run away from the revision that it was pinned to. */
export interface RunMoved {
  /** The revision that the run was pinned to. */
  readonly from: bigint;
  /** The revision that the run is pinned to now. */
  readonly to: bigint;
  /** The cause: an urgent change, or a snapshot after a gap that may contain one. */
  readonly change: Change;
}

/**
 * A unit of work during which the configuration must not change. A run is pinned to one revision of everything: with
 * `pin: 'run'` until it ends, with `'turn'` until the next `turn()`. With `'call'` each `resolve()` uses the newest
 * revision. An urgent change of the catalogue, or of an agent that the run has requested with `agent()`, moves the run to
 * the newest revision immediately; a snapshot after a gap does the same. The event `moved` reports it.
 */
export interface Run<Extension = unknown> extends Disposable {
  /** The pin that the run was started with. */
  readonly pin: Pin;
  /** Identifies the run in receipts: the option `id`, or a generated UUID. */
  readonly id: string;
  /** The store revision that the run resolves from; 0n while the client holds no state. */
  readonly revision: bigint;
  /** The agent at the revision of the run. Throws the errors of `agent()` of the client. */
  agent(name: string): ResidentAgent & Extension;
  /** Starts the next turn: with `pin: 'turn'` the run moves to the newest revision. No effect with other pins. */
  turn(): void;
  /** Adds a listener for moves of the run. The returned function removes it, and so does the signal. */
  on(event: 'moved', listener: (moved: RunMoved) => unknown, options?: ListenOptions): () => void;
  /** Ends the run and releases its revision; `using` does this too. Its agents then resolve from the newest revision. */
  end(): void;
}

/** The parts of the client that a run uses. */
export interface RunSource {
  /** The held state; undefined before the first. */
  readonly current: View | undefined;
  /** The held state; throws before the first. */
  readonly view: View;
  /** Keys are not pinned: a run must not use a revoked key. */
  readonly leases: LeaseManager;
  /** Budgets are not pinned: their current states always apply. */
  readonly budgets: BudgetLeases;
  readonly outcomes: OutcomeReporter;
  /** Throws for an agent that the client does not hold. */
  check(name: string): void;
  /** Adds the members that the agents of the client have. */
  extend(agent: ExtendedAgent): void;
  forget(run: PinnedRun): void;
  /** Reports that a listener failed. */
  failed(error: unknown): void;
}

export class PinnedRun {
  private pinned: View | undefined;
  private ended = false;
  private readonly handles = new Map<string, AgentHandle>();
  /** Agents with an urgent change that this run has not requested yet; requesting one moves the run. */
  private readonly outdated = new Map<string, Change>();
  private readonly events: Events<{ moved: RunMoved }>;

  constructor(
    readonly pin: Pin,
    readonly id: string,
    private readonly source: RunSource,
  ) {
    this.events = new Events((error) => source.failed(error));
    this.pinTo(source.current);
    // Node 20 has the symbol since 20.5.
    const dispose = Symbol.dispose as symbol | undefined;
    if (dispose) Object.defineProperty(this, dispose, { value: () => this.end() });
  }

  /** The state that the agents of the run are resolved from; throws when there is none. */
  get view(): View {
    if (this.pinned) return this.pinned;
    const { view } = this.source;
    if (this.pin !== 'call' && !this.ended) this.pinTo(view);
    return view;
  }

  get leases(): LeaseManager {
    return this.source.leases;
  }

  get budgets(): BudgetLeases {
    return this.source.budgets;
  }

  get outcomes(): OutcomeReporter {
    return this.source.outcomes;
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
    this.source.extend({ handle, runId: this.id });
    this.handles.set(name, handle);
    return handle;
  }

  turn(): void {
    if (this.pin === 'turn' && !this.ended) this.pinTo(this.source.current);
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

  /** Applies an urgent change. @param urgent agents with urgent changes; undefined: the change concerns all agents. */
  onUrgentChange(change: Change, urgent: readonly string[] | undefined): void {
    if (!this.pinned || this.ended) return;
    if (!urgent || urgent.some((name) => this.handles.has(name))) this.move(change);
    else for (const name of urgent) this.outdated.set(name, change);
  }

  private move(change: Change): void {
    const from = this.revision;
    this.pinTo(this.source.current);
    this.events.emit('moved', { from, to: this.revision, change });
  }

  private pinTo(view: View | undefined): void {
    if (this.pin === 'call') return;
    if (this.pinned) this.pinned.pins--;
    if (view) view.pins++;
    this.pinned = view;
    this.outdated.clear();
  }
}
