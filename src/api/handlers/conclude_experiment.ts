import type {
  ConcludeExperimentRequest,
  ConcludeExperimentResponse,
} from '../../../gen/ts/agentllm/v1/experiment_service.js';
import type { Draft } from '../../domain/draft.js';
import { inState } from '../../domain/experiments/transition.js';
import { baseOf, overridesPatch, variantNamed } from '../../domain/experiments/variant.js';
import { withOverrides } from '../../domain/experiments/variant_config.js';
import type { Patch } from '../../domain/patch.js';
import type { Agent, Config, Experiment, Variant } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import type { Problems } from '../../problems.js';
import type { Call } from '../dispatch/method.js';
import { configMessage } from '../messages/entities.js';
import { experimentMessage } from '../messages/experiments.js';
import type { Backend } from './backend.js';
import { requireState, writtenExperiment } from './experiment_requests.js';
import { noEnabledConfig } from './read_configs.js';
import { write } from './read_write.js';
import { type ConfigRequest, draftProposal, proposeUpdate } from './write_config.js';

interface Concluded {
  readonly experiment: Experiment;
  /** The primary config; undefined without a winner. */
  readonly config: Config | undefined;
}

export const concludeExperiment = (
  backend: Backend,
  call: Call<ConcludeExperimentRequest, ConcludeExperimentResponse>,
): Promise<Uint8Array> =>
  write(backend, call, {
    plan: (state, draft, problems) => planConclude(state, draft, problems, call.request),
    respond: ({ experiment, config }: Concluded, revision, state) => ({
      experiment: experimentMessage(state, experiment),
      revision,
      config: config && configMessage(state, config),
    }),
  });

function planConclude(state: State, draft: Draft, problems: Problems, request: ConcludeExperimentRequest): Concluded {
  const before = writtenExperiment(state, problems, request);
  const active = ['EXPERIMENT_STATE_RUNNING', 'EXPERIMENT_STATE_PAUSED'] as const;
  requireState(before, active, 'only a RUNNING or PAUSED experiment can be concluded');
  const winner = request.winner === '' ? undefined : variantNamed(before, request.winner);
  const names = before.variants.map(({ name }) => JSON.stringify(name)).join(', ');
  if (request.winner !== '' && !winner) problems.add('winner', `must be one of the variants ${names}`);
  problems.throwIfAny();
  const config = winner && promote(state, draft, problems, before, winner, request.clear_api_key);
  const row = inState(before, 'EXPERIMENT_STATE_CONCLUDED', draft, {
    reason: request.reason,
    winner: winner?.name ?? '',
  });
  return { experiment: draft.update('experiment', before, row), config };
}

/** Applies the settings of the winner to the primary config. */
function promote(
  state: State,
  draft: Draft,
  problems: Problems,
  experiment: Experiment,
  winner: Variant,
  clearKey: boolean,
): Config {
  const agent = state.agents.get(experiment.agent_id) as Agent;
  const base = baseOf(state, agent.id, winner);
  if (!base) throw noEnabledConfig(agent);
  const front = frontPriority(state, draft, base);
  const { patch, change } = settingsOf(state, base, winner, clearKey);
  const place = { ...(front !== undefined && { priority: front }), ...(!base.enabled && { enabled: true }) };
  const proposal = proposeUpdate(state, base, { ...patch, set: { ...patch.set, ...place } }, change);
  for (const { field, description } of proposal.violations)
    problems.add('winner', `cannot be applied to config ${base.id}: ${field} ${description}`);
  problems.throwIfAny();
  const isUnchanged = Object.keys({ ...patch.set, ...place }).length + patch.cleared.size === 0;
  return isUnchanged ? base : draftProposal(state, draft, proposal, change);
}

/** The changes that give a base config the settings of a variant. */
function settingsOf(
  state: State,
  base: Config,
  { overrides }: Variant,
  clearKey: boolean,
): { patch: Patch; change: ConfigRequest } {
  const target = withOverrides(state, base, overrides);
  const patch = overridesPatch(overrides);
  const cleared = new Set<string>();
  if (base.price_given && !target.price_given) cleared.add('price_given');
  if (base.fallback_provider !== null && target.fallback_provider === null)
    for (const field of ['fallback_provider', 'fallback_model']) cleared.add(field);
  const dropsKey = clearKey && target.provider !== base.provider;
  if (dropsKey && base.credential_id !== null) cleared.add('credential_name');
  const clear_api_key = dropsKey && base.key_id !== null;
  return { patch: { ...patch, cleared }, change: { clear_api_key, allow_unknown_model: true } };
}

/**
 * The priority that moves a config to the front of the chain; undefined if it is already the primary config. If no
 * lower priority is free, the priorities of the other configs are increased.
 */
function frontPriority(state: State, draft: Draft, base: Config): number | undefined {
  const configs = state.configsOf(base.agent_id);
  const [first] = configs.filter(({ enabled }) => enabled);
  if (!first || first.id === base.id) return undefined;
  const lowest = configs[0] as Config;
  if (lowest.id === base.id) return undefined;
  if (lowest.priority > limits.priority.min) return lowest.priority - 1;
  for (const [at, other] of configs.filter(({ id }) => id !== base.id).entries())
    draft.update('config', other, { ...other, priority: limits.priority.min + 1 + at });
  return limits.priority.min;
}
