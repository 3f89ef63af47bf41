import { primaryIn } from '../chain.js';
import type { Patch } from '../patch.js';
import type { Config, Experiment, Overrides, Variant } from '../rows.js';

/** The overrides of a variant as a change of a config. */
export function overridesPatch({ extra_params = {}, ...overrides }: Overrides): Patch {
  const extra = Object.entries(extra_params).map(([name, value]) => [`extra_params.${name}`, value] as const);
  return {
    set: { ...overrides, ...Object.fromEntries(extra) },
    cleared: new Set(),
    invalid: new Set(),
    violations: [],
  };
}

/** The part of a state that finds configs. */
interface Configs {
  readonly configs: ReadonlyMap<number, Config>;
  configsOf(agentId: number): readonly Config[];
}

/** The base config of a variant; undefined if it does not exist. */
export function baseOf(configs: Configs, agentId: number, variant: Pick<Variant, 'config_id'>): Config | undefined {
  if (variant.config_id === null) return primaryIn(configs, agentId);
  const config = configs.configs.get(variant.config_id);
  return config?.agent_id === agentId ? config : undefined;
}

export const controlOf = ({ variants }: Pick<Experiment, 'variants'>): Variant =>
  variants.find(({ control }) => control) as Variant;

export const variantNamed = ({ variants }: Pick<Experiment, 'variants'>, name: string): Variant | undefined =>
  variants.find((variant) => variant.name === name);
