import { amountsAt, type BudgetAmounts, type Counter, counterKey, keyText } from '../domain/budget_counter.js';
import type { CoveringBudget } from '../domain/budget_effect.js';
import type { Agent, Budget } from '../domain/rows.js';
import { limits } from '../limits.js';
import { changedCounters } from '../store/budgets/counters.js';
import type { Store } from '../store/store.js';

/** The amounts of a budget, or of one run of a budget for runs. */
export interface BudgetStatus {
  readonly budget: Budget;
  readonly run_id: string;
  readonly amounts: BudgetAmounts;
}

/** How often changed amounts are read. A watch is notified of an exhausted budget within a second. */
const POLL_MS = 400;
/** Transactions that were open at the last poll may have committed since with an earlier time. */
const OVERLAP_MS = 15_000;
/** The maximum number of exhausted runs that are held in memory. */
const MAX_RUNS = 10_000;

/**
 * Holds the current amounts of all budgets, so that resolutions and watches need no query. Changed amounts are read
 * from the database shortly after a change on any replica. While the database is unavailable, the last known amounts
 * apply.
 */
export class BudgetMonitor {
  /** Changes when the effect of a budget on resolutions changes. */
  version = 0;
  private readonly counters = new Map<string, Counter>();
  private readonly sent = new Map<string, { readonly text: string; readonly effect: string; readonly at: number }>();
  private since: Date | undefined;
  private timer: NodeJS.Timeout | undefined;
  private polling: Promise<void> | undefined;
  private isClosed = false;
  private readonly unsubscribe: () => void;

  /** @param publish receives the states that changed. */
  constructor(
    private readonly store: Store,
    private readonly publish: (changed: readonly BudgetStatus[]) => void,
    private readonly pollMs = POLL_MS,
  ) {
    this.unsubscribe = store.subscribe({
      replaced: () => {
        this.since = undefined;
        this.counters.clear();
        this.sent.clear();
        this.version++;
      },
    });
    this.schedule();
  }

  /** The last known amounts of a budget that is not for runs. */
  amountsOf(budget: Budget, now = new Date()): BudgetAmounts {
    return amountsAt(budget, this.counters.get(keyText(counterKey(budget, '', now))), now);
  }

  /**
   * The enabled budgets that cover an agent, with their states.
   * @param simulated names of budgets that count as exhausted. A budget for runs is included only if it is one of them.
   */
  covering(agent: Agent, simulated: ReadonlySet<string> = NONE): CoveringBudget[] {
    return coveringBudgets(this.store.state.budgets.covering(agent, simulated.size > 0), simulated, (budget) =>
      this.amountsOf(budget),
    );
  }

  /** The states of all budgets, and of the runs that are exhausted. */
  get all(): BudgetStatus[] {
    const now = new Date();
    const statuses: BudgetStatus[] = [];
    for (const budget of this.store.state.budgets.inOrder.after())
      if (budget.scope !== 'BUDGET_SCOPE_RUN')
        statuses.push({ budget, run_id: '', amounts: this.amountsOf(budget, now) });
    for (const status of this.exhaustedRuns(now)) statuses.push(status);
    return statuses;
  }

  /** Reads the changes now; concurrent calls share one read. */
  poll(): Promise<void> {
    this.polling ??= this.read().finally(() => {
      this.polling = undefined;
    });
    return this.polling;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    clearTimeout(this.timer);
    this.unsubscribe();
    await this.polling;
  }

  private schedule(): void {
    if (this.isClosed) return;
    this.timer = setTimeout(() => void this.poll().finally(() => this.schedule()), this.pollMs).unref();
  }

  private async read(): Promise<void> {
    if (this.store.state.budgets.size > 0) {
      try {
        const since = this.since ? new Date(this.since.getTime() - OVERLAP_MS) : new Date(0);
        const { counters, next } = await changedCounters(this.store.database.knex, since);
        for (const counter of counters) this.keepCounter(counter);
        this.since = next ?? this.since;
      } catch {
        // The feed reports that the database is unavailable.
      }
    }
    this.publishChanges();
  }

  private keepCounter(counter: Counter): void {
    const runs = counter.run_id === '' ? 0 : this.counters.size;
    if (runs < MAX_RUNS) this.counters.set(keyText(counter), counter);
  }

  /** Publishes changed states: at once if the effect of a budget has changed, otherwise at intervals. */
  private publishChanges(): void {
    if (this.isClosed) return;
    this.removePastCounters();
    const changed: BudgetStatus[] = [];
    const now = performance.now();
    for (const status of this.all) {
      const key = `${status.budget.id} ${status.run_id}`;
      const [text, effect] = [textOf(status), effectOf(status)];
      const last = this.sent.get(key);
      if (last?.text === text) continue;
      const isEffect = last?.effect !== effect;
      if (last && !isEffect && now - last.at < limits.budgetStateMs) continue;
      if (isEffect) this.version++;
      this.sent.set(key, { text, effect, at: now });
      changed.push(status);
    }
    if (changed.length > 0) this.publish(changed);
  }

  private removePastCounters(): void {
    const now = new Date();
    const { budgets } = this.store.state;
    for (const [text, counter] of this.counters) {
      const budget = budgets.withId(counter.budget_id);
      if (!budget || text !== keyText(counterKey(budget, counter.run_id, now))) this.counters.delete(text);
    }
    for (const key of this.sent.keys()) if (!budgets.withId(Number(key.split(' ', 1)[0]))) this.sent.delete(key);
  }

  private *exhaustedRuns(now: Date): Generator<BudgetStatus> {
    for (const counter of this.counters.values()) {
      const budget = counter.run_id === '' ? undefined : this.store.state.budgets.withId(counter.budget_id);
      if (!budget) continue;
      const amounts = amountsAt(budget, counter, now);
      if (amounts.exhausted) yield { budget, run_id: counter.run_id, amounts };
    }
  }
}

const NONE: ReadonlySet<string> = new Set();

/** Budgets with their states. Disabled budgets are left out. */
export function coveringBudgets(
  budgets: readonly Budget[],
  simulated: ReadonlySet<string>,
  amountsOf: (budget: Budget) => Pick<BudgetAmounts, 'exhausted' | 'warning'>,
): CoveringBudget[] {
  return budgets.flatMap((budget) => {
    if (simulated.has(budget.name)) return [{ budget, exhausted: true, warning: true }];
    if (!budget.enabled || budget.scope === 'BUDGET_SCOPE_RUN') return [];
    const { exhausted, warning } = amountsOf(budget);
    return [{ budget, exhausted, warning }];
  });
}

const effectOf = ({ budget, amounts }: BudgetStatus): string =>
  [budget.revision, amounts.period.start.getTime(), amounts.exhausted, amounts.warning].join();

const textOf = (status: BudgetStatus): string => {
  const { amounts: a } = status;
  return [effectOf(status), a.spent, a.reserved, a.unreserved, a.unpriced, a.open].join();
};
