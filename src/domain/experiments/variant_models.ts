import { baseConfigOf, type PlannedHop } from '../chain.js';
import type { Experiment } from '../rows.js';
import type { State } from '../state.js';
import { canonicalName } from '../view.js';
import type { ChosenVariant } from './active_experiment.js';
import { withOverrides } from './variant_config.js';

/** A first hop whose model the overrides of a variant name. */
export interface VariantHop extends PlannedHop {
  readonly chosen: ChosenVariant & { readonly experiment: Experiment };
}

/**
 * The models that the overrides of an experiment's variants name. A concluded experiment names none. Without a base config,
 * the provider of a model can be unknown; then it is left out.
 */
export function variantHops(state: State, experiment: Experiment): VariantHop[] {
  if (experiment.state === 'EXPERIMENT_STATE_CONCLUDED') return [];
  const configs = state.configsOf(experiment.agent_id);
  return experiment.variants.flatMap((variant, at): VariantHop[] => {
    const { overrides } = variant;
    if (overrides.provider === undefined && overrides.model_name === undefined) return [];
    const base = baseConfigOf(configs, variant);
    const config = base && withOverrides(state, base, overrides);
    const { provider, model_name } = config ?? overrides;
    if (provider === undefined || model_name === undefined) return [];
    const chosen = { experiment, variant, counted: true, position: at + 1 };
    return [{ source: 'HOP_SOURCE_CONFIG', config, provider: canonicalName(state, provider), model_name, chosen }];
  });
}
