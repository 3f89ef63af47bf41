import { Command } from 'commander';
import type { FakeProvider } from '../../fake_provider/fake_provider.js';
import type { LoggedRequest } from '../../fake_provider/request_log.js';
import type { ScriptInput } from '../../fake_provider/script.js';
import { limits } from '../../limits.js';
import { readNamedFile } from '../kit/connection.js';
import { printError } from '../kit/error_output.js';
import { type Input, optionsOf, readInputs, UsageError } from '../kit/inputs.js';
import { table, terminal, toJson, visible } from '../kit/print.js';
import { typedOf } from '../kit/remote_command.js';
import { stopRequest } from '../kit/signals.js';
import { BadValue, file, flag, integer, type Kind, word } from '../kit/values.js';

const DEFAULT_PORT = 8090;
const DEFAULT_HOST = '127.0.0.1';

const between = (value: string, min: number, max: number): Kind => ({
  value,
  read(raw) {
    const number = integer.read(raw) as number;
    if (number < min || number > max) throw new BadValue(`must be a whole number from ${min} to ${max}`);
    return number;
  },
});
const milliseconds = between('ms', 0, limits.fakeProvider.holdMs);

const INPUTS: readonly Input[] = [
  { name: 'port', kind: between('number', 0, 65_535), help: `port; 0 chooses a free one (default: ${DEFAULT_PORT})` },
  { name: 'host', kind: word('address'), help: `address to listen on (default: ${DEFAULT_HOST}, this machine only)` },
  {
    name: 'faults',
    kind: file,
    help: 'JSON file with rules: which requests fail, and how; docs/rehearsal.md describes it',
  },
  { name: 'log', kind: file, help: 'file to which each finished request is appended as a line of JSON' },
  { name: 'latency', kind: milliseconds, help: 'time until the headers of a response (default: 0)' },
  { name: 'token-delay', kind: milliseconds, help: 'time between two tokens of a stream (default: 0)' },
  { name: 'require-key', kind: flag, help: 'reject requests without a key' },
  { name: 'list-faults', kind: flag, help: 'print the faults and their options, and stop' },
  { name: 'json', kind: flag, help: 'print JSON: the addresses, then a line for each request' },
];

const HELP_TEXT = `
The fake provider speaks the APIs of OpenAI, Anthropic, DeepSeek and xAI over HTTP. It costs nothing and needs no key:
responses are the same every time. It fails on request, in one of three ways:
  a model name       gpt-4o@fault=rate-limit,retry_after=2
  a header           x-fake-fault: cut-stream,after=40
  a file             --faults faults.json, with rules such as
                     {"rules": [{"match": {"model": "gpt-4o", "attempt": "1-2"}, "fault": "overloaded"}]}
While it runs, GET and DELETE /_fake/log read and clear the log of requests, and PUT /_fake/faults replaces the rules.

Examples:
  # every fault, with its options
  $ agentllm fake-provider --list-faults
  # a provider on this machine, until Ctrl-C
  $ agentllm fake-provider
  # a slow one that fails as a file describes, with a log
  $ agentllm fake-provider --port 0 --faults faults.json --log requests.jsonl --latency 200

Next: agentllm providers create fake --dialect openai-compatible --base-url http://${DEFAULT_HOST}:${DEFAULT_PORT}/compatible/v1`;

/** `agentllm fake-provider`: a provider for tests that fails on request. */
export function fakeProviderCommand(): Command {
  const command = new Command('fake-provider').description('run a provider for tests that fails on request');
  for (const option of INPUTS.flatMap(optionsOf)) command.addOption(option);
  return command.addHelpText('after', HELP_TEXT).action(() => runFakeProvider(command));
}

async function runFakeProvider(command: Command): Promise<void> {
  const json = command.opts()['json'] === true;
  try {
    const { local } = readInputs(INPUTS, typedOf(command, INPUTS));
    if (local.get('list-faults')) await listFaults(json);
    else await serve(local, json);
  } catch (error) {
    process.exitCode = printError(error, { json, command: 'agentllm fake-provider', inputs: INPUTS, causes: [] });
  }
}

async function listFaults(json: boolean): Promise<void> {
  const { faultRows, SHARED_OPTIONS } = await import('../../fake_provider/faults/fault_table.js');
  const rows = faultRows();
  if (json) {
    terminal.out(toJson({ faults: rows, shared_options: Object.fromEntries(SHARED_OPTIONS) }));
    return;
  }
  const printed = table(
    ['FAULT', 'WHAT THE PROVIDER DOES', 'CLASS', 'OPTIONS'],
    rows.map(({ name, description, class: errorClass, options }) => [name, description, errorClass, options.join(' ')]),
  );
  const shared = SHARED_OPTIONS.map(([title, options]) => {
    const lines = Object.entries(options).map(([name, { description }]) => `  ${name.padEnd(16)}  ${description}`);
    return [`${title}:`, ...lines].join('\n');
  });
  terminal.out([printed, ...shared].join('\n\n'));
}

