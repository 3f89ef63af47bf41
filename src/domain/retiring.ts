import type { RetirementState } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { hopsOfAgent, type PlannedHop } from './chain.js';
import type { Agent, Model } from './rows.js';
import type { State } from './state.js';

/** One place that names a model which is retired, or is about to be. */
export interface RetiringUse {
  readonly agent: Agent;
  readonly hop: PlannedHop;
  readonly model: Model;
  readonly state: RetirementState;
}

const DAY_MS = 86_400_000;

/**
 * Every use of a model that is retired, is switched off within the days, or has a successor; by agent, the model of the
 * agent itself before those of its configs by id, and each before its fallback.
 * @param firstAgent where to begin, by id.
 */
export function* retiringUses(state: State, withinDays: number, now: Date, firstAgent = 0): Generator<RetiringUse> {
  const models = new Map<Model, RetirementState>();
  for (const model of state.modelsInOrder.after()) {
    const fate = fateOf(model, withinDays, now);
    if (fate) models.set(model, fate);
  }
  // Few models are about to go, so most stores need no look at their configs.
  if (models.size === 0) return;
  for (const agent of state.agentsInOrder.after(({ id }) => (id < firstAgent ? -1 : 1)))
    for (const hop of hopsOfAgent(agent, state.configsOf(agent.id)).sort(byConfig)) {
      const provider = state.provider(hop.provider);
      const model = provider && state.model(provider.name, hop.model_name);
      const fate = model && models.get(model);
      if (fate) yield { agent, hop, model, state: fate };
    }
}

const byConfig = (a: PlannedHop, b: PlannedHop) => (a.config?.id ?? 0) - (b.config?.id ?? 0);

function fateOf({ retires_at, replaced_by }: Model, withinDays: number, now: Date): RetirementState | undefined {
  if (retires_at && retires_at <= now) return 'RETIREMENT_STATE_RETIRED';
  if (retires_at && retires_at.getTime() <= now.getTime() + withinDays * DAY_MS) return 'RETIREMENT_STATE_RETIRING';
  return replaced_by === null ? undefined : 'RETIREMENT_STATE_DEPRECATED';
}
