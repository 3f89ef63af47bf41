import type { Config, Overrides, Variant } from '../rows.js';
import { canonicalName, type ResolveView } from '../view.js';

/**
 * The base config with the overrides of a variant. With another provider, the key and the credential of the base config
 * are not used; with another model, its price is not used.
 */
export function withOverrides(
  view: Pick<ResolveView, 'provider'>,
  base: Config,
  { extra_params, ...overrides }: Overrides,
): Config {
  const row = { ...base, ...overrides };
  const isOwnProvider = canonicalName(view, row.provider) === canonicalName(view, base.provider);
  const isOwnModel = isOwnProvider && row.model_name === base.model_name;
  return {
    ...withoutOwnFallback(view, row),
    ...(extra_params && { extra_params: { ...base.extra_params, ...extra_params } }),
    ...(!isOwnProvider && { key_id: null, key_revision: null, credential_id: null }),
    ...(!isOwnModel && { price_given: false, cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0 }),
  };
}

/**
 * Removes the fallback of a config if an override makes it equal to the model, because the same model would be called
 * again.
 */
export function withoutOwnFallback(view: Pick<ResolveView, 'provider'>, config: Config): Config {
  const { provider, model_name, fallback_provider, fallback_model } = config;
  if (fallback_provider === null || fallback_model !== model_name) return config;
  const isSame = canonicalName(view, provider) === canonicalName(view, fallback_provider);
  return isSame ? { ...config, fallback_provider: null, fallback_model: null } : config;
}

const COLUMNS = ['provider', 'model_name', 'temperature', 'max_tokens', 'top_p'] as const;

/** Whether a variant sets a field of its base config. @param path as in a config, for example `extra_params.seed`. */
export function isOverridden({ overrides }: Pick<Variant, 'overrides'>, path: string): boolean {
  const column = COLUMNS.find((one) => one === path);
  if (column) return overrides[column] !== undefined;
  const [group, name = ''] = path.split('.');
  return group === 'extra_params' && overrides.extra_params?.[name as 'seed'] !== undefined;
}
