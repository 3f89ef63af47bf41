import { hopsOfConfig, type PlannedHop } from '../../domain/chain.js';
import { isActive } from '../../domain/experiments/experiment_index.js';
import { baseOf } from '../../domain/experiments/variant.js';
import { variantHops } from '../../domain/experiments/variant_models.js';
import { type KeyChoice, keyOfHop } from '../../domain/key_choice.js';
import { Keyring } from '../../domain/keyring.js';
import type { Config, Provider } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import { checkProvider } from '../../providers/check_provider.js';
import { openKey } from '../../store/keys/encryption.js';
import { counted } from '../kit/print.js';
import { type Diagnosis, diagnosisFactory, type ExaminationOptions } from './diagnosis.js';
import type { TaskContext } from './store_task.js';

/** The largest number of keys to check: more are left to `configs health`, which shows its progress. */
const MAX_KEYS = 20;

const found = diagnosisFactory('providers');

/** A key that one or more configs use with a provider. */
interface KeyUse {
  readonly provider: Provider;
  readonly choice: KeyChoice;
  /** The first of these configs. */
  readonly config: Config;
  readonly agent: string;
}

/** A check of a key with its provider, done once for all configs that use the key. */
interface ProviderCheck {
  readonly use: KeyUse;
  readonly key: string | undefined;
}

/** Checks the providers of enabled configs and of variants, each with the keys that they use. */
export async function* examineProviders(context: TaskContext, options: ExaminationOptions): AsyncGenerator<Diagnosis> {
  const uses = usesOf(context);
  const checks = new Map<string, ProviderCheck>();
  for (const use of uses.slice(0, MAX_KEYS)) {
    const opened = await prepareCheck(context, use, options);
    if ('verdict' in opened) yield opened;
    else checks.set(JSON.stringify([use.provider.name, opened.key]), opened);
  }
  yield* await Promise.all([...checks.values()].map((question) => runCheck(question, context)));
  const more = uses.length - MAX_KEYS;
  if (more <= 0) return;
  const finding = `${counted(more, 'key')} more in use were not checked`;
  yield found('warn', finding, 'See agentllm configs health --all');
}

function usesOf({ store: { state }, settings }: TaskContext): KeyUse[] {
  const uses = new Map<string, KeyUse>();
  for (const { config, ...hop } of hopsInUse(state)) {
    const provider = state.provider(hop.provider);
    if (!provider?.enabled || !config) continue;
    const choice = keyOfHop(state, config, provider, settings.providerKeys);
    const agent = state.agents.get(config.agent_id)?.name ?? '';
    const name = JSON.stringify([provider.name, choice.source, 'row' in choice && choice.row.id]);
    if (!uses.has(name)) uses.set(name, { provider, choice, config, agent });
  }
  return [...uses.values()];
}

/** The hops of enabled configs, and those of the variants of experiments that are running or paused. */
function hopsInUse(state: State): PlannedHop[] {
  const active = [...state.experiments.inOrder.after()].filter(isActive);
  const bases = active.flatMap(({ agent_id, variants }) => variants.map((one) => baseOf(state, agent_id, one)));
  const configs = new Set([...state.configs.values()].filter(({ enabled }) => enabled));
  for (const base of bases) if (base) configs.add(base);
  return [...[...configs].flatMap(hopsOfConfig), ...active.flatMap((experiment) => variantHops(state, experiment))];
}

/** The label of a key, which never contains the key. */
function keyLabel({ choice, agent }: KeyUse): string {
  switch (choice.source) {
    case 'KEY_SOURCE_CONFIG':
      return `key of config ${choice.row.id} of ${agent}`;
    case 'KEY_SOURCE_CREDENTIAL':
      return `credential ${choice.row.name}`;
    case 'KEY_SOURCE_ENVIRONMENT':
      return choice.variable;
    case 'KEY_SOURCE_NONE':
      return 'no key';
  }
}

/** Decrypts the key for a check; returns a diagnosis when the provider is not called. */
async function prepareCheck(
  { store, settings }: TaskContext,
  use: KeyUse,
  { checkProviders: ask, inService }: ExaminationOptions,
): Promise<ProviderCheck | Diagnosis> {
  const { provider, choice } = use;
  if (choice.source === 'KEY_SOURCE_NONE' && provider.api_key_env_vars.length > 0) {
    const where = inService ? `the environment of the service (process ${process.pid})` : 'this environment';
    const remedy = 'Set it to check configs without their own key; agents need it in their environment';
    return found('warn', `${provider.name}: no ${provider.api_key_env_vars.join(' or ')} in ${where}`, remedy);
  }
  if (!ask) return found('ok', `${provider.name}: ${keyLabel(use)} is used`);
  if (choice.source === 'KEY_SOURCE_NONE') return { use, key: undefined };
  if (choice.source === 'KEY_SOURCE_ENVIRONMENT') return { use, key: settings.providerKeys.get(choice.variable) };
  const entity = choice.source === 'KEY_SOURCE_CONFIG' ? 'config' : 'credential';
  const key = await openKey(store, entity, choice.row, keyringOf(settings.ENCRYPTION_KEY));
  if (key !== undefined) return { use, key };
  return found('fail', `${provider.name} (${keyLabel(use)}): it cannot be read`, 'See the findings on keys above');
}

function keyringOf(setting: string): Keyring | undefined {
  try {
    return Keyring.parse(setting);
  } catch {
    return undefined;
  }
}

async function runCheck({ use, key }: ProviderCheck, { settings }: TaskContext): Promise<Diagnosis> {
  const options = { allowed: settings.PROVIDER_ALLOW_CIDRS, timeoutMs: limits.providerCheckMs };
  const [result] = await checkProvider(use.provider, key, [], options);
  const finding = `${use.provider.name} (${keyLabel(use)}): ${result?.message ?? ''}`;
  if (result?.status === 'CHECK_STATUS_OK') return found('ok', finding);
  return found('fail', finding, `See agentllm configs health --agent ${use.agent}`);
}
