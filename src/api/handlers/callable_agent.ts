import { hasNoModel } from '../../domain/chain.js';
import type { ChosenVariant } from '../../domain/experiments/active_experiment.js';
import type { Agent, Config } from '../../domain/rows.js';
import { ServiceError } from '../../errors.js';
import { noEnabledConfig } from './read_configs.js';

/** Returns the agent; throws AGENT_INACTIVE if it is inactive. */
export function requireActive(agent: Agent): Agent {
  if (agent.is_active) return agent;
  const resources = [{ type: 'agent', name: agent.name }] as const;
  throw ServiceError.of('AGENT_INACTIVE', { agent: agent.name }, { resources });
}

/** Throws if an agent cannot be resolved: it is inactive, or has no model to call with any of these variants. */
export function requireCallable(
  agent: Agent,
  configs: readonly Config[],
  ...variants: readonly (ChosenVariant | undefined)[]
): void {
  requireActive(agent);
  if (variants.every((chosen) => hasNoModel(agent, configs, chosen))) throw noEnabledConfig(agent);
}
