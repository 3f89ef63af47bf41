import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { Command, type CommanderError, type Option } from 'commander';
import type { Duration } from '../../../gen/ts/google/protobuf/duration.js';
import type { AgentLLM } from '../../client/index.js';
import { type Connection, connectionInputs, DEFAULT_TIMEOUT_MS, openConnection } from './connection.js';
import { type Context, Exit, printError } from './error_output.js';
import { type Body, readBody } from './from_file.js';
import {
  argumentOf,
  type Input,
  inputOf,
  isArgument,
  maskOf,
  optionsOf,
  type ParsedInputs,
  readInputs,
  type Typed,
  UsageError,
  unset,
} from './inputs.js';
import { terminal, toJson } from './print.js';
import { readSecret } from './stdin.js';
import { file, flag, list, word } from './values.js';

/** A command that calls a service. */
export interface RemoteCommand {
  readonly name: string;
  /** What it does: a phrase without a full stop. */
  readonly description: string;
  /** Further help, printed below the options. */
  readonly more?: string;
  readonly inputs: readonly Input[];
  /** Examples that work on a fresh service in this order; a test runs them. */
  readonly examples: readonly Example[];
  /** The commands to use next. */
  readonly next?: string;
  /** The resource that the request sends. Such a command has `--from-file`. */
  readonly body?: Body;
  /** Whether it updates a resource. Such a command has `--unset` and sends an update mask. */
  readonly patches?: boolean;
  /** The deadline without `--timeout`. */
  readonly timeoutMs?: number;
  /** Checks and completes the command line before a connection is opened. */
  prepare?(parsed: ParsedInputs): ParsedInputs;
  /** Prints the result; returns an exit code other than 0, or undefined. */
  run(call: Call): Promise<number | undefined>;
}

export type Example = readonly [command: string, description: string];

/** One run of a command. */
export interface Call {
  readonly api: AgentLLM;
  /** The address of the service. */
  readonly address: string;
  readonly inputs: ParsedInputs;
  readonly json: boolean;
  /** The request from the command line, as the request type of the method. */
  request<Request>(more?: Readonly<Record<string, unknown>>): Request;
  /** The value of an input without a path in the request. */
  local<Value>(name: string): Value | undefined;
  /** Prints the response as JSON, or as text. */
  print(response: object, text: () => string): undefined;
}

const jsonInput: Input = {
  name: 'json',
  kind: flag,
  help: 'print the response as JSON with the field names of the API; errors too, on standard error',
};
const fromFileInput = (patches: boolean): Input => ({
  name: 'from-file',
  short: 'f',
  kind: file,
  help: `JSON file with the fields, as get or show --json prints them; - is standard input; options override it${patches ? ', null clears a field' : ''}`,
});
function unsetInput(inputs: readonly Input[]): Input {
  const offers = inputs.filter(({ clears }) => clears).map(({ name }) => name);
  return {
    name: 'unset',
    kind: { ...list(word('names')), suggestions: offers },
    help: `options whose fields are cleared, such as ${offers.slice(0, 3).join(',')}`,
  };
}

/** All inputs of a command: its own inputs, and those that all commands of its kind have. */
export const inputsOf = ({
  inputs,
  body,
  patches = false,
  timeoutMs = DEFAULT_TIMEOUT_MS,
}: RemoteCommand): readonly Input[] => [
  ...inputs,
  ...(body ? [fromFileInput(patches)] : []),
  ...(patches ? [unsetInput(inputs)] : []),
  jsonInput,
  ...connectionInputs(timeoutMs),
];

/** A group of commands for one resource, `agentllm agents …`. */
export function remoteGroup(
  name: string,
  description: string,
  more: string,
  commands: readonly RemoteCommand[],
): Command {
  const group = withUsageErrors(new Command(name).description(description)).addHelpText('after', `\n${more}`);
  for (const spec of commands) group.addCommand(remoteCommand(spec));
  return group;
}

