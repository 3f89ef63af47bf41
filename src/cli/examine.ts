import { hopsOfConfig } from '../domain/chain.js';
import { lintChain } from '../domain/lint.js';
import { retiringUses } from '../domain/retiring.js';
import type { Provider } from '../domain/rows.js';
import type { State } from '../domain/state.js';
import { limits } from '../limits.js';
import { askProvider } from '../providers/ask.js';
import { inspectDatabase } from '../store/inspect.js';
import { catchUp } from '../store/log.js';
import { migrator } from '../store/migrate.js';
import { inspectVault } from '../store/vault.js';
import type { Place } from './run.js';

/** One thing that the doctor has looked at. */
export interface Diagnosis {
  readonly area: 'settings' | 'service' | 'database' | 'schema' | 'clock' | 'keys' | 'configs' | 'providers';
  /** `fail`: something does not work. `warn`: it works, and somebody should know. */
  readonly verdict: 'ok' | 'warn' | 'fail';
  readonly finding: string;
  /** What to do about it. */
  readonly remedy?: string;
}

const OLDEST_POSTGRES = 150_000;
const CLOCK_SKEW_MS = { warn: 2_000, fail: 60_000 };

/** Looks at the store and everything around it; the same inside a running service and beside it. Changes nothing. */
export async function* examine(place: Place, ask: boolean): AsyncGenerator<Diagnosis> {
  yield* examineDatabase(place);
  const usable = yield* examineSchema(place);
  if (!usable) return;
  await catchUp(place.store);
  yield* examineKeys(place);
  yield* examineConfigs(place.store.state);
  yield* examineProviders(place, ask);
}

async function* examineDatabase({ store: { database }, settings }: Place): AsyncGenerator<Diagnosis> {
  const { version, versionNumber, readOnly, clockAheadMs, answeredInMs } = await inspectDatabase(database);
  const { DATABASE_URL, DATA_DIR } = settings;
  const where = DATABASE_URL ? `at ${new URL(DATABASE_URL).host}` : `embedded, in ${DATA_DIR}`;
  const finding = `PostgreSQL ${version} ${where}, answers in ${answeredInMs} ms`;
  if (versionNumber < OLDEST_POSTGRES)
    yield {
      area: 'database',
      verdict: 'warn',
      finding,
      remedy: 'Upgrade it: PostgreSQL 15 is the oldest that is tested',
    };
  else yield { area: 'database', verdict: 'ok', finding };
  if (readOnly) {
    const remedy = 'Point DATABASE_URL at the primary; reads go on meanwhile';
    yield {
      area: 'database',
      verdict: 'fail',
      finding: 'It takes no writes: it is a standby or set to read-only',
      remedy,
    };
  }
  yield clock(clockAheadMs);
}

function clock(skewMs: number): Diagnosis {
  const away = Math.abs(skewMs);
  const verdict = away > CLOCK_SKEW_MS.fail ? 'fail' : away > CLOCK_SKEW_MS.warn ? 'warn' : 'ok';
  const finding = `The clock of this machine is ${(skewMs / 1000).toFixed(1)} s off the database's`;
  if (verdict === 'ok') return { area: 'clock', verdict, finding: 'The clocks of this machine and the database agree' };
  return {
    area: 'clock',
    verdict,
    finding,
    remedy: 'Let NTP set both: times in the history are those of the database',
  };
}

/** Whether the schema is one that the rest can be read from. */
async function* examineSchema({ store: { database } }: Place): AsyncGenerator<Diagnosis, boolean> {
  const { current, applied, pending, unknown } = await migrator(database).status();
  const say = (verdict: Diagnosis['verdict'], finding: string, remedy?: string): Diagnosis => ({
    area: 'schema',
    verdict,
    finding,
    ...(remedy && { remedy }),
  });
  if (unknown.length > 0)
    yield say('fail', `A newer agentllm has applied ${unknown.join(', ')}`, 'Use that version, or restore a backup');
  else if (applied.length === 0)
    yield say('warn', 'There is no schema yet', 'agentllm serve makes it at its first start');
  else if (pending.length > 0)
    yield say('warn', `Pending: ${pending.join(', ')}`, 'Start the service, or run agentllm migrate up');
  else yield say('ok', `The schema is current, at ${current}`);
  return unknown.length === 0 && pending.length === 0;
}

