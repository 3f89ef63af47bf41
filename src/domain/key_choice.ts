import { canonicalBaseUrl } from './base_url.js';
import { originOf } from './origin.js';
import type { Config, Credential, Provider } from './rows.js';
import { canonicalName, type ResolveView } from './view.js';

/** A stored key, by the row that it is stored with. */
export type StoredKey =
  | { readonly source: 'KEY_SOURCE_CONFIG'; readonly row: Config }
  | { readonly source: 'KEY_SOURCE_CREDENTIAL'; readonly row: Credential };

/** Which key a hop uses. */
export type KeyChoice =
  | StoredKey
  | { readonly source: 'KEY_SOURCE_ENVIRONMENT'; readonly variable: string }
  | { readonly source: 'KEY_SOURCE_NONE' };

/**
 * The stored key of a config's hop: the key of the config, else that of its credential, and only for the provider that
 * the key belongs to. A key that cannot be decrypted is still chosen, so that another key never silently replaces it.
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

/**
 * The key of a hop: the stored one, else the first environment variable of the hop's provider that is set and may be
 * sent to it.
 * @param keys the keys of the environment that its settings allow to be sent, by their variables.
 */
export function keyOfHop(
  view: Pick<ResolveView, 'provider' | 'credentials'>,
  config: Config,
  provider: Provider,
  keys: ReadonlyMap<string, string>,
): KeyChoice {
  const stored = storedKeyOf(view, config, provider.name);
  if (stored) return stored;
  const maySend = (variable: string) => sendProblem(variable, provider, keys.keys()) === undefined;
  const variable = provider.api_key_env_vars.find((name) => keys.has(name) && maySend(name));
  return variable === undefined ? { source: 'KEY_SOURCE_NONE' } : { source: 'KEY_SOURCE_ENVIRONMENT', variable };
}

/** The environment variables that may hold a provider's key, in the order in which they are tried. */
export const variablesOf = (provider: Provider): string[] =>
  provider.api_key_env_vars.filter((variable) => ownerProblem(variable, provider) === undefined);

/** The variables of the built-in providers, and the origins that they belong to. */
export const BUILT_IN_KEYS: Readonly<
  Record<string, { readonly origin: string; readonly variables: readonly string[] }>
> = {
  openai: { origin: 'https://api.openai.com', variables: ['OPENAI_API_KEY'] },
  claude: { origin: 'https://api.anthropic.com', variables: ['ANTHROPIC_API_KEY'] },
  deepseek: { origin: 'https://api.deepseek.com', variables: ['DEEPSEEK_API_KEY'] },
  grok: { origin: 'https://api.x.ai', variables: ['GROK_API_KEY', 'XAI_API_KEY'] },
};

/** The form of a key variable's name. Without the suffix, a provider could name any variable of an environment. */
const KEY_VARIABLE = /^[A-Z0-9_]+_API_KEY$/;

/** Why a name is not valid for a key variable, or undefined. */
export const variableProblem = (name: string): string | undefined =>
  KEY_VARIABLE.test(name)
    ? undefined
    : 'must consist of capital letters, digits and underscores and end in _API_KEY, such as LOCAL_LLM_API_KEY';

/** Parses PROVIDER_ALLOW_KEY_VARS: names separated by commas. */
export const readAllowedVariables = (setting = ''): string[] =>
  setting
    .split(',')
    .map((name) => name.trim())
    .filter(Boolean);

/** The fields of a provider that determine whether a variable may be sent to it. */
type Target = Pick<Provider, 'name' | 'base_url'>;

/**
 * Why a process must not send one of its variables to a provider, or undefined. The service and the client apply the
 * same rule, each with PROVIDER_ALLOW_KEY_VARS of its environment, so that a catalogue entry alone can never cause a
 * process to send a key.
 */
export function sendProblem(variable: string, target: Target, allowed: Iterable<string>): string | undefined {
  const owner = ownerOf(variable);
  if (owner) return ownerProblem(variable, target);
  const form = variableProblem(variable);
  if (form) return `${variable} is not the name of a key variable: it ${form}`;
  if (new Set(allowed).has(variable)) return undefined;
  return `PROVIDER_ALLOW_KEY_VARS in the environment of this process does not list ${variable}; add it if that provider may have the key`;
}

const ownerOf = (variable: string) =>
  Object.entries(BUILT_IN_KEYS).find(([, { variables }]) => variables.includes(variable));

/**
 * The variables of a built-in provider are sent only to its built-in origin. Writes that would change this are
 * rejected; this check covers rows that were changed with SQL, and services that a client does not trust.
 */
function ownerProblem(variable: string, { name, base_url }: Target): string | undefined {
  const owner = ownerOf(variable);
  const url = canonicalBaseUrl(base_url);
  if (!owner || (url !== undefined && name === owner[0] && originOf(url) === owner[1].origin)) return undefined;
  return `${variable} is sent to ${owner[0]} at ${owner[1].origin} only`;
}