export function remoteCommand(spec: RemoteCommand): Command {
  const command = withUsageErrors(new Command(spec.name).description(spec.description));
  for (const input of inputsOf(spec)) {
    if (isArgument(input)) command.addArgument(argumentOf(input));
    else for (const option of optionsOf(input)) command.addOption(option);
  }
  return command.addHelpText('after', `\n${afterHelp(spec)}`).action(() => runRemote(spec, command));
}

function afterHelp({ more, examples, next }: RemoteCommand): string {
  const lines = examples.map(([example, description]) => `  # ${description}\n  $ ${example}`);
  return [more, `Examples:\n${lines.join('\n')}`, next && `Next: ${next}`].filter(Boolean).join('\n\n');
}

/**
 * The text of an option in the help. A flag is shown with its `--no-` form, a key option without a value, because it
 * rejects values.
 */
function termOf(option: Option): string {
  if (inputOf.get(option)?.kind.negatable) return option.flags.replace('--', '--[no-]');
  return option.flags.replace(' [value]', '');
}

/** Reports usage errors of commander in the form of the other errors, with exit code 2. */
export function withUsageErrors(command: Command): Command {
  return command
    .configureOutput({ outputError: () => {} })
    .configureHelp({ optionTerm: termOf })
    .exitOverride((error: CommanderError) => {
      if (error.exitCode === 0) process.exit(Exit.done);
      // The printed help lists the missing subcommands.
      if (error.code === 'commander.help') process.exit(Exit.usage);
      const json = process.argv.includes('--json');
      const context = { json, command: pathOf(command), inputs: [], causes: [] };
      process.exit(printError(usageOf(error, command), context));
    });
}

