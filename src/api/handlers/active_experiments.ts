import { ActiveExperiment } from '../../domain/experiments/active_experiment.js';
import type { Experiment } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';

/** The key is the list of an agent's experiments, which is the same object until one of them changes. */
const cache = new WeakMap<readonly Experiment[], ActiveExperiment>();

/** The experiment of an agent that is running or paused. */
export function activeExperimentOf(state: State, agentId: number): ActiveExperiment | undefined {
  const experiments = state.experiments.activeOf(agentId);
  if (experiments.length === 0) return undefined;
  const existing = cache.get(experiments);
  if (existing) return existing;
  const active = ActiveExperiment.among(experiments);
  if (active) cache.set(experiments, active);
  return active;
}
