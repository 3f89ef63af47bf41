import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import { isActive } from '../../domain/experiments/experiment_index.js';
import { stateName } from '../../domain/experiments/transition.js';
import type { Agent, Config, Experiment } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { nearest, printable, textProblem } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { etagOf } from '../messages/entities.js';
import { agentOf, checkEtag, checkRef } from './requests.js';

/** The fields by which a request names an experiment. */
interface Named {
  readonly agent?: AgentRef | undefined;
  readonly name: string;
}

const experimentResource = (agent: Agent, name: string) =>
  [{ type: 'experiment', name: `${printable(agent.name, 60)}/${printable(name, 60)}` }] as const;

/** Checks the fields that name an experiment. */
export function checkNamed(problems: Problems, { agent, name }: Named, at = 'name'): void {
  checkRef(problems, agent);
  problems.add(at, name === '' ? 'is required' : textProblem(name, limits.experimentName));
}

/** The experiment that a request names. */
export function experimentOf(state: State, agent: Agent, name: string): Experiment {
  const experiment = state.experiments.named(agent.id, name);
  if (experiment) return experiment;
  const shown = printable(name, 100);
  const names = state.experiments.ofAgent(agent.id).map((one) => one.name);
  const suggestion = nearest(shown, names);
  throw ServiceError.of(
    'EXPERIMENT_NOT_FOUND',
    { agent: agent.name, experiment: shown, ...(suggestion && { suggestion }) },
    { resources: experimentResource(agent, name) },
  );
}

/** The agent and the experiment of a read. */
export function namedExperiment(state: State, request: Named): Experiment {
  const problems = new Problems();
  checkNamed(problems, request);
  problems.throwIfAny();
  return experimentOf(state, agentOf(state, request.agent), request.name);
}

/** The experiment of a write. Throws if its etag differs from the etag of the request. */
export function writtenExperiment(
  state: State,
  problems: Problems,
  request: Named & { readonly etag: string },
): Experiment {
  checkNamed(problems, request);
  problems.throwIfAny();
  const experiment = experimentOf(state, agentOf(state, request.agent), request.name);
  checkExperimentEtag(state, experiment, request.etag);
  return experiment;
}

export const checkExperimentEtag = (state: State, experiment: Experiment, etag: string): void =>
  checkEtag(etag, etagOf(state, experiment), `Experiment ${JSON.stringify(experiment.name)}`);

/** Throws unless the experiment is in one of the states that a method requires. */
export function requireState(experiment: Experiment, states: readonly Experiment['state'][], rule: string): void {
  if (states.includes(experiment.state)) return;
  throw ServiceError.of('EXPERIMENT_STATE', {
    experiment: experiment.name,
    state: stateName(experiment.state),
    rule,
  });
}

export function refuseTakenName(state: State, agent: Agent, name: string): void {
  if (!state.experiments.named(agent.id, name)) return;
  throw ServiceError.of(
    'EXPERIMENT_NAME_TAKEN',
    { agent: agent.name, experiment: name },
    { resources: experimentResource(agent, name) },
  );
}

/** Throws if another experiment of the agent is running or paused. */
export function requireNoOtherActive(state: State, experiment: Experiment): void {
  const other = state.experiments.activeOf(experiment.agent_id).find(({ id }) => id !== experiment.id);
  if (!other) return;
  throw ServiceError.of('EXPERIMENT_ACTIVE', {
    agent: state.agents.get(experiment.agent_id)?.name ?? '',
    experiment: other.name,
    state: stateName(other.state),
  });
}

/** The running or paused experiment in which a config is the base config of a variant. */
export const experimentUsing = (state: State, config: Config): Experiment | undefined =>
  state.experiments
    .activeOf(config.agent_id)
    .find((one) => isActive(one) && one.variants.some(({ config_id }) => config_id === config.id));

/** Throws if the deletion of a config would change the settings of a variant. */
export function requireUnusedConfig(state: State, config: Config): void {
  const experiment = experimentUsing(state, config);
  if (!experiment) return;
  throw ServiceError.of('CONFIG_IN_EXPERIMENT', {
    id: String(config.id),
    experiment: experiment.name,
    state: stateName(experiment.state),
  });
}
