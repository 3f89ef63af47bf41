import { originOf } from '../domain/origin.js';
import { AgentLLMError } from './error.js';
import { LEASE_METHOD } from './lease.js';
import type { Leases } from './leases.js';
import type { ResolutionHop } from './resolution.js';
import type { View } from './view.js';

/** What of a hop says which key it takes; a hop of a resolution has it. */
export type KeyedHop = Pick<ResolutionHop, 'config_id' | 'provider' | 'base_url' | 'key'>;

/** The key of a hop: the stored one, or that of this process's environment. */
export async function keyOfHop(
  leases: Leases,
  view: View,
  name: string,
  hop: KeyedHop | undefined,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  if (!hop) throw refused(`Agent ${JSON.stringify(name)} has no hop to take a key for; see resolve().skipped`);
  const { config_id, provider, base_url, key } = hop;
  if (key.source === 'KEY_SOURCE_NONE') return undefined;
  if (key.source === 'KEY_SOURCE_ENVIRONMENT') return fromEnvironment(key.variables);
  const { agent } = view.agent(name)?.message ?? {};
  if (!agent || config_id === undefined) throw refused(`Agent ${JSON.stringify(name)} is gone; resolve again`);
  return leases.keyFor({ id: agent.id, name }, { config_id, provider, origin: originOf(base_url) }, signal);
}

/** An empty variable counts as not set, for the service too. */
function fromEnvironment(variables: readonly string[]): string | undefined {
  for (const variable of variables) if (process.env[variable]) return process.env[variable];
  return undefined;
}

const refused = (message: string) => AgentLLMError.here(message, { code: 'FAILED_PRECONDITION', method: LEASE_METHOD });
