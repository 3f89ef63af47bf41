import { Command } from 'commander';
import { version } from '../package.js';
import { EXIT_CODES, printError } from './kit/error_output.js';
import { UsageError } from './kit/inputs.js';
import { remoteCommand, withUsageErrors } from './kit/remote_command.js';

const SERVICE = 'Service and database:';
const CONFIGS = 'Agents and their configs:';
const CHANGES = 'Changes and history:';
const KEYS = 'Providers and keys:';
const COST = 'Cost and experiments:';
const ACCESS = 'Access:';
const REHEARSAL = 'Tests of agents:';
const HELP = 'Help:';

/** Each command with its group and its module. Only the requested module is loaded, which keeps the start short. */
const COMMANDS: readonly (readonly [name: string, group: string, load: () => Promise<Command>])[] = [
  ['serve', SERVICE, async () => (await import('./local/serve.js')).serveCommand()],
  ['migrate', SERVICE, async () => (await import('./local/migrate.js')).migrateCommand()],
  ['seed', SERVICE, async () => (await import('./local/seed.js')).seedCommand()],
  ['backup', SERVICE, async () => (await import('./local/backup.js')).backupCommand()],
  ['restore', SERVICE, async () => (await import('./local/restore.js')).restoreCommand()],
  ['store', SERVICE, async () => (await import('./local/store.js')).storeCommand()],
  ['key', SERVICE, async () => (await import('./remote/key.js')).keyCommand()],
  ['cert', SERVICE, async () => (await import('./local/cert.js')).certCommand()],
  ['doctor', SERVICE, async () => (await import('./local/doctor.js')).doctorCommand()],
  ['agents', CONFIGS, async () => (await import('./remote/agents.js')).agentsCommand()],
  ['configs', CONFIGS, async () => (await import('./remote/configs.js')).configsCommand()],
  ['resolve', CONFIGS, async () => remoteCommand((await import('./remote/resolve.js')).resolveAgent)],
  ['watch', CHANGES, async () => remoteCommand((await import('./remote/watch.js')).watch)],
  ['watchers', CHANGES, async () => remoteCommand((await import('./remote/watchers.js')).watchers)],
  ['history', CHANGES, async () => remoteCommand((await import('./remote/history.js')).history)],
  ['diff', CHANGES, async () => remoteCommand((await import('./remote/diff.js')).diff)],
  ['rollback', CHANGES, async () => remoteCommand((await import('./remote/rollback.js')).rollback)],
  ['audit', CHANGES, async () => remoteCommand((await import('./remote/audit.js')).audit)],
  ['providers', KEYS, async () => (await import('./remote/providers.js')).providersCommand()],
  ['models', KEYS, async () => (await import('./remote/models.js')).modelsCommand()],
  ['prices', KEYS, async () => (await import('./remote/prices.js')).pricesCommand()],
  ['credentials', KEYS, async () => (await import('./remote/credentials.js')).credentialsCommand()],
  ['usage', COST, async () => (await import('./remote/usage.js')).usageCommand()],
  ['budgets', COST, async () => (await import('./remote/budgets.js')).budgetsCommand()],
  ['experiments', COST, async () => (await import('./remote/experiments/commands.js')).experimentsCommand()],
  ['token', ACCESS, async () => (await import('./remote/token.js')).tokenCommand()],
  ['rehearse', REHEARSAL, async () => remoteCommand((await import('./remote/rehearse.js')).rehearseAgent)],
  ['fake-provider', REHEARSAL, async () => (await import('./local/fake_provider.js')).fakeProviderCommand()],
  ['completion', HELP, async () => (await import('./remote/completion.js')).completionCommand()],
];

const FIRST_STEPS = `First steps, with a running service (agentllm serve):
  agentllm agents list                                            the agents
  agentllm configs primary trader                                 the config that one of them uses
  agentllm models list --provider openai                          the models that it can use
  agentllm credentials create desk --provider openai              stores an API key; it prompts for the key
  agentllm configs upsert trader --model openai/gpt-5.4 --credential desk
  agentllm resolve trader                                         the models that it tries, in order
  agentllm history --agent trader                                 who changed what; agentllm watch shows changes live
The help of every command has examples: agentllm configs create --help`;

async function program(words: readonly string[]): Promise<Command> {
  const all = withUsageErrors(new Command('agentllm'))
    .description('The control plane for per-agent LLM configuration')
    .version(version)
    .addHelpCommand(new Command('help').argument('[command]').description('show the help of a command').helpGroup(HELP))
    .addHelpText('after', `\n${FIRST_STEPS}\n\n${EXIT_CODES}`);
  const requested = COMMANDS.filter(([name]) => name === words[0]);
  for (const [, group, load] of requested.length > 0 ? requested : COMMANDS)
    all.addCommand(withUsageErrorsInAll(await load()).helpGroup(group));
  return all;
}

/** Usage errors have the same form in all commands, also in those that call no service. */
function withUsageErrorsInAll(command: Command): Command {
  for (const one of command.commands) withUsageErrorsInAll(one);
  return withUsageErrors(command);
}

/** `agentllm help configs create` is `agentllm configs create --help`. Ends the process when the command is unknown. */
function helpWords(all: Command, names: readonly string[]): readonly string[] {
  let command: Command | undefined = all;
  for (const name of names.filter((one) => !one.startsWith('-')))
    command = command?.commands.find((one) => one.name() === name);
  if (command) return [...names, '--help'];
  const error = new UsageError(`unknown command ${names.join(' ')}`);
  process.exit(printError(error, { json: false, command: 'agentllm', inputs: [], causes: [] }));
}

/** Runs a command. The exit code is `process.exitCode`, or 0; some errors end the process. */
export async function run(words: readonly string[]): Promise<void> {
  if (words[0] === '__complete') {
    const { complete } = await import('./remote/complete.js');
    await complete(await program(words.slice(1)), words.slice(1));
    return;
  }
  const all = await program(words[0] === 'help' ? words.slice(1) : words);
  const commandLine = words[0] === 'help' ? helpWords(all, words.slice(1)) : words;
  await all.parseAsync(commandLine, { from: 'user' }).catch(fail);
}

/** The module is loaded only after a failure, because it imports the errors of the store, and with them Knex and pg. */
export async function fail(error: unknown): Promise<void> {
  (await import('./kit/failure.js')).fail(error);
}
