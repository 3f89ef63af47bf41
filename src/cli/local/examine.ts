import { resolve as absolute } from 'node:path';
import type { Finding } from '../../../gen/ts/agentllm/v1/finding.js';
import { baseConfigOf } from '../../domain/chain.js';
import { displayAddress, parseDatabaseUrl } from '../../domain/database_url.js';
import { UNBOUND } from '../../domain/encryption_state.js';
import { ActiveExperiment, type ChosenVariant } from '../../domain/experiments/active_experiment.js';
import { Keyring } from '../../domain/keyring.js';
import { lintChain } from '../../domain/lint.js';
import { retiringUses } from '../../domain/retiring.js';
import type { Agent } from '../../domain/rows.js';
import { isShutDown } from '../../domain/shutdown.js';
import { shutdownUses } from '../../domain/shutdown_uses.js';
import type { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import type { Database } from '../../store/database.js';
import { inspectEncryption } from '../../store/keys/encryption.js';
import { refuseForeignNames } from '../../store/maintenance/foreign_names.js';
import { inspectDatabase } from '../../store/maintenance/inspect.js';
import { migrator } from '../../store/maintenance/migrate.js';
import { missingForMigrations, missingForRenewal, missingPrivileges } from '../../store/maintenance/privileges.js';
import { catchUp } from '../../store/write/change_log.js';
import { counted } from '../kit/print.js';
import { type Diagnosis, diagnosisFactory, type ExaminationOptions } from './diagnosis.js';
import { examineTokens } from './examine_access.js';
import { examineProviders } from './examine_providers.js';
import { inDirectory, type TaskContext } from './store_task.js';

const OLDEST_POSTGRES = 150_000;
const CLOCK_SKEW_MS = { warn: 2_000, fail: 60_000 };

/** Checks the store and its environment, inside a running service or without one. Changes nothing. */
export async function* examine(context: TaskContext, options: ExaminationOptions): AsyncGenerator<Diagnosis> {
  yield* examineDatabase(context);
  const usable = yield* examineSchema(context);
  if (!usable) return;
  await catchUp(context.store);
  yield* examineTokens(context.store.state, new Date());
  yield* examineKeys(context, options);
  yield* examineConfigs(context.store.state);
  yield* examineProviders(context, options);
}

async function* examineDatabase({ store: { database }, settings }: TaskContext): AsyncGenerator<Diagnosis> {
  const { version, versionNumber, readOnly, clockAheadMs, answeredInMs } = await inspectDatabase(database);
  const { DATABASE_URL, DATA_DIR } = settings;
  const directory = inDirectory(settings) ? absolute(DATA_DIR) : DATA_DIR;
  const where = DATABASE_URL ? `at ${displayAddress(parseDatabaseUrl(DATABASE_URL))}` : `embedded, in ${directory}`;
  const finding = `PostgreSQL ${version} ${where}, responds in ${answeredInMs} ms`;
  if (versionNumber < OLDEST_POSTGRES)
    yield {
      area: 'database',
      verdict: 'warn',
      finding,
      remedy: 'Upgrade it: PostgreSQL 15 is the oldest tested version',
    };
  else yield { area: 'database', verdict: 'ok', finding };
  if (readOnly) {
    const remedy = 'Point DATABASE_URL at the primary; reads continue meanwhile';
    yield {
      area: 'database',
      verdict: 'fail',
      finding: 'The database accepts no writes: it is a standby or set to read-only',
      remedy,
    };
  }
  yield clock(clockAheadMs);
}

function clock(skewMs: number): Diagnosis {
  const skew = Math.abs(skewMs);
  const verdict = skew > CLOCK_SKEW_MS.fail ? 'fail' : skew > CLOCK_SKEW_MS.warn ? 'warn' : 'ok';
  const finding = `The clock of this machine is ${(skewMs / 1000).toFixed(1)} s off the clock of the database`;
  if (verdict === 'ok') return { area: 'clock', verdict, finding: 'The clocks of this machine and the database agree' };
  return {
    area: 'clock',
    verdict,
    finding,
    remedy: 'Synchronize both with NTP: times in the history come from the database',
  };
}

/** Checks the schema. Returns whether the other checks can read from it. */
async function* examineSchema({ store: { database } }: TaskContext): AsyncGenerator<Diagnosis, boolean> {
  const found = diagnosisFactory('schema');
  const missing = await missingPrivileges(database.knex);
  for (const { finding, remedy } of missing) yield found('fail', finding, remedy);
  if (missing.length > 0) return false;
  for (const { finding, remedy } of await missingForRenewal(database.knex)) yield found('warn', finding, remedy);
  const { current, applied, pending, unknown } = await migrator(database).status();
  if (pending.length > 0 && unknown.length === 0) yield* examineMigratable(database, pending);
  if (unknown.length > 0)
    yield found('fail', `A newer agentllm has applied ${unknown.join(', ')}`, 'Use that version, or restore a backup');
  else if (applied.length === 0)
    yield found('warn', 'There is no schema yet', 'agentllm serve creates it at its first start');
  else if (pending.length > 0)
    yield found('warn', `Pending: ${pending.join(', ')}`, 'Start the service, or run agentllm migrate up');
  else yield found('ok', `The schema is current, at ${current}`);
  return unknown.length === 0 && pending.length === 0;
}

/** Checks whether the next start can apply the pending migrations. */
async function* examineMigratable({ knex }: Database, pending: readonly string[]): AsyncGenerator<Diagnosis> {
  const found = diagnosisFactory('schema');
  for (const { finding, remedy } of await missingForMigrations(knex)) yield found('fail', finding, remedy);
  try {
    await refuseForeignNames(knex, pending);
  } catch (error) {
    yield found('fail', (error as Error).message);
  }
}

/** Checks the form of ENCRYPTION_KEY, without the database. */
export function* examineKeySetting(setting: string): Generator<Diagnosis> {
  if (setting.trim() === '') return;
  try {
    Keyring.parse(setting);
  } catch (error) {
    const finding = `ENCRYPTION_KEY is malformed (${(error as Error).message})`;
    yield { area: 'settings', verdict: 'fail', finding, remedy: 'Set it to the output of agentllm key generate' };
  }
}

async function* examineKeys(
  { store, settings }: TaskContext,
  { inService }: ExaminationOptions,
): AsyncGenerator<Diagnosis> {
  const holders = [...store.state.configs.values(), ...store.state.credentials.values()];
  const keyIds = holders.map(({ key_id }) => key_id).filter((id) => id !== null);
  const stored = counted(keyIds.length, 'API key');
  const { problem, unreadable } = await inspectEncryption(store, settings.ENCRYPTION_KEY);
  const found = diagnosisFactory('keys');
  if (problem?.reason === 'ENCRYPTION_KEY_WRONG') {
    const finding = `ENCRYPTION_KEY is key ${problem.ours}, and the stored keys are under ${problem.theirs}`;
    yield found('fail', finding, 'Set the correct key, or both keys, separated by a comma');
  } else if (problem) {
    const isSet = problem.problem !== 'is not set';
    const finding = `ENCRYPTION_KEY ${problem.problem}; ${stored} ${keyIds.length === 1 ? 'is' : 'are'} stored`;
    const remedy = 'To store API keys, set it to the output of agentllm key generate';
    if (keyIds.length > 0) yield found('fail', finding, wrongKeyRemedy(keyIds));
    // The settings of the shell were checked before.
    else if (inService || !isSet) yield found(isSet ? 'fail' : 'warn', finding, remedy);
  } else if (unreadable.length > 0) {
    const finding = `${counted(unreadable.length, 'stored API key')} cannot be read: ${shortList(unreadable)}`;
    yield found('fail', finding, 'Add the encryption key that they were stored with, or set or clear these keys');
  } else yield found('ok', `${stored} stored, ${keyIds.length === 1 ? 'which' : 'all of which'} can be read`);
}

function wrongKeyRemedy(all: readonly string[]): string {
  const ids = [...new Set(all)].filter((id) => id !== UNBOUND);
  const which = ids.length > 0 ? ` (${ids.join(', ')})` : '';
  return `Set it to the key that encrypted them${which}; a new key cannot read them. If the key is lost, set a new one and enter the API keys again`;
}

async function* examineConfigs(state: State): AsyncGenerator<Diagnosis> {
  const now = new Date();
  const active = [...state.agents.values()].filter(({ is_active }) => is_active);
  const broken = active.filter((agent) => hasFailingHop(state, agent, undefined, now));
  if (broken.length > 0) {
    const finding = `${counted(broken.length, 'agent')} with hops that would fail: ${shortList(broken.map(({ name }) => name))}`;
    yield { area: 'configs', verdict: 'fail', finding, remedy: 'See agentllm configs validate --agent <agent>' };
  }
  const ofVariants = active.filter((agent) => !broken.includes(agent) && hasFailingVariant(state, agent, now));
  if (ofVariants.length > 0) {
    const names = shortList(ofVariants.map(({ name }) => name));
    const finding = `${counted(ofVariants.length, 'agent')} with a variant of an experiment that would fail: ${names}`;
    yield { area: 'configs', verdict: 'fail', finding, remedy: 'See agentllm resolve <agent> --subject <subject>' };
  }
  if (broken.length + ofVariants.length === 0) {
    const errors = shutdownUses(state, 0, now).length > 0 ? 'another error' : 'an error';
    const configs = `${counted(state.configs.size, 'config')} of ${counted(state.agents.size, 'agent')}`;
    const finding = `${configs}, none with ${errors}`;
    yield { area: 'configs', verdict: 'ok', finding };
  }
  yield* examineShutdowns(state, now);
}

const hasFailingHop = (state: State, agent: Agent, chosen: ChosenVariant | undefined, now: Date): boolean =>
  lintChain(state, agent, state.configsOf(agent.id), now, { chosen }).findings.some(wouldFail);

/** Whether a hop of a variant of the agent's active experiment would fail. */
function hasFailingVariant(state: State, agent: Agent, now: Date): boolean {
  const configs = state.configsOf(agent.id);
  const choices = ActiveExperiment.among(state.experiments.activeOf(agent.id))?.choices ?? [];
  return choices.some((chosen) => baseConfigOf(configs, chosen.variant) && hasFailingHop(state, agent, chosen, now));
}

/** Checks the shutdown dates of the models that agents use, and of all other models that they name. */
function* examineShutdowns(state: State, now: Date): Generator<Diagnosis> {
  const found = diagnosisFactory('configs');
  const remedy = 'See agentllm models retiring';
  const inUse = shutdownUses(state, limits.defaultRetiringDays, now);
  for (const { model, text, command } of inUse)
    yield found(isShutDown(model, now) ? 'fail' : 'warn', text, command ?? remedy);
  const reported = new Set(inUse.map(({ model }) => model));
  const others = [...retiringUses(state, limits.defaultRetiringDays, now)].filter(({ model }) => !reported.has(model));
  if (others.length === 0) return;
  const days = limits.defaultRetiringDays;
  const where = 'such as default models, disabled configs and drafts of experiments';
  yield found(
    'warn',
    `${counted(others.length, 'other use')} of models that are deprecated or shut down within ${days} days, ${where}`,
    remedy,
  );
}

/**
 * Excludes unreadable keys, because examineKeys reports them and the linted state here cannot decrypt any key, and
 * shutdowns, which examineShutdowns reports by model.
 */
const wouldFail = ({ severity, reason }: Finding) =>
  severity === 'SEVERITY_ERROR' &&
  reason !== 'FINDING_REASON_KEY_UNREADABLE' &&
  reason !== 'FINDING_REASON_MODEL_RETIRING';

const shortList = (names: readonly string[]): string =>
  names.length <= 5 ? names.join(', ') : `${names.slice(0, 5).join(', ')} and ${names.length - 5} more`;
