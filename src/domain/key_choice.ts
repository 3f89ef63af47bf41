import { originOf } from './credential.js';
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
  const variable = provider.api_key_env_vars.find((name) => isSet(name) && maySend(name, provider));
  return variable === undefined ? { source: 'KEY_SOURCE_NONE' } : { source: 'KEY_SOURCE_ENVIRONMENT', variable };
}

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
