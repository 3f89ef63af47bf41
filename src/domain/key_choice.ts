import type { Config, Credential, Provider } from './rows.js';
import type { State } from './state.js';

/** Which key a hop uses. */
export type KeyChoice =
  | { readonly source: 'KEY_SOURCE_CONFIG'; readonly row: Config }
  | { readonly source: 'KEY_SOURCE_CREDENTIAL'; readonly row: Credential }
  | { readonly source: 'KEY_SOURCE_ENVIRONMENT'; readonly variable: string }
  | { readonly source: 'KEY_SOURCE_NONE' };

/**
 * The key of a hop (runtime.md, "Keys"): the config's own, else its credential's, for the provider that they are for and
 * no other; else the first environment variable of the hop's provider that is set. A stored key that cannot be read is
 * still the choice: nothing takes its place in silence.
 */
export function keyOfHop(
  state: State,
  config: Config,
  provider: Provider,
  isSet: (variable: string) => boolean,
): KeyChoice {
  if (config.key_id !== null && config.provider === provider.name) return { source: 'KEY_SOURCE_CONFIG', row: config };
  const credential = config.credential_id === null ? undefined : state.credentials.get(config.credential_id);
  if (credential?.provider === provider.name) return { source: 'KEY_SOURCE_CREDENTIAL', row: credential };
  const variable = provider.api_key_env_vars.find(isSet);
  return variable === undefined ? { source: 'KEY_SOURCE_NONE' } : { source: 'KEY_SOURCE_ENVIRONMENT', variable };
}
