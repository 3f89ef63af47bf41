import type { RetirementState } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { hopsOfAgent, type PlannedHop } from './chain.js';
import type { Agent, Model } from './rows.js';
import type { State } from './state.js';

/** One use of a model that is retired, will be retired soon, or is deprecated. */
export interface RetiringUse {
  readonly agent: Agent;
  readonly hop: PlannedHop;
  readonly model: Model;
  readonly state: RetirementState;
}

const DAY_MS = 86_400_000;

/**
 * Every use of a model that is retired, retires within the given days, or has a successor. The order is by agent id;
 * within an agent its default model, then its configs by id, each before its fallback.
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
    for (const hop of hopsOfAgent(agent, state.configsOf(agent.id)).sort(byConfig)) {
      const provider = state.provider(hop.provider);
      const model = provider && state.model(provider.name, hop.model_name);
      const retirement = model && models.get(model);
      if (retirement) yield { agent, hop, model, state: retirement };
    }
}

const byConfig = (a: PlannedHop, b: PlannedHop) => (a.config?.id ?? 0) - (b.config?.id ?? 0);

function retirementOf({ retires_at, replaced_by }: Model, withinDays: number, now: Date): RetirementState | undefined {
  if (retires_at && retires_at <= now) return 'RETIREMENT_STATE_RETIRED';
  if (retires_at && retires_at.getTime() <= now.getTime() + withinDays * DAY_MS) return 'RETIREMENT_STATE_RETIRING';
  return replaced_by === null ? undefined : 'RETIREMENT_STATE_DEPRECATED';
}
