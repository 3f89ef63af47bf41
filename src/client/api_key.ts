import { canonicalBaseUrl } from '../domain/base_url.js';
import { readAllowedVariables, sendProblem } from '../domain/key_choice.js';
import { originOf } from '../domain/origin.js';
import { AgentLLMError } from './error.js';
import { LEASE_METHOD } from './lease.js';
import type { LeaseManager } from './lease_manager.js';
import type { ResolutionHop } from './resolution_types.js';
import type { View } from './view.js';

/** The fields of a hop that determine its API key. Every hop of a resolution has them. */
export type KeyedHop = Pick<ResolutionHop, 'config_id' | 'provider' | 'base_url' | 'key'>;

/** The API key of a hop: the stored key, or a variable of the environment of this process. */
export async function keyOfHop(
  leases: LeaseManager,
  view: View,
  name: string,
  hop: KeyedHop | undefined,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  if (!hop) throw failure(`Agent ${JSON.stringify(name)} has no hop to take a key for; see resolve().skipped`);
  const { config_id, provider, base_url, key } = hop;
  if (key.source === 'KEY_SOURCE_NONE') return undefined;
  // Other URL parsers could read another origin from it than the one that the key is bound to.
  if (canonicalBaseUrl(base_url) === undefined)
    throw failure(`The base URL of provider ${JSON.stringify(provider)} is not canonical; set base_url again`);
  if (key.source === 'KEY_SOURCE_ENVIRONMENT') return fromEnvironment(hop, process.env);
  const { agent } = view.agent(name)?.message ?? {};
  if (!agent || config_id === undefined) throw failure(`Agent ${JSON.stringify(name)} no longer exists; resolve again`);
  return leases.keyFor({ id: agent.id, name }, { config_id, provider, origin: originOf(base_url) }, signal);
}

/** The first variable that is set and may be sent. An empty variable counts as not set, as in the service. */
function fromEnvironment({ provider, base_url, key }: KeyedHop, env: NodeJS.ProcessEnv): string | undefined {
  const allowed = readAllowedVariables(env['PROVIDER_ALLOW_KEY_VARS']);
  const set = key.variables.filter((variable) => env[variable]);
  const problems = set.map((variable) => sendProblem(variable, { name: provider, base_url }, allowed));
  const usable = set[problems.indexOf(undefined)];
  if (usable !== undefined) return env[usable];
  if (set.length === 0) return undefined;
  const target = `provider ${JSON.stringify(provider)} at ${originOf(base_url)}`;
  throw failure(`${set.join(' and ')} may not be sent to ${target}: ${problems.join('; ')}`);
}

const failure = (message: string) => AgentLLMError.here(message, { code: 'FAILED_PRECONDITION', method: LEASE_METHOD });