async function* examineKeys({ store, settings }: Place): AsyncGenerator<Diagnosis> {
  const holders = [...store.state.configs.values(), ...store.state.credentials.values()];
  const stored = holders.filter(({ key_id }) => key_id !== null).length;
  const { problem, unreadable } = await inspectVault(store, settings.ENCRYPTION_KEY);
  if (problem?.reason === 'ENCRYPTION_KEY_WRONG') {
    const finding = `ENCRYPTION_KEY is key ${problem.ours}, and the stored keys are under ${problem.theirs}`;
    yield { area: 'keys', verdict: 'fail', finding, remedy: 'Set the right one, or both, separated by a comma' };
  } else if (problem) {
    const remedy = 'Set it to what agentllm key generate prints, where API keys are to be stored';
    const verdict = stored > 0 || problem.problem !== 'is not set' ? 'fail' : 'warn';
    yield {
      area: 'keys',
      verdict,
      finding: `ENCRYPTION_KEY ${problem.problem}; ${stored} API keys are stored`,
      remedy,
    };
  } else if (unreadable.length === 0)
    yield { area: 'keys', verdict: 'ok', finding: `All of ${stored} stored API keys can be read` };
  if (unreadable.length > 0 && !problem) {
    const finding = `${unreadable.length} stored API keys cannot be read: ${shortList(unreadable)}`;
    const remedy = 'Add the ENCRYPTION_KEY that they were stored with, or set or clear those keys';
    yield { area: 'keys', verdict: 'fail', finding, remedy };
  }
}

async function* examineConfigs(state: State): AsyncGenerator<Diagnosis> {
  const now = new Date();
  const broken = [...state.agents.values()].filter(
    (agent) =>
      agent.is_active &&
      lintChain(state, agent, state.configsOf(agent.id), now).findings.some((f) => f.severity === 'SEVERITY_ERROR'),
  );
  if (broken.length > 0) {
    const finding = `${broken.length} agents have hops that would fail: ${shortList(broken.map(({ name }) => name))}`;
    yield { area: 'configs', verdict: 'fail', finding, remedy: 'See agentllm configs validate --agent <agent>' };
  } else {
    const finding = `${state.configs.size} configs of ${state.agents.size} agents, none with an error`;
    yield { area: 'configs', verdict: 'ok', finding };
  }
  const uses = retiringUses(state, limits.defaultRetiringDays, now);
  if (uses.length === 0) return;
  const finding = `${uses.length} places use models that are retired or about to be`;
  yield { area: 'configs', verdict: 'warn', finding, remedy: 'See agentllm models retiring' };
}

/** The providers that enabled configs name, each with the key of the environment. */
async function* examineProviders({ store: { state }, settings }: Place, ask: boolean): AsyncGenerator<Diagnosis> {
  const used = new Set<Provider>();
  for (const config of state.configs.values())
    if (config.enabled)
      for (const hop of hopsOfConfig(config)) {
        const provider = state.provider(hop.provider);
        if (provider?.enabled) used.add(provider);
      }
  yield* await Promise.all([...used].map((provider) => examineProvider(provider, settings, ask)));
}

async function examineProvider(provider: Provider, settings: Place['settings'], ask: boolean): Promise<Diagnosis> {
  const variable = provider.api_key_env_vars.find((name) => settings.providerKeys.has(name));
  const key = variable === undefined ? undefined : settings.providerKeys.get(variable);
  if (key === undefined && provider.api_key_env_vars.length > 0) {
    const finding = `${provider.name}: no ${provider.api_key_env_vars.join(' or ')} in this environment`;
    const remedy = 'Set it to have configs without a key of their own checked; agents need it where they run';
    return { area: 'providers', verdict: 'warn', finding, remedy };
  }
  if (!ask) return { area: 'providers', verdict: 'ok', finding: `${provider.name}: ${variable ?? 'no key'} is used` };
  const [answer] = await askProvider(provider, key, [], {
    allowed: settings.PROVIDER_ALLOW_CIDRS,
    timeoutMs: limits.providerCheckMs,
  });
  const said = answer?.message ?? '';
  if (answer?.status === 'CHECK_STATUS_OK')
    return { area: 'providers', verdict: 'ok', finding: `${provider.name}: ${said}` };
  return { area: 'providers', verdict: 'fail', finding: `${provider.name} (${variable ?? 'no key'}): ${said}` };
}

const shortList = (names: readonly string[]): string =>
  names.length <= 5 ? names.join(', ') : `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`;
