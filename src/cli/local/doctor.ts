import { resolve as absolute } from 'node:path';
import { Command } from 'commander';
import { z } from 'zod';
import type { GetCallerResponse } from '../../../gen/ts/agentllm/v1/access_service.js';
import type { Say } from '../../admin/protocol.js';
import { AgentLLMError } from '../../client/index.js';
import { readSettings, type Settings, SettingsError, settings } from '../../config.js';
import { editDistance } from '../../domain/text.js';
import { StartError } from '../../errors.js';
import { openConfigured } from '../../main.js';
import type { Database } from '../../store/database.js';
import { DirectoryInUseError, findHolder } from '../../store/embedded/directory_lock.js';
import { Store } from '../../store/store.js';
import { type Connection, connectionInputs, openConnection } from '../kit/connection.js';
import { inOptions, isOfTls, printError } from '../kit/error_output.js';
import { explain } from '../kit/failure.js';
import { optionsOf, readInputs } from '../kit/inputs.js';
import { counted, terminal } from '../kit/print.js';
import { typedOf } from '../kit/remote_command.js';
import { type Diagnosis, diagnosisFactory } from './diagnosis.js';
import { examine, examineKeySetting } from './examine.js';
import { diagnoseAccessError, examineCaller } from './examine_access.js';
import { examineCertificate } from './examine_certificate.js';
import { absentDatabase, inDirectory, inServiceOr, type Task } from './store_task.js';

const diagnosis = z.custom<Diagnosis>((value) => typeof value === 'object' && value !== null);
const options = z.object({
  json: z.boolean().default(false),
  offline: z.boolean().default(false),
  /** What was found before the database was asked. */
  before: z.array(diagnosis).default([]),
  /** Whether the service that has the database looks at itself. */
  inService: z.boolean().default(false),
});
type Options = z.output<typeof options>;

/** What the doctor does where the database is open. */
export const doctorTask: Task<Options> = {
  name: 'doctor',
  options,
  async run(context, taskOptions) {
    const report = new DoctorReport(context.say, taskOptions);
    try {
      for await (const one of examine(context, {
        checkProviders: !taskOptions.offline,
        inService: taskOptions.inService,
      }))
        report.add(one);
    } catch (error) {
      report.add(databaseFailed(error));
    }
    report.finish();
  },
};

/** A service that is there says so soon. */
const connection = connectionInputs(2_000);

/** `agentllm doctor`: what is wrong here, and what to do about it. */
export function doctorCommand(): Command {
  const command = new Command('doctor')
    .description('look at settings, service, database, schema, keys, configs, providers and clock, and say what to do')
    .option('--offline', 'ask no provider', false)
    .option('--json', 'print JSON', false);
  for (const option of connection.flatMap(optionsOf)) command.addOption(option);
  return command
    .addHelpText(
      'after',
      `
Reads the settings of this shell; where a service owns the embedded database, that service looks at itself.
Nothing is changed and no token is spent. Ends with 1 when something does not work.

Examples:
  agentllm doctor
  agentllm doctor --offline --json`,
    )
    .action((flags: Flags) => runDoctor(flags, command));
}

type Flags = Pick<Options, 'json' | 'offline'>;

async function runDoctor({ json, offline }: Flags, command: Command): Promise<void> {
  let local: ReadonlyMap<string, unknown>;
  let shell: ShellExamination;
  try {
    local = readInputs(connection, typedOf(command, connection)).local;
    shell = await examineShell(process.env, local);
  } catch (error) {
    process.exitCode = printError(error, { json, command: 'agentllm doctor', inputs: connection, causes: [] });
    return;
  }
  const { settings: shellSettings, before } = shell;
  const options: Options = { json, offline, before, inService: false };
  if (shellSettings) await examineDatabase(shellSettings, options);
  else new DoctorReport(terminal, options).finish();
}

/** Where the database is: in the service that has it, or here. */
async function examineDatabase(shellSettings: Settings, options: Options): Promise<void> {
  let hasOutput = false;
  const tracking: Say = {
    out: (text) => {
      hasOutput = true;
      terminal.out(text);
    },
    err: terminal.err,
  };
  const request = { command: doctorTask.name, options: { ...options, inService: true } };
  try {
    await inServiceOr(shellSettings, request, () => examineHere(shellSettings, options), tracking);
  } catch (error) {
    if (!(error instanceof StartError) || error instanceof UnhealthyError) throw error;
    // A service that is stuck: what is known without it is said all the same.
    const report = new DoctorReport(terminal, hasOutput ? { ...options, before: [] } : options);
    report.add(databaseFailed(error));
    report.finish();
  }
}

async function examineHere(shellSettings: Settings, options: Options): Promise<void> {
  const database = await openDatabase(shellSettings);
  if ('verdict' in database) {
    const report = new DoctorReport(terminal, options);
    report.add(database);
    return report.finish();
  }
  try {
    await doctorTask.run({ store: new Store(database), settings: shellSettings, say: terminal }, options);
  } finally {
    await database.close();
  }
}

/** The database, or why there is none to look at. */
async function openDatabase(shellSettings: Settings): Promise<Database | Diagnosis> {
  try {
    const absent = await absentDatabase(shellSettings);
    // Opening it would make one.
    if (absent) return diagnosisFactory('database')('warn', absent, 'agentllm serve makes it at its first start');
    return await openConfigured(shellSettings);
  } catch (error) {
    if (error instanceof DirectoryInUseError) throw error;
    return databaseFailed(error);
  }
}

/** A database that does not answer is a finding like any other. */
const databaseFailed = (error: unknown): Diagnosis => ({
  area: 'database',
  verdict: 'fail',
  finding: explain(error).replaceAll('agentllm: ', '').replaceAll('\n', ' '),
});

