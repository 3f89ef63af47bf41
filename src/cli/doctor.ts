import { Command } from 'commander';
import { z } from 'zod';
import type { Say } from '../admin/protocol.js';
import { connect } from '../client/index.js';
import { readSettings, type Settings, SettingsError, settings } from '../config.js';
import { editDistance } from '../domain/text.js';
import { StartError } from '../errors.js';
import { openConfigured } from '../main.js';
import type { Database } from '../store/database.js';
import { DirectoryInUseError } from '../store/embedded/directory_lock.js';
import { Store } from '../store/store.js';
import { type Diagnosis, examine } from './examine.js';
import { explain } from './fail.js';
import { say } from './print.js';
import { inServiceOr, type Task } from './run.js';

const diagnosis = z.custom<Diagnosis>((value) => typeof value === 'object' && value !== null);
const options = z.object({
  json: z.boolean().default(false),
  offline: z.boolean().default(false),
  /** What was found before the database was asked. */
  before: z.array(diagnosis).default([]),
});
type Options = z.output<typeof options>;

/** What the doctor does where the database is open. */
export const doctorTask: Task<Options> = {
  name: 'doctor',
  options,
  async run(place, given) {
    const rounds = new Rounds(place.say, given);
    try {
      for await (const one of examine(place, !given.offline)) rounds.note(one);
    } catch (error) {
      rounds.note(broken(error));
    }
    rounds.end();
  },
};

/** `agentllm doctor`: what is wrong here, and what to do about it. */
export function doctorCommand(): Command {
  return new Command('doctor')
    .description('look at settings, service, database, schema, keys, configs, providers and clock, and say what to do')
    .option('--offline', 'ask no provider', false)
    .option('--json', 'print JSON', false)
    .addHelpText(
      'after',
      `
Reads the settings of this shell; where a service owns the embedded database, that service looks at itself.
Nothing is changed and no token is spent. Ends with 1 when something does not work.

Examples:
  agentllm doctor
  agentllm doctor --offline --json`,
    )
    .action(runDoctor);
}

async function runDoctor(flags: Pick<Options, 'json' | 'offline'>): Promise<void> {
  const { given, before } = await examineShell(process.env);
  const options = { ...flags, before };
  if (!given) return new Rounds(say, options).end();
  await inServiceOr(given, { command: doctorTask.name, options }, () => examineHere(given, options));
}

async function examineHere(given: Settings, options: Options): Promise<void> {
  let database: Database;
  try {
    database = await openConfigured(given);
  } catch (error) {
    if (error instanceof DirectoryInUseError) throw error;
    const rounds = new Rounds(say, options);
    rounds.note(broken(error));
    return rounds.end();
  }
  try {
    await doctorTask.run({ store: new Store(database), settings: given, say }, options);
  } finally {
    await database.close();
  }
}

/** A database that does not answer is a finding like any other. */
const broken = (error: unknown): Diagnosis => ({
  area: 'database',
  verdict: 'fail',
  finding: explain(error).replaceAll('agentllm: ', '').replaceAll('\n', ' '),
});

/** What can be said without a database: the settings, and whether a service answers. */
async function examineShell(env: NodeJS.ProcessEnv): Promise<{ given?: Settings; before: Diagnosis[] }> {
  const before = [...misspelt(env)];
  try {
    const given = readSettings(env);
    before.unshift({ area: 'settings', verdict: 'ok', finding: 'The settings of this shell are valid' });
    before.push(await examineService(given));
    return { given, before };
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    const mistakes = error.mistakes.map((finding): Diagnosis => ({ area: 'settings', verdict: 'fail', finding }));
    return { before: [...mistakes, ...before] };
  }
}

/** Variables that look like a setting of ours and are none. */
function* misspelt(env: NodeJS.ProcessEnv): Generator<Diagnosis> {
  const known = Object.keys(settings);
  for (const name of Object.keys(env)) {
    if (!/^[A-Z]+(_[A-Z]+)+$/.test(name) || known.includes(name)) continue;
    // A key of some other provider is no misspelt one of ours.
    const meant = name.endsWith('_API_KEY') ? undefined : known.find((one) => editDistance(name, one, 3) < 3);
    if (meant)
      yield { area: 'settings', verdict: 'warn', finding: `${name} is no setting`, remedy: `Is ${meant} meant?` };
  }
}

async function examineService({ GRPC_ADDRESS: { host, port, text } }: Settings): Promise<Diagnosis> {
  const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
  const client = connect({ address, retry: false, token: '' });
  try {
    const { revision } = await client.agents.listAgents({ page_size: 1 }, { deadlineMs: 2_000 });
    return { area: 'service', verdict: 'ok', finding: `A service answers at ${text}, at revision ${revision}` };
  } catch {
    const finding = `No service answers at ${text} (GRPC_ADDRESS)`;
    return { area: 'service', verdict: 'warn', finding, remedy: 'Start one: agentllm serve' };
  } finally {
    client.close();
  }
}

const MARKS = { ok: 'ok  ', warn: 'warn', fail: 'FAIL' } as const;

/** Tells of each thing as it is found, and of all in the end. */
class Rounds {
  private readonly found: Diagnosis[] = [];

  constructor(
    private readonly say: Say,
    private readonly options: Options,
  ) {
    for (const one of options.before) this.note(one);
  }

  note(one: Diagnosis): void {
    this.found.push(one);
    if (this.options.json) return;
    this.say.out(`${MARKS[one.verdict]}  ${one.area.padEnd(9)}  ${one.finding}`);
    if (one.remedy) this.say.out(`                 → ${one.remedy}`);
  }

  /** Throws when something does not work, for the exit code. */
  end(): void {
    const { found } = this;
    const count = (verdict: Diagnosis['verdict']) => found.filter((one) => one.verdict === verdict).length;
    if (this.options.json) this.say.out(JSON.stringify({ healthy: count('fail') === 0, diagnoses: found }, null, 2));
    if (count('fail') > 0) throw new StartError(`${count('fail')} of ${found.length} things looked at do not work`);
    if (this.options.json) return;
    this.say.out(`${count('ok')} things are fine${count('warn') > 0 ? `, ${count('warn')} are worth knowing` : ''}`);
  }
}
