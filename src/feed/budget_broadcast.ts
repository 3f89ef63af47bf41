import type { BudgetMonitor, BudgetStatus } from './budget_monitor.js';
import type { Filter } from './filter.js';
import type { Watch } from './watch.js';

/** The functions of the watches by which the states of budgets are sent. */
interface Streams {
  readonly every: Iterable<Watch>;
  /** Writes a message to a live watch. */
  sendLive(watch: Watch, bytes: Buffer): void;
}

type Encode = (states: readonly BudgetStatus[], complete: boolean) => Buffer;

/**
 * Sends the states of budgets to the watches. A watch that is not ready receives all states when it becomes ready;
 * intermediate states are skipped.
 */
export class BudgetBroadcast {
  monitor: Pick<BudgetMonitor, 'all'> | undefined;

  constructor(
    private readonly streams: Streams,
    private readonly encode: Encode,
    private readonly agentNames: (id: number) => string | undefined,
  ) {}

  /** Called when a watch has caught up. */
  readonly live = (watch: Watch): void => {
    if (watch.statesDue) this.sendAll(watch);
  };

  readonly publish = (changed: readonly BudgetStatus[]): void => {
    const shared = changed.filter(({ budget }) => budget.agent_id === null);
    const own = changed.filter(({ budget }) => budget.agent_id !== null);
    const encoded = shared.length > 0 ? this.encode(shared, false) : undefined;
    for (const watch of this.streams.every) {
      if (!watch.live || watch.sink.closed || watch.sink.waitingSince !== undefined) watch.statesDue = true;
      else if (watch.statesDue) this.sendAll(watch);
      else this.send(watch, shared, own, encoded);
    }
  };

  private send(
    watch: Watch,
    shared: readonly BudgetStatus[],
    own: readonly BudgetStatus[],
    encoded: Buffer | undefined,
  ): void {
    const concerned = own.filter((status) => this.concerns(watch.filter, status));
    const bytes = concerned.length > 0 ? this.encode([...shared, ...concerned], false) : encoded;
    if (bytes) this.streams.sendLive(watch, bytes);
  }

  private sendAll(watch: Watch): void {
    const all = this.monitor?.all ?? [];
    watch.statesDue = false;
    if (all.length === 0) return;
    this.streams.sendLive(
      watch,
      this.encode(
        all.filter((status) => this.concerns(watch.filter, status)),
        true,
      ),
    );
  }

  private concerns({ all, names, ids }: Filter, { budget: { agent_id } }: BudgetStatus): boolean {
    if (agent_id === null || all || ids.has(agent_id)) return true;
    return names.has(this.agentNames(agent_id) ?? '');
  }
}
