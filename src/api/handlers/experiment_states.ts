import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import { primaryIn } from '../../domain/chain.js';
import type { Draft } from '../../domain/draft.js';
import { checkVariants } from '../../domain/experiments/experiment_check.js';
import { inState } from '../../domain/experiments/transition.js';
import type { Experiment } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { Problems } from '../../problems.js';
import { requireNoOtherActive, requireState, writtenExperiment } from './experiment_requests.js';
import { noEnabledConfig } from './read_configs.js';

/** The fields of a request that changes the state of an experiment. */
export interface TransitionRequest {
  readonly agent?: AgentRef | undefined;
  readonly name: string;
  readonly etag: string;
  readonly reason: string;
}

export function planStart(state: State, draft: Draft, problems: Problems, request: TransitionRequest): Experiment {
  const before = writtenExperiment(state, problems, request);
  requireState(before, ['EXPERIMENT_STATE_DRAFT'], 'only a DRAFT experiment can be started');
  requireUsable(state, problems, before);
  const row = inState(before, 'EXPERIMENT_STATE_RUNNING', draft, request);
  // Calls are assigned from this revision on.
  return draft.update('experiment', before, { ...row, allocation_revision: draft.revision });
}

export function planPause(state: State, draft: Draft, problems: Problems, request: TransitionRequest): Experiment {
  const before = writtenExperiment(state, problems, request);
  requireState(before, ['EXPERIMENT_STATE_RUNNING'], 'only a RUNNING experiment can be paused');
  return draft.update('experiment', before, inState(before, 'EXPERIMENT_STATE_PAUSED', draft, request));
}

export function planResume(state: State, draft: Draft, problems: Problems, request: TransitionRequest): Experiment {
  const before = writtenExperiment(state, problems, request);
  requireState(before, ['EXPERIMENT_STATE_PAUSED'], 'only a PAUSED experiment can be resumed');
  requireUsable(state, problems, before);
  return draft.update('experiment', before, inState(before, 'EXPERIMENT_STATE_RUNNING', draft, request));
}

/** Throws unless calls can be assigned: every base config exists, and no other experiment is running or paused. */
function requireUsable(state: State, problems: Problems, experiment: Experiment): void {
  // A model that is not in the catalogue was accepted when the variant was written.
  const report = (field: string, description: string | undefined) => problems.add(`experiment.${field}`, description);
  checkVariants(state, experiment, report, { allowUnknownModel: true });
  problems.throwIfAny();
  requireNoOtherActive(state, experiment);
  const agent = state.agents.get(experiment.agent_id);
  const needsPrimary = experiment.variants.some(({ config_id }) => config_id === null);
  if (agent && needsPrimary && !primaryIn(state, agent.id)) throw noEnabledConfig(agent);
}