/** The message of commander, without the value after a `=`: it may be a key, typed for another option. */
function usageOf({ message, code }: CommanderError, command: Command): UsageError {
  const isExcess = code === 'commander.excessArguments';
  if (isExcess && looksLikeKey(command)) return keyOnCommandLine('An API key is never an argument');
  const hint =
    isExcess && command.options.some(({ long }) => long === '--agent')
      ? ' (use --agent to name an agent)'
      : code === 'commander.unknownOption' && command.commands.length > 0
        ? ' (options follow the command)'
        : '';
  const text = message
    .replace(/^error: /, '')
    .replace(/'(--?[\w-]+)=.*'/s, "'$1'")
    .replace(/\n\(Did you mean/, ' (did you mean');
  return new UsageError(text + hint);
}

/** Whether an excess argument is probably a key: the command always reads one, or the argument looks like one. */
const looksLikeKey = ({ options, args }: Command) =>
  options.some((option) => {
    const input = inputOf.get(option);
    return input?.kind.prompted && (input.required || args.some((arg) => /^(sk|xai|gsk)-/.test(arg)));
  });

const keyOnCommandLine = (what: string, more = '') =>
  new UsageError(
    `${what}: every process of this machine can read an argument, and the shell keeps it in its history. Omit the value: the command prompts for the key at a terminal and reads it from standard input otherwise. Replace a key that was typed this way${more}`,
  );

function pathOf(command: Command): string {
  const names: string[] = [];
  for (let at: Command | null = command; at; at = at.parent) names.unshift(at.name());
  return names[0] === 'agentllm' ? names.join(' ') : ['agentllm', ...names].join(' ');
}

async function runRemote(spec: RemoteCommand, command: Command): Promise<void> {
  const inputs = inputsOf(spec);
  const json = command.opts()['json'] === true;
  let context: Context = { json, command: pathOf(command), inputs, causes: [] };
  let connection: Connection | undefined;
  try {
    const typed = await readCommandLine(spec, inputs, typedOf(command, inputs));
    const parsed = withRequestId(inputs, spec.prepare?.(typed) ?? typed);
    // Only writes are retried: a retry with the same request id is safe, and a failed read is quickly repeated by hand.
    const deadlineMs = (spec.timeoutMs ?? DEFAULT_TIMEOUT_MS) + waitMsOf(parsed);
    connection = openConnection(parsed.local, { retry: isWrite(inputs), deadlineMs });
    context = { ...context, causes: parsed.causes, connection, requestId: parsed.message['request_id'] as string };
    process.exitCode = (await spec.run(callOf(spec, inputs, parsed, connection, json))) ?? Exit.done;
  } catch (error) {
    process.exitCode = printError(error, context);
  } finally {
    connection?.api.close();
  }
}

const isWrite = (inputs: readonly Input[]) => inputs.some(({ to }) => to === 'request_id');

/** How long the service waits for adoption after a write; the deadline is extended by this time. */
function waitMsOf({ message }: ParsedInputs): number {
  const { timeout } = (message['wait_for_adoption'] ?? {}) as { readonly timeout?: Duration };
  return timeout ? Number(timeout.seconds) * 1000 + timeout.nanos / 1_000_000 : 0;
}

/** Adds a request id to a write without one, so that it can be retried. */
function withRequestId(inputs: readonly Input[], parsed: ParsedInputs): ParsedInputs {
  return isWrite(inputs) ? { ...parsed, message: { request_id: randomUUID(), ...parsed.message } } : parsed;
}

/** The values that commander has read, by the names of the inputs. */
export function typedOf(command: Command, inputs: readonly Input[]): Typed {
  const typed = new Map<string, string | readonly string[] | boolean>();
  const values = inputs.filter(isArgument).map((input, at) => [input, command.processedArgs[at]] as const);
  for (const option of command.options) {
    const input = inputs.find(({ name }) => `--${name}` === option.long);
    if (input) values.push([input, command.opts()[option.attributeName()]]);
  }
  for (const [{ name }, value] of values)
    if (value !== undefined && !(Array.isArray(value) && value.length === 0)) typed.set(name, value);
  return typed;
}

async function readCommandLine(spec: RemoteCommand, inputs: readonly Input[], typed: Typed): Promise<ParsedInputs> {
  const keys = inputs.filter(({ kind, name, required }) => kind.prompted && (required || typed.has(name)));
  for (const { name } of keys)
    if (typeof typed.get(name) === 'string')
      throw keyOnCommandLine(`--${name} takes no value`, `; place other arguments before --${name}`);
  const tlsKey = typed.get('key');
  if (typeof tlsKey === 'string' && !typed.has('cert') && !existsSync(tlsKey))
    throw keyOnCommandLine('--key is the file with the private key of --cert, not an API key');
  const path = typed.get('from-file') as string | undefined;
  if (path === '-' && keys.length > 0)
    throw new UsageError(`--from-file - and --${keys[0]?.name} both read standard input: pass the JSON in a file`);
  const withoutKeys = new Map([...typed].filter(([name]) => !keys.some((key) => key.name === name)));
  const start = spec.body && path !== undefined ? await readBody(spec.body, inputs, path) : {};
  const parsed = readInputs(inputs, withoutKeys, start);
  const names = parsed.local.get('unset') as readonly string[] | undefined;
  const cleared = names ? unset(inputs, names, parsed) : parsed;
  return readKeys(keys, cleared);
}

/** Reads the key last, so that an invalid command fails before the user is prompted for a key. */
async function readKeys(keys: readonly Input[], parsed: ParsedInputs): Promise<ParsedInputs> {
  const message = { ...parsed.message };
  const causes = [...parsed.causes];
  for (const { name, to } of keys) {
    message[to as string] = await readSecret('API key');
    causes.push({ path: to as string, typed: `--${name}` });
  }
  return { ...parsed, message, causes };
}

function callOf(
  spec: RemoteCommand,
  inputs: readonly Input[],
  parsed: ParsedInputs,
  { api, address }: Connection,
  json: boolean,
): Call {
  return {
    api,
    address,
    inputs: parsed,
    json,
    request<Request>(more: Readonly<Record<string, unknown>> = {}) {
      const mask = spec.patches && spec.body ? maskOf(inputs, parsed.touched, spec.body.at) : [];
      return { ...parsed.message, ...(mask.length > 0 && { update_mask: mask }), ...more } as Request;
    },
    local: <Value>(name: string) => parsed.local.get(name) as Value | undefined,
    print(response, text) {
      terminal.out(json ? toJson(response) : text());
    },
  };
}
