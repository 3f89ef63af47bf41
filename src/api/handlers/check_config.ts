import type { CheckConfigHealthResponse } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { CheckStatus, HopCheck } from '../../../gen/ts/agentllm/v1/check.js';
import { hopsOfConfig, type PlannedHop } from '../../domain/chain.js';
import { keyProblem } from '../../domain/credential.js';
import { type KeyChoice, keyOfHop } from '../../domain/key_choice.js';
import type { Config, Provider } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import { checkProvider, type ModelCheck } from '../../providers/check_provider.js';
import { saveHealth } from '../../store/config_health.js';
import { openKey } from '../../store/keys/encryption.js';
import { healthMessage } from '../messages/entities.js';
import type { Backend } from './backend.js';

/** The time limit of a check, over all providers. */
export interface TimeLimit {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** The part of a call that limits a check. */
export interface LimitedCall {
  readonly remainingMs: number;
  readonly signal: AbortSignal;
}

/**
 * The time limit of a call: less than its deadline, so that a provider that does not respond is reported as a result.
 */
export const timeLimitOf = ({ remainingMs, signal }: LimitedCall): TimeLimit => ({
  // A fifth of the time remains to save the result and to send it.
  timeoutMs: Math.floor(Math.min(limits.providerCheckMs, remainingMs * 0.8)),
  signal,
});

/** The check of one hop, or its result if no request to the provider is necessary. */
interface PlannedCheck {
  readonly hop: PlannedHop;
  readonly provider: Provider | undefined;
  readonly choice: KeyChoice;
  readonly key: string | undefined;
  readonly immediateResult: ModelCheck | undefined;
}

/**
 * Checks each hop of a config at its provider, with the key that the hop would use, and saves the results.
 */
export async function checkConfigHealth(
  backend: Backend,
  config: Config,
  call: LimitedCall,
): Promise<CheckConfigHealthResponse> {
  const { state } = backend.store;
  const [id, revision] = [config.id, BigInt(state.revision)];
  const checks = await Promise.all(hopsOfConfig(config).map((hop) => planCheck(backend, state, config, hop)));
  const results = await runChecks(backend, checks, timeLimitOf(call));
  // If the caller has cancelled, the checks were aborted and there are no results to save.
  call.signal.throwIfAborted();
  const hops = checks.map((check, index) => hopCheck(check, index, results.get(check) as ModelCheck));
  const health = { config_id: id, config_revision: config.revision, hops };
  const checked_at = await saveHealth(backend.store, health);
  return { health: healthMessage(state, state.configs.get(id) ?? config, { ...health, checked_at }), revision };
}

async function planCheck(backend: Backend, state: State, config: Config, hop: PlannedHop): Promise<PlannedCheck> {
  const provider = state.provider(hop.provider);
  if (!provider?.enabled) {
    const problem = provider ? 'is disabled; enable it' : 'is not in the catalogue; add it';
    const immediateResult = withoutRequest(
      'CHECK_STATUS_PROVIDER_DISABLED',
      `${hop.provider} ${problem}, or name another`,
    );
    return { hop, provider, choice: { source: 'KEY_SOURCE_NONE' }, key: undefined, immediateResult };
  }
  const choice = keyOfHop(state, config, provider, backend.providerKeys);
  return { hop, provider, choice, ...(await keyOf(backend, choice)) };
}

async function keyOf(backend: Backend, choice: KeyChoice): Promise<Pick<PlannedCheck, 'key' | 'immediateResult'>> {
  switch (choice.source) {
    case 'KEY_SOURCE_ENVIRONMENT': {
      const key = backend.providerKeys.get(choice.variable) as string;
      const problem = keyProblem(key);
      const message = `${choice.variable} does not contain a valid key: it ${problem}`;
      return {
        key,
        immediateResult: problem === undefined ? undefined : withoutRequest('CHECK_STATUS_INVALID', message),
      };
    }
    case 'KEY_SOURCE_NONE':
      return { key: undefined, immediateResult: undefined };
    default: {
      const entity = choice.source === 'KEY_SOURCE_CONFIG' ? 'config' : 'credential';
      const key = await openKey(backend.store, entity, choice.row);
      const owner = entity === 'config' ? 'this config' : `credential "${'name' in choice.row && choice.row.name}"`;
      const message = `The stored key of ${owner} cannot be read with this ENCRYPTION_KEY; set the key again`;
      return {
        key,
        immediateResult: key === undefined ? withoutRequest('CHECK_STATUS_KEY_UNREADABLE', message) : undefined,
      };
    }
  }
}

const withoutRequest = (status: CheckStatus, message: string): ModelCheck => ({
  status,
  message,
  latencyMs: undefined,
});

/** Runs the checks; hops with the same provider and key share one request. */
async function runChecks(
  { allowedAddresses: allowed }: Backend,
  checks: readonly PlannedCheck[],
  timeLimit: TimeLimit,
): Promise<ReadonlyMap<PlannedCheck, ModelCheck>> {
  const groups = new Map<string, PlannedCheck[]>();
  const results = new Map<PlannedCheck, ModelCheck>();
  for (const check of checks) {
    if (check.immediateResult) results.set(check, check.immediateResult);
    else {
      const group = JSON.stringify([check.provider?.name, check.key]);
      groups.set(group, [...(groups.get(group) ?? []), check]);
    }
  }
  const checkGroup = async (group: readonly PlannedCheck[]) => {
    const [{ provider, key }] = group as [PlannedCheck];
    const models = group.map(({ hop }) => hop.model_name);
    const found = await checkProvider(provider as Provider, key, models, { allowed, ...timeLimit });
    group.forEach((check, at) => {
      results.set(check, found[at] as ModelCheck);
    });
  };
  await Promise.all([...groups.values()].map(checkGroup));
  return results;
}

const hopCheck = (
  { hop, choice }: PlannedCheck,
  index: number,
  { status, message, latencyMs }: ModelCheck,
): HopCheck => ({
  index,
  source: hop.source,
  provider: hop.provider,
  model_name: hop.model_name,
  status,
  message,
  key_source: choice.source,
  key_name: keyName(choice),
  latency_ms: latencyMs,
});

function keyName(choice: KeyChoice): string {
  if (choice.source === 'KEY_SOURCE_ENVIRONMENT') return choice.variable;
  return choice.source === 'KEY_SOURCE_CREDENTIAL' ? choice.row.name : '';
}
