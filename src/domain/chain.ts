import { storedKeyOf } from './key_choice.js';
import type { Agent, Config } from './rows.js';
import { canonicalName, type ResolveView } from './view.js';

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

/** A hop in its place. */
export interface ChainHop extends PlannedHop {
  /** Place in the chain as it was planned, counted from 0. */
  readonly index: number;
  /** Why it is taken out of the chain, whatever there is in the catalogue. */
  readonly dropped: 'SKIP_REASON_DUPLICATE' | 'SKIP_REASON_POLICY' | undefined;
}

/**
 * The chain of an agent (runtime.md, "The chain"): each enabled config in order,
 * then its fallback; the agent's default model, if it has one, when no config is enabled. A hop with the
 * provider, model and stored key of an earlier one collapses into it, and the
 * substitution policy cuts what may not stand in for the first hop, whether that
 * one can be tried or not.
 */
export function chainOf(view: ChainView, agent: Agent, configs: readonly Config[]): ChainHop[] {
  const planned = configs.filter((config) => config.enabled).flatMap(hopsOfConfig);
  if (planned.length === 0) planned.push(...agentHops(agent));
  const hops = planned.map((hop) => ({ ...hop, provider: canonicalName(view, hop.provider) }));
  const [first] = hops;
  const seen = new Set<string>();
  return hops.map((hop, index) => {
    const mark = markOf(view, hop);
    if (seen.has(mark)) return { ...hop, index, dropped: 'SKIP_REASON_DUPLICATE' };
    seen.add(mark);
    return { ...hop, index, dropped: mayStandIn(agent, first as PlannedHop, hop) ? undefined : 'SKIP_REASON_POLICY' };
  });
}

type ChainView = Pick<ResolveView, 'provider' | 'credentials'>;

/** What makes two hops the same: a call of one would be a call of the other. */
function markOf(view: ChainView, { config, provider, model_name }: PlannedHop): string {
  const key = config && storedKeyOf(view, config, provider);
  return JSON.stringify([provider, model_name, key?.source, key?.row.id]);
}

/** Every model that an agent names, in use or not: on its configs, their fallbacks and itself. */
export const hopsOfAgent = (agent: Agent, configs: readonly Config[]): PlannedHop[] => [
  ...configs.flatMap(hopsOfConfig),
  ...agentHops(agent),
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

/** Whether an agent has a model of its own, for when no config of it is enabled. */
export const hasDefaultModel = ({ llm_provider, llm_model }: Agent): boolean => llm_provider !== '' && llm_model !== '';

/** The agent's default model; nothing when it has none. */
function agentHops(agent: Agent): PlannedHop[] {
  if (!hasDefaultModel(agent)) return [];
  const { llm_provider: provider, llm_model: model_name } = agent;
  return [{ source: 'HOP_SOURCE_AGENT', config: undefined, provider, model_name }];
}

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
export const primaryIn = (configs: ConfigLookup, agentId: number): Config | undefined =>
  primaryOf(configs.configsOf(agentId));

/** The part of a state that finds an agent's configs in chain order. */
export interface ConfigLookup {
  configsOf(agentId: number): readonly Config[];
}
