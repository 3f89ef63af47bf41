import type { RetirementState } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { hopsOfAgent, type PlannedHop } from './chain.js';
import { type VariantHop, variantHops } from './experiments/variant_models.js';
import type { Agent, Model } from './rows.js';
import { isShutDown, isShutDownWithin } from './shutdown.js';
import type { State } from './state.js';

/** One use of a model that is shut down, will be shut down soon, or is deprecated. */
export interface RetiringUse {
  readonly agent: Agent;
  readonly hop: PlannedHop;
  /** The variant whose overrides name the model; undefined for every other use. */
  readonly chosen?: VariantHop['chosen'];
  readonly model: Model;
  readonly state: RetirementState;
}

/**
 * Every use of a model that is shut down, will be within the given days, or has a successor. The order is by agent id;
 * within an agent its default model, then its configs by id, each before its fallback, then the variants of its
 * experiments.
 * @param firstAgent the id of the first agent.
 */
export function* retiringUses(state: State, withinDays: number, now: Date, firstAgent = 0): Generator<RetiringUse> {
  const models = new Map<Model, RetirementState>();
  for (const model of state.modelsInOrder.after()) {
    const retirement = retirementOf(model, withinDays, now);
    if (retirement) models.set(model, retirement);
  }
  // Most stores have no retiring models, so this avoids reading their configs.
  if (models.size === 0) return;
  for (const agent of state.agentsInOrder.after(({ id }) => (id < firstAgent ? -1 : 1)))
    for (const { hop, chosen } of hopsOf(state, agent)) {
      const provider = state.provider(hop.provider);
      const model = provider && state.model(provider.name, hop.model_name);
      const retirement = model && models.get(model);
      if (retirement) yield { agent, hop, model, state: retirement, ...(chosen && { chosen }) };
    }
}

const hopsOf = (state: State, agent: Agent): Pick<RetiringUse, 'hop' | 'chosen'>[] => [
  ...hopsOfAgent(agent, state.configsOf(agent.id))
    .sort(byConfig)
    .map((hop) => ({ hop })),
  ...state.experiments
    .ofAgent(agent.id)
    .flatMap((experiment) => variantHops(state, experiment))
    .map((hop) => ({ hop, chosen: hop.chosen })),
];

const byConfig = (a: PlannedHop, b: PlannedHop) => (a.config?.id ?? 0) - (b.config?.id ?? 0);

function retirementOf(model: Model, withinDays: number, now: Date): RetirementState | undefined {
  if (isShutDown(model, now)) return 'RETIREMENT_STATE_RETIRED';
  if (isShutDownWithin(model, withinDays, now)) return 'RETIREMENT_STATE_RETIRING';
  return model.replaced_by === null ? undefined : 'RETIREMENT_STATE_DEPRECATED';
}
