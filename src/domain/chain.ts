import type { Agent, Config } from './rows.js';
import type { State } from './state.js';

/** The one order of an agent's configs: by (`priority`, `id`). */
export const inChainOrder = (a: Config, b: Config): number => a.priority - b.priority || a.id - b.id;

/** The primary of configs in chain order: the first enabled one. */
export const primaryOf = (configs: readonly Config[]): Config | undefined => configs.find((c) => c.enabled);

/** A model that would be tried for an agent, before it is adapted to what the model takes. */
export interface PlannedHop {
  readonly source: 'HOP_SOURCE_CONFIG' | 'HOP_SOURCE_FALLBACK' | 'HOP_SOURCE_AGENT';
  readonly config: Config | undefined;
  readonly provider: string;
  readonly model_name: string;
}

/** A chain, and the hops that are not tried with the reason why. */
export interface Chain {
  readonly hops: readonly PlannedHop[];
  readonly duplicates: readonly PlannedHop[];
  readonly cut: readonly PlannedHop[];
}

/**
 * The chain of an agent (runtime.md, "The chain"): each enabled config in order,
 * then its fallback; the agent's own model when no config is enabled. A hop that
 * repeats an earlier one collapses into it, and the substitution policy cuts
 * what may not stand in for the first.
 */
export function chainOf(agent: Agent, configs: readonly Config[]): Chain {
  const planned = configs.filter((config) => config.enabled).flatMap(hopsOfConfig);
  if (planned.length === 0) planned.push(agentHop(agent));
  const seen = new Set<string>();
  const duplicates: PlannedHop[] = [];
  const unique = planned.filter((hop) => {
    const key = JSON.stringify([hop.provider, hop.model_name]);
    if (seen.has(key)) duplicates.push(hop);
    return !seen.has(key) && seen.add(key);
  });
  const allowed = unique.filter((hop) => mayStandIn(agent, unique[0] as PlannedHop, hop));
  return { hops: allowed, duplicates, cut: unique.filter((hop) => !allowed.includes(hop)) };
}

/** Every model that an agent names, in use or not: on its configs, their fallbacks and itself. */
export const hopsOfAgent = (agent: Agent, configs: readonly Config[]): PlannedHop[] => [
  ...configs.flatMap(hopsOfConfig),
  agentHop(agent),
];

/** What a config tries: its model, then its fallback. */
export function hopsOfConfig(config: Config): PlannedHop[] {
  const own = { config, provider: config.provider, model_name: config.model_name };
  const hops: PlannedHop[] = [{ source: 'HOP_SOURCE_CONFIG', ...own }];
  if (config.fallback_provider !== null && config.fallback_model !== null)
    hops.push({
      source: 'HOP_SOURCE_FALLBACK',
      config,
      provider: config.fallback_provider,
      model_name: config.fallback_model,
    });
  return hops;
}

const agentHop = (agent: Agent): PlannedHop => ({
  source: 'HOP_SOURCE_AGENT',
  config: undefined,
  provider: agent.llm_provider,
  model_name: agent.llm_model,
});

function mayStandIn(agent: Agent, first: PlannedHop, hop: PlannedHop): boolean {
  switch (agent.substitution_policy) {
    case 'SUBSTITUTION_POLICY_NEVER':
      return hop === first;
    case 'SUBSTITUTION_POLICY_SAME_MODEL':
      return hop.model_name === first.model_name;
    case 'SUBSTITUTION_POLICY_SAME_PROVIDER':
      return hop.provider === first.provider;
    default:
      return true;
  }
}

/** The primary of an agent in a state. */
export const primaryIn = (state: State, agentId: number): Config | undefined => primaryOf(state.configsOf(agentId));
