import { originOf } from './origin.js';
import type { Config, Credential, Provider } from './rows.js';
import { canonicalName, type ResolveView } from './view.js';

/** A key that is stored, by the row that holds it. */
export type StoredKey =
  | { readonly source: 'KEY_SOURCE_CONFIG'; readonly row: Config }
  | { readonly source: 'KEY_SOURCE_CREDENTIAL'; readonly row: Credential };

/** Which key a hop uses. */
export type KeyChoice =
  | StoredKey
  | { readonly source: 'KEY_SOURCE_ENVIRONMENT'; readonly variable: string }
  | { readonly source: 'KEY_SOURCE_NONE' };

/**
 * The stored key of a config's hop (runtime.md, "Keys"): the config's own, else its credential's, for the provider that
 * they are for and no other. One that cannot be read is still the choice: nothing takes its place in silence.
 * @param provider canonical name.
 */
export function storedKeyOf(
  view: Pick<ResolveView, 'provider' | 'credentials'>,
  config: Config,
  provider: string,
): StoredKey | undefined {
  const isFor = (name: string) => canonicalName(view, name) === provider;
  if (config.key_id !== null && isFor(config.provider)) return { source: 'KEY_SOURCE_CONFIG', row: config };
  const credential = config.credential_id === null ? undefined : view.credentials.get(config.credential_id);
  return credential && isFor(credential.provider) ? { source: 'KEY_SOURCE_CREDENTIAL', row: credential } : undefined;
}

/** The key of a hop in an environment: the stored one, else the first variable of the hop's provider that is set. */
export function keyOfHop(
  view: Pick<ResolveView, 'provider' | 'credentials'>,
  config: Config,
  provider: Provider,
  isSet: (variable: string) => boolean,
): KeyChoice {
  const stored = storedKeyOf(view, config, provider.name);
  if (stored) return stored;
  const variable = variablesOf(provider).find(isSet);
  return variable === undefined ? { source: 'KEY_SOURCE_NONE' } : { source: 'KEY_SOURCE_ENVIRONMENT', variable };
}

/** The environment variables that may hold a provider's key, in the order in which they are looked at. */
export const variablesOf = (provider: Provider): string[] =>
  provider.api_key_env_vars.filter((variable) => maySend(variable, provider));

/** The variables of the built-in providers, and the origins that they are for. */
export const BUILT_IN_KEYS: Readonly<
  Record<string, { readonly origin: string; readonly variables: readonly string[] }>
> = {
  openai: { origin: 'https://api.openai.com', variables: ['OPENAI_API_KEY'] },
  claude: { origin: 'https://api.anthropic.com', variables: ['ANTHROPIC_API_KEY'] },
  deepseek: { origin: 'https://api.deepseek.com', variables: ['DEEPSEEK_API_KEY'] },
  grok: { origin: 'https://api.x.ai', variables: ['GROK_API_KEY', 'XAI_API_KEY'] },
};

/**
 * Whether a variable may be sent to a provider: those of the built-in ones go to the built-in origins alone. A write
 * that would change that is refused; this is for rows that were changed with SQL.
 */
function maySend(variable: string, { name, built_in, base_url }: Provider): boolean {
  const owner = Object.entries(BUILT_IN_KEYS).find(([, { variables }]) => variables.includes(variable));
  if (!owner) return true;
  return built_in && name === owner[0] && originOf(base_url) === owner[1].origin;
}
