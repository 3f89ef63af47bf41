import type { BudgetState } from '../../../gen/ts/agentllm/v1/budget.js';
import type { CoveringBudget } from '../../domain/budget_effect.js';
import type { Budget } from '../../domain/rows.js';

const keyOf = (budget: string, runId: string) => `${budget}\0${runId}`;

/** The states of budgets that the watch has delivered. Pinned runs use the newest states too. */
export class BudgetStates {
  /** A number that changes when the states may change a resolution. */
  version = 0;
  private states = new Map<string, BudgetState>();

  /** @param complete whether missing states have the amounts 0. @returns whether a resolution may change. */
  apply(states: readonly BudgetState[], complete: boolean): boolean {
    const before = this.states;
    this.states = new Map(complete ? [] : before);
    for (const state of states) this.states.set(keyOf(state.budget, state.run_id), state);
    const keys = new Set([...before.keys(), ...this.states.keys()]);
    const isChanged = [...keys].some((key) => effectOf(before.get(key)) !== effectOf(this.states.get(key)));
    if (isChanged) this.version++;
    return isChanged;
  }

  /** A budget with its state. The state of an ended period does not apply to the next period. */
  covering(budget: Budget, runId = ''): CoveringBudget {
    const state = this.states.get(keyOf(budget.name, budget.scope === 'BUDGET_SCOPE_RUN' ? runId : ''));
    const isCurrent = state !== undefined && (state.period_end === undefined || state.period_end > new Date());
    return { budget, exhausted: isCurrent && state.exhausted, warning: isCurrent && state.warning };
  }
}

const effectOf = (state: BudgetState | undefined): string =>
  state ? `${state.exhausted} ${state.warning} ${state.period_start?.getTime()}` : 'false false undefined';
