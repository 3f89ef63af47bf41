import { NameIndex } from './name_index.js';
import { Ordered } from './ordered.js';
import type { Agent, Budget } from './rows.js';

const NONE: readonly Budget[] = [];

/** The budgets of a state, with indexes by which the budgets of a call are found. */
export class BudgetIndex {
  readonly inOrder = new Ordered<Budget>(byName);
  private readonly byName = new NameIndex<Budget>();
  private readonly byId = new Map<number, Budget>();
  private readonly byAgent = new Map<number, readonly Budget[]>();
  /** The budgets that are not for a single agent. */
  private shared: readonly Budget[] = NONE;

  get size(): number {
    return this.byId.size;
  }

  get names(): Iterable<string> {
    return this.byName.keys();
  }

  named(name: string): Budget | undefined {
    return this.byName.get(name);
  }

  withId(id: number): Budget | undefined {
    return this.byId.get(id);
  }

  /** The budgets for one agent alone, ordered by name; the same list until one of them changes. */
  ofAgent(agentId: number): readonly Budget[] {
    return this.byAgent.get(agentId) ?? NONE;
  }

  /** The budgets that cover an agent, enabled or not. Budgets for runs are included if `withRuns` is set. */
  covering(agent: Pick<Agent, 'id' | 'agent_type'> | undefined, withRuns: boolean): readonly Budget[] {
    const shared = this.shared.filter((budget) => covers(budget, agent, withRuns));
    const own = agent ? this.ofAgent(agent.id) : NONE;
    return own.length === 0 ? shared : [...shared, ...own];
  }

  put(before: Budget | undefined, after: Budget | undefined): void {
    if (before) {
      this.byName.delete(before.name);
      this.byId.delete(before.id);
      this.inOrder.remove(before);
      this.setList(before.agent_id, (list) => list.filter(({ id }) => id !== before.id));
    }
    if (after) {
      this.byName.set(after.name, after);
      this.byId.set(after.id, after);
      this.inOrder.put(after);
      this.setList(after.agent_id, (list) => [...list.filter(({ id }) => id !== after.id), after].sort(byName));
    }
  }

  private setList(agentId: number | null, change: (list: readonly Budget[]) => readonly Budget[]): void {
    if (agentId === null) this.shared = change(this.shared);
    else {
      const list = change(this.ofAgent(agentId));
      if (list.length > 0) this.byAgent.set(agentId, list);
      else this.byAgent.delete(agentId);
    }
  }
}

function byName(a: Budget, b: Budget): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0;
}

/** Whether a budget covers the calls of an agent. @param agent undefined: it has been deleted. */
export function covers(
  { scope, agent_type, agent_id }: Pick<Budget, 'scope' | 'agent_type' | 'agent_id'>,
  agent: Pick<Agent, 'id' | 'agent_type'> | undefined,
  withRuns: boolean,
): boolean {
  if (scope === 'BUDGET_SCOPE_ALL') return true;
  if (scope === 'BUDGET_SCOPE_RUN') return withRuns;
  if (scope === 'BUDGET_SCOPE_AGENT_TYPE') return agent?.agent_type === agent_type;
  return agent !== undefined && agent.id === agent_id;
}
