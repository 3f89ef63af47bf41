import type { CheckConfigHealthResponse } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { CheckStatus, HopCheck } from '../../../gen/ts/agentllm/v1/check.js';
import { hopsOfConfig, type PlannedHop } from '../../domain/chain.js';
import { keyProblem } from '../../domain/credential.js';
import { type KeyChoice, keyOfHop } from '../../domain/key_choice.js';
import type { Config, Provider } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import { type Answer, checkProvider } from '../../providers/check_provider.js';
import { saveHealth } from '../../store/config_health.js';
import { openKey } from '../../store/keys/vault.js';
import { healthMessage } from '../messages/entities.js';
import type { Backend } from './backend.js';

/** How long providers may take, all together. */
export interface Patience {
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

/** A call whose caller waits. */
export interface Waiting {
  readonly remainingMs: number;
  readonly signal: AbortSignal;
}

/** At most what the caller waits for: what providers did not say by then is an answer too. */
export const patienceOf = ({ remainingMs, signal }: Waiting): Patience => ({
  // A fifth is left to keep the answer and send it.
  timeoutMs: Math.floor(Math.min(limits.providerCheckMs, remainingMs * 0.8)),
  signal,
});

/** One hop with what is to be asked about it, or the answer that stands without asking. */
interface Question {
  readonly hop: PlannedHop;
  readonly provider: Provider | undefined;
  readonly choice: KeyChoice;
  readonly key: string | undefined;
  readonly settled: Answer | undefined;
}

/**
 * Asks the providers of a config about each of its hops, with the key that the hop would use, and keeps the answers.
 */
export async function checkConfigHealth(
  backend: Backend,
  config: Config,
  call: Waiting,
): Promise<CheckConfigHealthResponse> {
  const { state } = backend.store;
  const [id, revision] = [config.id, BigInt(state.revision)];
  const questions = await Promise.all(hopsOfConfig(config).map((hop) => questionOf(backend, state, config, hop)));
  const answers = await ask(backend, questions, patienceOf(call));
  // Nobody waits any more, and what was cut short says nothing of the provider.
  call.signal.throwIfAborted();
  const hops = questions.map((question, index) => hopCheck(question, index, answers.get(question) as Answer));
  const kept = { config_id: id, config_revision: config.revision, hops };
  const checked_at = await saveHealth(backend.store, kept);
  return { health: healthMessage(state, state.configs.get(id) ?? config, { ...kept, checked_at }), revision };
}

async function questionOf(backend: Backend, state: State, config: Config, hop: PlannedHop): Promise<Question> {
  const provider = state.provider(hop.provider);
  if (!provider?.enabled) {
    const what = provider ? 'is switched off; enable it' : 'is not in the catalogue; add it';
    const settled = unasked('CHECK_STATUS_PROVIDER_DISABLED', `${hop.provider} ${what}, or name another`);
    return { hop, provider, choice: { source: 'KEY_SOURCE_NONE' }, key: undefined, settled };
  }
  const choice = keyOfHop(state, config, provider, backend.providerKeys);
  return { hop, provider, choice, ...(await keyOf(backend, choice)) };
}

async function keyOf(backend: Backend, choice: KeyChoice): Promise<Pick<Question, 'key' | 'settled'>> {
  switch (choice.source) {
    case 'KEY_SOURCE_ENVIRONMENT': {
      const key = backend.providerKeys.get(choice.variable) as string;
      const problem = keyProblem(key);
      const message = `${choice.variable} holds no key: it ${problem}`;
      return { key, settled: problem === undefined ? undefined : unasked('CHECK_STATUS_INVALID', message) };
    }
    case 'KEY_SOURCE_NONE':
      return { key: undefined, settled: undefined };
    default: {
      const entity = choice.source === 'KEY_SOURCE_CONFIG' ? 'config' : 'credential';
      const key = await openKey(backend.store, entity, choice.row);
      const owner = entity === 'config' ? 'this config' : `credential "${'name' in choice.row && choice.row.name}"`;
      const message = `The stored key of ${owner} cannot be read with this ENCRYPTION_KEY; set the key again`;
      return { key, settled: key === undefined ? unasked('CHECK_STATUS_KEY_UNREADABLE', message) : undefined };
    }
  }
}

const unasked = (status: CheckStatus, message: string): Answer => ({ status, message, latencyMs: undefined });

/** Hops with the same provider and key share one question. */
async function ask(
  { allowedAddresses: allowed }: Backend,
  questions: readonly Question[],
  patience: Patience,
): Promise<ReadonlyMap<Question, Answer>> {
  const groups = new Map<string, Question[]>();
  const answers = new Map<Question, Answer>();
  for (const question of questions) {
    if (question.settled) answers.set(question, question.settled);
    else {
      const group = JSON.stringify([question.provider?.name, question.key]);
      groups.set(group, [...(groups.get(group) ?? []), question]);
    }
  }
  const askGroup = async (group: readonly Question[]) => {
    const [{ provider, key }] = group as [Question];
    const models = group.map(({ hop }) => hop.model_name);
    const found = await checkProvider(provider as Provider, key, models, { allowed, ...patience });
    group.forEach((question, at) => {
      answers.set(question, found[at] as Answer);
    });
  };
  await Promise.all([...groups.values()].map(askGroup));
  return answers;
}

const hopCheck = ({ hop, choice }: Question, index: number, { status, message, latencyMs }: Answer): HopCheck => ({
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