interface ShellExamination {
  /** Its settings, where they are valid; DATA_DIR with its whole path. */
  readonly settings?: Settings;
  readonly before: Diagnosis[];
}

/** What can be said without a database: the settings, and whether a service answers. */
async function examineShell(env: NodeJS.ProcessEnv, local: ReadonlyMap<string, unknown>): Promise<ShellExamination> {
  const before = [...misspelledSettings(env)];
  try {
    const read = readSettings(env);
    const shellSettings = inDirectory(read) ? { ...read, DATA_DIR: absolute(read.DATA_DIR) } : read;
    const keyProblems = [...examineKeySetting(shellSettings.ENCRYPTION_KEY)];
    const valid: Diagnosis = { area: 'settings', verdict: 'ok', finding: 'The settings of this shell are valid' };
    const found = [
      ...(keyProblems.length > 0 ? keyProblems : [valid]),
      ...before,
      ...(await examineCertificate(shellSettings)),
    ];
    return { settings: shellSettings, before: [...found, ...(await examineService(shellSettings, local))] };
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    const mistakes = error.mistakes.map((finding): Diagnosis => ({ area: 'settings', verdict: 'fail', finding }));
    return { before: [...mistakes, ...before] };
  }
}

/** Variables that look like a setting of ours and are none. */
function* misspelledSettings(env: NodeJS.ProcessEnv): Generator<Diagnosis> {
  const known = Object.keys(settings);
  for (const name of Object.keys(env)) {
    if (!/^[A-Z]+(_[A-Z]+)+$/.test(name) || known.includes(name)) continue;
    // A key of some other provider is no misspelt one of ours.
    const nearest = name.endsWith('_API_KEY') ? undefined : known.find((one) => editDistance(name, one, 3) < 3);
    if (nearest)
      yield { area: 'settings', verdict: 'warn', finding: `${name} is no setting`, remedy: `Is ${nearest} meant?` };
  }
}

async function examineService(shellSettings: Settings, local: ReadonlyMap<string, unknown>): Promise<Diagnosis[]> {
  const { host, port } = shellSettings.GRPC_ADDRESS;
  const configured = [host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`, 'GRPC_ADDRESS'] as const;
  const connection = openConnection(local, { retry: false, deadlineMs: 2_000 }, configured);
  try {
    const caller = await connection.api.access.getCaller();
    return [await diagnoseService(shellSettings, connection, caller), ...examineCaller(caller, connection)];
  } catch (error) {
    return diagnoseFailure(error, connection);
  } finally {
    connection.api.close();
  }
}

async function diagnoseService(shellSettings: Settings, { address }: Connection, { revision }: GetCallerResponse) {
  const answers = `A service answers at ${address}, at revision ${revision}`;
  const found = diagnosisFactory('service');
  if (!inDirectory(shellSettings) || (await findHolder(shellSettings.DATA_DIR))) return found('ok', answers);
  const remedy = 'Run the doctor in its directory, or set DATA_DIR';
  return found('warn', `${answers}, and it does not use ${shellSettings.DATA_DIR}`, remedy);
}

/** Why a service does not say for whom it takes us. */
function diagnoseFailure(error: unknown, connection: Connection): Diagnosis[] {
  const { address, addressSource } = connection;
  const found = diagnosisFactory('service');
  const noService = found('warn', `No service answers at ${address} (${addressSource})`, 'Start one: agentllm serve');
  if (!(error instanceof AgentLLMError)) return [noService];
  // Who refuses is there.
  const accessProblem = diagnoseAccessError(error, address);
  if (accessProblem) return [found('ok', `A service answers at ${address}`), accessProblem];
  if (error.reason) return [found('fail', `${address} answers: ${error.message}`)];
  if (error.code === 'UNIMPLEMENTED') return [found('warn', `What answers at ${address} is older than this command`)];
  if (isOfTls(error.message))
    return [found('fail', `${address} (${addressSource}) cannot be called. ${inOptions(error.message)}`)];
  return [noService];
}

const MARKS = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' } as const;

/** Tells of each thing as it is found, and of all in the end. */
class DoctorReport {
  private readonly found: Diagnosis[] = [];

  constructor(
    private readonly say: Say,
    private readonly options: Options,
  ) {
    for (const one of options.before) this.add(one);
  }

  add(one: Diagnosis): void {
    this.found.push(one);
    if (this.options.json) return;
    this.say.out(`${MARKS[one.verdict]}  ${one.area.padEnd(9)}  ${one.finding}`);
    if (one.remedy) this.say.out(`                 → ${one.remedy}`);
  }

  /** Throws when something does not work, for the exit code. */
  finish(): void {
    const { found } = this;
    const count = (verdict: Diagnosis['verdict']) => found.filter((one) => one.verdict === verdict).length;
    if (this.options.json) this.say.out(JSON.stringify({ healthy: count('fail') === 0, diagnoses: found }, null, 2));
    const [fail, ok, warn] = [count('fail'), count('ok'), count('warn')];
    if (fail > 0)
      throw new UnhealthyError(
        `${fail} of ${counted(found.length, 'thing')} looked at ${fail === 1 ? 'does' : 'do'} not work`,
      );
    if (this.options.json) return;
    const warnings = warn > 0 ? `, ${warn} ${warn === 1 ? 'is' : 'are'} worth knowing` : '';
    this.say.out(`${counted(ok, 'thing')} ${ok === 1 ? 'is' : 'are'} fine${warnings}`);
  }
}

/** Something does not work, and was told of. */
class UnhealthyError extends StartError {}
