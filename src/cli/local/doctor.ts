import { resolve as absolute } from 'node:path';
import { Command } from 'commander';
import { z } from 'zod';
import type { GetCallerResponse } from '../../../gen/ts/agentllm/v1/access_service.js';
import type { Output } from '../../admin/protocol.js';
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
  /** The diagnoses from before the database is opened. */
  before: z.array(diagnosis).default([]),
  /** Whether the examination runs in the service that owns the database. */
  inService: z.boolean().default(false),
});
type Options = z.output<typeof options>;

/** The part of the examination that needs the database. */
export const doctorTask: Task<Options> = {
  name: 'doctor',
  options,
  async run(context, taskOptions) {
    const report = new DoctorReport(context.output, taskOptions);
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

/** The timeout is short, because a running service responds quickly. */
const connection = connectionInputs(2_000);

/** `agentllm doctor`: finds problems and suggests corrections. */
export function doctorCommand(): Command {
  const command = new Command('doctor')
    .description(
      'check settings, service, database, schema, keys, configs, providers and clock, and suggest corrections',
    )
    .option('--offline', 'call no provider', false)
    .option('--json', 'print JSON', false);
  for (const option of connection.flatMap(optionsOf)) command.addOption(option);
  return command
    .addHelpText(
      'after',
      `
Reads the settings of this shell. If a service owns the embedded database, the checks run in that service.
Nothing is changed and no model tokens are used. Exit code 1: something does not work.

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

/** Runs the database checks in the service that owns the database, or here. */
async function examineDatabase(shellSettings: Settings, options: Options): Promise<void> {
  let hasOutput = false;
  const tracking: Output = {
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
    // The service does not respond. The results of the earlier checks are still reported.
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
    await doctorTask.run({ store: new Store(database), settings: shellSettings, output: terminal }, options);
  } finally {
    await database.close();
  }
}

/** The opened database, or the diagnosis why it cannot be opened. */
async function openDatabase(shellSettings: Settings): Promise<Database | Diagnosis> {
  try {
    const absent = await absentDatabase(shellSettings);
    // The database does not exist, and opening it would create it.
    if (absent) return diagnosisFactory('database')('warn', absent, 'agentllm serve creates it at its first start');
    return await openConfigured(shellSettings);
  } catch (error) {
    if (error instanceof DirectoryInUseError) throw error;
    return databaseFailed(error);
  }
}

/** The diagnosis for a database error. */
const databaseFailed = (error: unknown): Diagnosis => ({
  area: 'database',
  verdict: 'fail',
  finding: explain(error).replaceAll('agentllm: ', '').replaceAll('\n', ' '),
});

interface ShellExamination {
  /** The settings of the shell, if they are valid; with an absolute DATA_DIR. */
  readonly settings?: Settings;
  readonly before: Diagnosis[];
}

/** The checks without a database: the settings, and whether a service responds. */
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
    const problems = error.problems.map((finding): Diagnosis => ({ area: 'settings', verdict: 'fail', finding }));
    return { before: [...problems, ...before] };
  }
}

/** Environment variables that are similar to a setting but are not one. */
function* misspelledSettings(env: NodeJS.ProcessEnv): Generator<Diagnosis> {
  const known = Object.keys(settings);
  for (const name of Object.keys(env)) {
    if (!/^[A-Z]+(_[A-Z]+)+$/.test(name) || known.includes(name)) continue;
    // A key of another provider is not a misspelled setting.
    const nearest = name.endsWith('_API_KEY') ? undefined : known.find((one) => editDistance(name, one, 3) < 3);
    if (nearest)
      yield {
        area: 'settings',
        verdict: 'warn',
        finding: `${name} is not a setting`,
        remedy: `Did you mean ${nearest}?`,
      };
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
  const answers = `A service responds at ${address}, at revision ${revision}`;
  const found = diagnosisFactory('service');
  if (!inDirectory(shellSettings) || (await findHolder(shellSettings.DATA_DIR))) return found('ok', answers);
  const remedy = 'Run agentllm doctor in its directory, or set DATA_DIR';
  return found('warn', `${answers}, and it does not use ${shellSettings.DATA_DIR}`, remedy);
}

/** The diagnosis for an error of GetCaller. */
function diagnoseFailure(error: unknown, connection: Connection): Diagnosis[] {
  const { address, addressSource } = connection;
  const found = diagnosisFactory('service');
  const noService = found('warn', `No service responds at ${address} (${addressSource})`, 'Start one: agentllm serve');
  if (!(error instanceof AgentLLMError)) return [noService];
  // An access error means that a service is running.
  const accessProblem = diagnoseAccessError(error, address);
  if (accessProblem) return [found('ok', `A service responds at ${address}`), accessProblem];
  if (error.reason) return [found('fail', `${address} returns: ${error.message}`)];
  if (error.code === 'UNIMPLEMENTED') return [found('warn', `The service at ${address} is older than this command`)];
  if (isOfTls(error.message))
    return [found('fail', `${address} (${addressSource}) cannot be called. ${inOptions(error.message)}`)];
  return [noService];
}

const MARKS = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' } as const;

/** Prints each diagnosis as it is found, and a summary at the end. */
class DoctorReport {
  private readonly found: Diagnosis[] = [];

  constructor(
    private readonly output: Output,
    private readonly options: Options,
  ) {
    for (const one of options.before) this.add(one);
  }

  add(one: Diagnosis): void {
    this.found.push(one);
    if (this.options.json) return;
    this.output.out(`${MARKS[one.verdict]}  ${one.area.padEnd(9)}  ${one.finding}`);
    if (one.remedy) this.output.out(`                 → ${one.remedy}`);
  }

  /** Prints the summary. Throws when a check failed, which sets the exit code. */
  finish(): void {
    const { found } = this;
    const count = (verdict: Diagnosis['verdict']) => found.filter((one) => one.verdict === verdict).length;
    if (this.options.json) this.output.out(JSON.stringify({ healthy: count('fail') === 0, diagnoses: found }, null, 2));
    const [fail, ok, warn] = [count('fail'), count('ok'), count('warn')];
    if (fail > 0) throw new UnhealthyError(`${fail} of ${counted(found.length, 'check')} failed`);
    if (this.options.json) return;
    const warnings = warn > 0 ? `, ${counted(warn, 'warning')}` : '';
    this.output.out(`${counted(ok, 'check')} passed${warnings}`);
  }
}

/** A check failed, and its diagnosis was printed. */
class UnhealthyError extends StartError {}
