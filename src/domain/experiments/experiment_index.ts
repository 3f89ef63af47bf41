import { normalName } from '../name_index.js';
import { Ordered } from '../ordered.js';
import type { Experiment } from '../rows.js';

const NONE: readonly Experiment[] = [];

/** Whether an experiment affects the calls of its agent, because it is running or paused. */
export const isActive = ({ state }: Pick<Experiment, 'state'>): boolean =>
  state === 'EXPERIMENT_STATE_RUNNING' || state === 'EXPERIMENT_STATE_PAUSED';

/** Whether an experiment has started, so that usage can count for it. */
export const hasStarted = ({ state }: Pick<Experiment, 'state'>): boolean => state !== 'EXPERIMENT_STATE_DRAFT';

/** The experiments of a state. */
export class ExperimentIndex {
  readonly inOrder = new Ordered<Experiment>((a, b) => a.id - b.id);
  private readonly byId = new Map<number, Experiment>();
  private readonly byAgent = new Map<number, readonly Experiment[]>();
  private readonly activeByAgent = new Map<number, readonly Experiment[]>();
  private started = 0;
  private running = 0;

  /** The number of experiments that have started. */
  get startedCount(): number {
    return this.started;
  }

  /** The number of experiments that are running. */
  get runningCount(): number {
    return this.running;
  }

  withId(id: number): Experiment | undefined {
    return this.byId.get(id);
  }

  /** All experiments of an agent, ordered by id. */
  ofAgent(agentId: number): readonly Experiment[] {
    return this.byAgent.get(agentId) ?? NONE;
  }

  /** The experiments of an agent that are running or paused; the same list until one of them changes. */
  activeOf(agentId: number): readonly Experiment[] {
    return this.activeByAgent.get(agentId) ?? NONE;
  }

  /** Finds an experiment of an agent by a linear search, because an agent has few experiments. */
  named(agentId: number, name: string): Experiment | undefined {
    const all = this.ofAgent(agentId);
    return all.find((one) => one.name === name) ?? all.find((one) => one.name === normalName(name));
  }

  put(before: Experiment | undefined, after: Experiment | undefined): void {
    const { id, agent_id } = (after ?? before) as Experiment;
    const others = this.ofAgent(agent_id).filter((one) => one.id !== id);
    const all = after ? [...others, after].sort((a, b) => a.id - b.id) : others;
    setList(this.byAgent, agent_id, all);
    if ((before && isActive(before)) || (after && isActive(after)))
      setList(this.activeByAgent, agent_id, all.filter(isActive));
    this.count(before, -1);
    this.count(after, 1);
    if (after) {
      this.byId.set(id, after);
      this.inOrder.put(after);
    } else if (before) {
      this.byId.delete(id);
      this.inOrder.remove(before);
    }
  }

  private count(row: Experiment | undefined, by: 1 | -1): void {
    if (row && hasStarted(row)) this.started += by;
    if (row?.state === 'EXPERIMENT_STATE_RUNNING') this.running += by;
  }
}

function setList(map: Map<number, readonly Experiment[]>, agentId: number, list: readonly Experiment[]): void {
  if (list.length > 0) map.set(agentId, list);
  else map.delete(agentId);
}