type Local = ReadonlyMap<string, unknown>;

/** Runs the fake provider until a signal stops it. */
async function serve(local: Local, json: boolean): Promise<void> {
  const { startFakeProvider } = await import('../../fake_provider/fake_provider.js');
  const { ScriptError } = await import('../../fake_provider/script.js');
  const host = (local.get('host') as string | undefined) ?? DEFAULT_HOST;
  const port = (local.get('port') as number | undefined) ?? DEFAULT_PORT;
  const faults = local.get('faults') as string | undefined;
  const logFile = local.get('log') as string | undefined;
  const fake = await startFakeProvider({
    host,
    port,
    script: faults === undefined ? {} : readScriptFile(faults),
    logFile,
    latencyMs: local.get('latency') as number | undefined,
    tokenDelayMs: local.get('token-delay') as number | undefined,
    requireKey: local.get('require-key') === true,
    onRequest: (request) => terminal.out(json ? toJson(request, 0) : lineOf(request)),
  }).catch((error: unknown) => {
    if (error instanceof ScriptError)
      throw UsageError.of(error.problems.map((description) => ({ typed: `--faults ${faults}`, description })));
    throw startProblem(error, { host, port, logFile }) ?? error;
  });
  printBanner(fake, host, json);
  const reason = await stopRequest();
  await fake.close();
  terminal.err(`fake provider has stopped (${reason})`);
}

function readScriptFile(path: string): ScriptInput {
  const typed = `--faults ${path}`;
  const text = readNamedFile(typed, path);
  try {
    return JSON.parse(text) as ScriptInput;
  } catch (error) {
    // The rest of the message repeats a part of the file, which can contain keys.
    const [where = ''] = /(?<= )at position \d+|^Unexpected end/.exec((error as Error).message) ?? [];
    throw UsageError.of([{ typed, description: `must be JSON${where && ` (${where})`}` }]);
  }
}

/** The problem with an option because of which the fake provider could not start; undefined: another one. */
function startProblem(
  error: unknown,
  { host, port, logFile }: { readonly host: string; readonly port: number; readonly logFile: string | undefined },
): UsageError | undefined {
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall === 'open')
    return UsageError.of([{ typed: `--log ${logFile}`, description: `cannot be written (${code})` }]);
  if (code === 'EADDRINUSE')
    return UsageError.of([
      { typed: `--port ${port}`, description: 'is in use by another process; choose another one' },
    ]);
  if (syscall === 'listen' || syscall === 'getaddrinfo')
    return UsageError.of([{ typed: `--host ${host}`, description: `cannot be listened on (${code})` }]);
  return undefined;
}

function printBanner(fake: FakeProvider, host: string, json: boolean): void {
  const { url } = fake;
  const bases = BASES.map(([provider, title]) => [provider, title, fake.baseUrl(provider)] as const);
  if (json) {
    const base_urls = Object.fromEntries(bases.map(([provider, , base]) => [provider, base]));
    terminal.out(toJson({ url, base_urls }, 0));
    return;
  }
  const compatible = fake.baseUrl('compatible');
  const lines = [
    ...bases.map(([, title, base]) => [title, base]),
    ['', ''],
    ['use it', 'PROVIDER_ALLOW_CIDRS=127.0.0.0/8 agentllm serve'],
    ['', `agentllm providers create fake --dialect openai-compatible --base-url ${compatible}`],
    ['', 'agentllm models create fake/large --context-window 128000'],
    ['make it fail', 'agentllm configs upsert trader --model fake/large@fault=rate-limit,times=2'],
    ['requests', `curl ${url}/_fake/log`],
    ...(isLoopback(host) ? [] : [['warning', 'every machine that reaches this address can use it and read its log']]),
    ['stop', 'Ctrl-C'],
  ] as const;
  const text = lines.map(([name = '', value = '']) => `  ${name.padEnd(16)}  ${value}`.trimEnd());
  terminal.err([`fake provider is ready at ${url}`, ...text].join('\n'));
}

const BASES = [
  ['openai', 'OpenAI'],
  ['anthropic', 'Anthropic'],
  ['deepseek', 'DeepSeek'],
  ['xai', 'xAI'],
  ['compatible', 'another provider'],
] as const;

const isLoopback = (host: string) => /^(127\.|::1$|localhost$)/.test(host);

/** One line about a finished request. */
function lineOf({ method, path, model, status, fault, tokens, ended, duration_ms: took }: LoggedRequest): string {
  const how = ended === 'completed' ? '' : ` (${ended})`;
  const parts = [
    status ?? '-',
    method,
    path,
    model ?? '',
    fault ? `[${fault}]` : '',
    tokens > 0 ? `${tokens} tokens` : '',
    `${took} ms`,
  ];
  return visible(`${parts.filter((part) => part !== '').join(' ')}${how}`);
}
