import type { ChosenVariant, VariantSettings } from './experiments/active_experiment.js';
import { withOverrides } from './experiments/variant_config.js';
import { storedKeyOf } from './key_choice.js';
import type { Agent, Config } from './rows.js';
import { canonicalName, type ResolveView } from './view.js';

/** The order of an agent's configs: by (`priority`, `id`). */
export const inChainOrder = (a: Config, b: Config): number => a.priority - b.priority || a.id - b.id;

/** The primary of configs in chain order: the first enabled one. */
export const primaryOf = (configs: readonly Config[]): Config | undefined => configs.find((c) => c.enabled);

/** A hop before its parameters are adapted to the model. */
export interface PlannedHop {
  readonly source: 'HOP_SOURCE_CONFIG' | 'HOP_SOURCE_FALLBACK' | 'HOP_SOURCE_AGENT';
  readonly config: Config | undefined;
  readonly provider: string;
  readonly model_name: string;
  /** The variant whose overrides `config` has; undefined for every other hop. */
  readonly chosen?: ChosenVariant;
}

/** A hop with its position in the chain. */
export interface ChainHop extends PlannedHop {
  /** Position in the chain, counted from 0, including dropped hops. */
  readonly index: number;
  /** Why the hop is removed from the chain, independently of the catalogue. */
  readonly dropped: 'SKIP_REASON_DUPLICATE' | 'SKIP_REASON_POLICY' | undefined;
}

/**
 * The chain of an agent: each enabled config in order, followed by its fallback.
 * If no config is enabled, the agent's default model, if it has one. A hop with
 * the provider, model and stored key of an earlier hop is dropped as a duplicate.
 * The substitution policy drops hops that may not replace the first hop, even if
 * the first hop itself cannot be used.
 *
 * With a variant of an experiment, the chain is the one that the agent would have if the base config of the variant were
 * enabled and the first one, and the first hop has the overrides. A variant whose base config no longer exists has no
 * effect.
 */
export function chainOf(view: ChainView, agent: Agent, configs: readonly Config[], chosen?: ChosenVariant): ChainHop[] {
  const base = chosen && baseConfigOf(configs, chosen.variant);
  const others = configs.filter((config) => config.enabled && config !== base).flatMap(hopsOfConfig);
  const planned = base ? [...hopsOfVariant(view, base, chosen), ...others] : others;
  if (planned.length === 0) planned.push(...agentHops(agent));
  const hops = planned.map((hop) => ({ ...hop, provider: canonicalName(view, hop.provider) }));
  const [first] = hops;
  const seen = new Set<string>();
  return hops.map((hop, index) => {
    const identity = identityOf(view, hop);
    if (seen.has(identity)) return { ...hop, index, dropped: 'SKIP_REASON_DUPLICATE' };
    seen.add(identity);
    return { ...hop, index, dropped: mayReplace(agent, first as PlannedHop, hop) ? undefined : 'SKIP_REASON_POLICY' };
  });
}

type ChainView = Pick<ResolveView, 'provider' | 'credentials'>;

/** The base config of a variant, enabled or not; undefined if it no longer exists. @param configs in chain order. */
export const baseConfigOf = (
  configs: readonly Config[],
  { config_id }: Pick<VariantSettings, 'config_id'>,
): Config | undefined => (config_id === null ? primaryOf(configs) : configs.find(({ id }) => id === config_id));

/** The hops of a variant: the model of its base config with the overrides, then the fallback of the base config. */
function hopsOfVariant(view: ChainView, base: Config, chosen: ChosenVariant): PlannedHop[] {
  const config = withOverrides(view, base, chosen.variant.overrides);
  const { provider, model_name } = config;
  const [, ...fallback] = hopsOfConfig(base);
  return [{ source: 'HOP_SOURCE_CONFIG', config, provider, model_name, chosen }, ...fallback];
}

/** Two hops with the same identity would make the same call. */
function identityOf(view: ChainView, { config, provider, model_name }: PlannedHop): string {
  const key = config && storedKeyOf(view, config, provider);
  return JSON.stringify([provider, model_name, key?.source, key?.row.id]);
}

/** Every model that an agent names, even if no call uses it: in its configs, their fallbacks and its default model. */
export const hopsOfAgent = (agent: Agent, configs: readonly Config[]): PlannedHop[] => [
  ...configs.flatMap(hopsOfConfig),
  ...agentHops(agent),
];

/** The hops of a config: its model, then its fallback. */
export function hopsOfConfig(config: Config): PlannedHop[] {
  const { provider, model_name } = config;
  const hops: PlannedHop[] = [{ source: 'HOP_SOURCE_CONFIG', config, provider, model_name }];
  if (config.fallback_provider !== null && config.fallback_model !== null)
    hops.push({
      source: 'HOP_SOURCE_FALLBACK',
      config,
      provider: config.fallback_provider,
      model_name: config.fallback_model,
    });
  return hops;
}

/** Whether an agent has a default model, which it uses when none of its configs is enabled. */
export const hasDefaultModel = ({ llm_provider, llm_model }: Agent): boolean => llm_provider !== '' && llm_model !== '';

/**
 * Whether an agent has no model to call: no config is enabled, it has no default model, and no variant of an experiment
 * has a base config.
 */
export const hasNoModel = (agent: Agent, configs: readonly Config[], chosen: ChosenVariant | undefined): boolean =>
  !hasDefaultModel(agent) && !primaryOf(configs) && !(chosen && baseConfigOf(configs, chosen.variant));

/** The agent's default model as a hop; empty if it has none. */
function agentHops(agent: Agent): PlannedHop[] {
  if (!hasDefaultModel(agent)) return [];
  const { llm_provider: provider, llm_model: model_name } = agent;
  return [{ source: 'HOP_SOURCE_AGENT', config: undefined, provider, model_name }];
}

function mayReplace(agent: Agent, first: PlannedHop, hop: PlannedHop): boolean {
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

/** The primary config of an agent in a state. */
export const primaryIn = (configs: ConfigLookup, agentId: number): Config | undefined =>
  primaryOf(configs.configsOf(agentId));

/** The part of a state that finds an agent's configs in chain order. */
export interface ConfigLookup {
  configsOf(agentId: number): readonly Config[];
}
