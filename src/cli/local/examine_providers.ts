import { hopsOfConfig } from '../../domain/chain.js';
import { type KeyChoice, keyOfHop } from '../../domain/key_choice.js';
import { Keyring } from '../../domain/keyring.js';
import type { Config, Provider } from '../../domain/rows.js';
import { limits } from '../../limits.js';
import { checkProvider } from '../../providers/check_provider.js';
import { openKey } from '../../store/keys/vault.js';
import { counted } from '../kit/print.js';
import { type Diagnosis, type Examination, finder } from './diagnosis.js';
import type { Place } from './store_task.js';

/** Who has a key for each config has many: more than these are for `configs health`, which shows how far it is. */
const MOST_KEYS = 20;

const found = finder('providers');

/** A key that configs use with a provider. */
interface Use {
  readonly provider: Provider;
  readonly choice: KeyChoice;
  /** The first config that uses it. */
  readonly config: Config;
  readonly agent: string;
}

/** A provider and a key, asked once however many configs use them. */
interface Question {
  readonly use: Use;
  readonly key: string | undefined;
}

/** The providers that enabled configs name, each with every key that they would use there. */
export async function* examineProviders(place: Place, how: Examination): AsyncGenerator<Diagnosis> {
  const uses = usesOf(place);
  const questions = new Map<string, Question>();
  for (const use of uses.slice(0, MOST_KEYS)) {
    const opened = await open(place, use, how);
    if ('verdict' in opened) yield opened;
    else questions.set(JSON.stringify([use.provider.name, opened.key]), opened);
  }
  yield* await Promise.all([...questions.values()].map((question) => ask(question, place)));
  const more = uses.length - MOST_KEYS;
  if (more <= 0) return;
  const finding = `${counted(more, 'key')} more that configs use were not looked at`;
  yield found('warn', finding, 'See agentllm configs health --all');
}

function usesOf({ store: { state }, settings }: Place): Use[] {
  const uses = new Map<string, Use>();
  for (const config of state.configs.values()) {
    if (!config.enabled) continue;
    for (const hop of hopsOfConfig(config)) {
      const provider = state.provider(hop.provider);
      if (!provider?.enabled) continue;
      const choice = keyOfHop(state, config, provider, settings.providerKeys);
      const agent = state.agents.get(config.agent_id)?.name ?? '';
      const name = JSON.stringify([provider.name, choice.source, 'row' in choice && choice.row.id]);
      if (!uses.has(name)) uses.set(name, { provider, choice, config, agent });
    }
  }
  return [...uses.values()];
}

/** A key as it may be named: never by itself. */
function named({ choice, agent }: Use): string {
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

/** The key of a use, or what can be said without asking. */
async function open(
  { store, settings }: Place,
  use: Use,
  { ask, inService }: Examination,
): Promise<Question | Diagnosis> {
  const { provider, choice } = use;
  if (choice.source === 'KEY_SOURCE_NONE' && provider.api_key_env_vars.length > 0) {
    const where = inService ? `the environment of the service (process ${process.pid})` : 'this environment';
    const remedy = 'Set it to have configs without a key of their own checked; agents need it where they run';
    return found('warn', `${provider.name}: no ${provider.api_key_env_vars.join(' or ')} in ${where}`, remedy);
  }
  if (!ask) return found('ok', `${provider.name}: ${named(use)} is used`);
  if (choice.source === 'KEY_SOURCE_NONE') return { use, key: undefined };
  if (choice.source === 'KEY_SOURCE_ENVIRONMENT') return { use, key: settings.providerKeys.get(choice.variable) };
  const entity = choice.source === 'KEY_SOURCE_CONFIG' ? 'config' : 'credential';
  const key = await openKey(store, entity, choice.row, keyringOf(settings.ENCRYPTION_KEY));
  if (key !== undefined) return { use, key };
  return found('fail', `${provider.name} (${named(use)}): it cannot be read`, 'See what is said of keys above');
}

function keyringOf(setting: string): Keyring | undefined {
  try {
    return Keyring.parse(setting);
  } catch {
    return undefined;
  }
}

async function ask({ use, key }: Question, { settings }: Place): Promise<Diagnosis> {
  const options = { allowed: settings.PROVIDER_ALLOW_CIDRS, timeoutMs: limits.providerCheckMs };
  const [answer] = await checkProvider(use.provider, key, [], options);
  const finding = `${use.provider.name} (${named(use)}): ${answer?.message ?? ''}`;
  if (answer?.status === 'CHECK_STATUS_OK') return found('ok', finding);
  return found('fail', finding, `See agentllm configs health --agent ${use.agent}`);
}
