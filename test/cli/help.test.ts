import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { generateKey } from '../../src/domain/fernet.js';
import { startCommand, useDirectories } from '../support/command.js';
import { runCommand } from '../support/run_command.js';
import { startOnPostgres, type TestService } from '../support/service.js';
import { remoteCommands, useInstalled } from './support.js';

const directory = useInstalled();

const help = async (...command: string[]): Promise<string> => {
  const { code, stdout } = await runCommand([...command, '--help']);
  if (code !== 0) throw new Error(`${command.join(' ')} --help ended with ${code}`);
  return stdout;
};

const all = remoteCommands();

/** The help text of a remote command, rendered in this process. */
function helpOf(name: string): string {
  const parts: string[] = [];
  all
    .get(name)
    ?.configureOutput({ writeOut: (part) => void parts.push(part) })
    .outputHelp();
  return parts.join('');
}

/** The example commands of a help text, unchanged. */
const examplesOf = (text: string): string[] =>
  [...text.matchAll(/^ {2}\$ (.*)$/gm)].map(([, example]) => example as string);

interface Shell {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line with provider keys in its environment, as a user would. */
const runAgainstPort = (line: string, port: number): Promise<Shell> =>
  runLine({ AGENTLLM_ADDRESS: `127.0.0.1:${port}` }, line);

const shellEnv = (connection: Record<string, string>) => ({
  PATH: `${directory()}:${process.env['PATH']}`,
  OPENAI_API_KEY: 'sk-an-example-of-a-key',
  NEW_API_KEY: 'sk-another-one',
  ...connection,
});

/** A single command, whose words are quoted in the same way by every shell. */
const SINGLE_COMMAND = /^agentllm ((?:[\w./:=,@%+-]|"[^"$`\\]*"|'[^']*'| )+)$/;

/** Runs a single command in this process, and any other line in a shell. */
async function runLine(connection: Record<string, string>, line: string): Promise<Shell> {
  const [, words] = SINGLE_COMMAND.exec(line) ?? [];
  if (words === undefined) return runInShell(connection, line);
  const args = words.match(/(?:"[^"]*"|'[^']*'|[^ ])+/g) ?? [];
  const { code, stdout, stderr } = await runCommand(
    args.map((word) => word.replace(/"([^"]*)"|'([^']*)'/g, '$1$2')),
    shellEnv(connection),
  );
  return { code: code ?? 0, stdout, stderr };
}

async function runInShell(connection: Record<string, string>, line: string): Promise<Shell> {
  return promisify(execFile)('bash', ['--norc', '-c', line], { env: shellEnv(connection), cwd: directory() }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    ({ code, stdout, stderr }) => ({ code, stdout, stderr }) as Shell,
  );
}

/**
 * Runs a watch and sends Ctrl-C once it has printed what it watches. A time limit would have to be longer than the
 * start of the command, which depends on the machine: a signal before the command handles it ends it with a failure.
 */
async function watchInShell(connection: Record<string, string>, line: string): Promise<Shell> {
  const options = { env: shellEnv(connection), cwd: directory(), stdio: 'pipe' } as const;
  const child = spawn('bash', ['--norc', '-c', `exec ${line}`], options);
  const ended = once(child, 'close');
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk) => {
    stdout += chunk;
  });
  child.stderr.on('data', (chunk) => {
    stderr += chunk;
    if (stderr.includes('watching ') && !child.killed) child.kill('SIGINT');
  });
  const [code] = await ended;
  return { code, stdout, stderr };
}

/** Commands that use the admin socket of the service. Over the port, the first `token create` would be rejected. */
const LOCAL_COMMAND = /^token (?!whoami)/;
const directories = useDirectories();

const fresh = () => startOnPostgres({ ENCRYPTION_KEY: generateKey() });

/**
 * These commands report a status with their exit code: 1 on a fresh service, which has no valid provider keys and no
 * fallbacks, whose configs have a model that is shut down, and in which no call is recorded.
 */
const REPORTS_STATUS = /\b(configs (health|validate)|check-key|rehearse|record-outcome)\b/;
const READ_ONLY =
  / (list|get|primary|validate|retiring|check-key|resolve|rehearse|watch|watchers|history|audit|whoami)\b/;
/** A user ends these commands with Ctrl-C. */
const ENDLESS = /^agentllm watch(?!.*--(for|count))(?!ers)/;

const commands = [...all.keys()];

describe('the help text', () => {
  let sharedService: TestService;
  beforeAll(async () => {
    sharedService = await fresh();
  });
  afterAll(() => sharedService?.stop());

  it.each(commands)('of %s has examples that succeed in order on a fresh service', async (name) => {
    const text = helpOf(name);
    const examples = examplesOf(text);
    expect(examples.length).toBeGreaterThan(0);
    expect(examples.length).toBeLessThanOrEqual(3);
    expect(examples.some((example) => example.includes(`agentllm ${name}`))).toBe(true);
    const target = await targetFor(name, examples);
    try {
      for (const example of examples) {
        const run = ENDLESS.test(example) ? watchInShell : runLine;
        const { code, stdout, stderr } = await run(target.env, example);
        const problem = `${example}\n${stdout}${stderr}`;
        if (REPORTS_STATUS.test(example)) expect([0, 1], problem).toContain(code);
        else expect(code, problem).toBe(0);
        const goesToFile = example.includes(' > ');
        expect(name === 'watch' || goesToFile ? stderr : stdout, problem).not.toBe('');
      }
    } finally {
      await target.stop();
    }
  });

  /** Starts a service for the examples of a command and returns the environment that a shell needs to reach it. */
  async function targetFor(name: string, examples: readonly string[]) {
    if (LOCAL_COMMAND.test(name)) {
      const DATA_DIR = await directories.started();
      await startCommand({ DATA_DIR });
      return { env: { DATA_DIR }, stop: async () => {} };
    }
    const service = examples.every((example) => READ_ONLY.test(example)) ? sharedService : await fresh();
    const env = { AGENTLLM_ADDRESS: `127.0.0.1:${service.port}` };
    return { env, stop: async () => (service === sharedService ? undefined : service.stop()) };
  }

  it.each(commands)('of %s names only commands that exist', (name) => {
    const known = new Set([...commands, 'key generate']);
    const named = [...helpOf(name).matchAll(/agentllm ([a-z]+ [a-z][a-z-]+)/g)].map(([, command]) => command as string);
    expect(named.filter((words) => !known.has(words) && !known.has(words.replace(/ .*/, '')))).toEqual([]);
  });

  it('groups its options and has no line longer than 120 characters', async () => {
    const text = await help('configs', 'update');
    for (const heading of ['Arguments:', 'Options:', 'Writing:', 'Connection:', 'Examples:', 'Next:'])
      expect(text).toContain(`\n${heading}`);
    expect(text).toContain('--[no-]enabled');
    expect(text).not.toContain('[value]');
    const long = text.split('\n').filter((line) => line.length > 120);
    expect(long).toEqual([]);
  });
});

describe('agentllm --help', () => {
  it('prints command groups, the first steps and the exit codes', async () => {
    const text = await help();
    for (const heading of [
      'Service and database:',
      'Agents and their configs:',
      'Changes and history:',
      'Providers and keys:',
      'Access:',
      'Help:',
      'First steps',
      'Exit codes',
    ])
      expect(text).toContain(`\n${heading}`);
    for (const line of [
      '  0  success',
      '  1  the request was rejected',
      '  2  the command line',
      '  3  not found',
      '  4  the service cannot be reached',
    ])
      expect(text).toContain(`\n${line}`);
  });

  it('prints first steps that succeed in order on a fresh service', async () => {
    const steps = [
      ...(await help()).matchAll(
        /^ {2}(agentllm (?:agents|configs|models|credentials|resolve|history) .*?)(?: {3,}.*)?$/gm,
      ),
    ].map(([, step]) => step as string);
    expect(steps).toHaveLength(7);
    const service = await fresh();
    for (const step of steps) {
      const line = step.includes('credentials create') ? `printf %s "$OPENAI_API_KEY" | ${step}` : step;
      const { code, stderr } = await runAgainstPort(line, service.port);
      expect([code, stderr], step).toEqual([0, '']);
    }
    await service.stop();
  });
});

/**
 * A new operator moves agent trader to another provider: each step is found in the help of the previous step, without
 * other documentation.
 */
describe('a new operator', () => {
  let service: TestService;
  beforeAll(async () => {
    service = await fresh();
  });
  afterAll(() => service?.stop());

  it('sets up a provider, model, credential and primary config when only the help texts are known', async () => {
    const run = (line: string) => runAgainstPort(line, service.port);
    expect(await help()).toMatch(/^ {2}providers /m);

    const providers = await help('providers');
    expect(providers).toMatch(/^ {2}create .*<name>/m);
    const creating = await help('providers', 'create');
    for (const option of ['--base-url', '--dialect'])
      expect(creating).toMatch(new RegExp(`${option} [\\s\\S]*?required`));
    const incomplete = await run('agentllm providers create desk-llm');
    expect([incomplete.code, incomplete.stderr]).toEqual([
      2,
      expect.stringMatching(/--dialect {3}is required\n {2}--base-url {2}is required/),
    ]);
    const provider =
      'agentllm providers create desk-llm --dialect openai-compatible --base-url https://llm.example.com/v1';
    expect((await run(provider)).stdout).toMatch(/^created provider desk-llm/);

    expect(creating).toMatch(
      /Next: agentllm models create <name>\/<model>[\s\S]*agentllm credentials create <name> --provider <name>/,
    );
    expect((await run('agentllm models create desk-llm/large --context-window 128000')).code).toBe(0);
    const credentials = await help('credentials', 'create');
    expect(credentials).toContain('never an argument');
    expect((await run('printf %s "$OPENAI_API_KEY" | agentllm credentials create desk --provider desk-llm')).code).toBe(
      0,
    );

    expect(credentials).toContain('Next: agentllm configs upsert <agent> --credential <name>');
    const upsert = 'agentllm configs upsert trader --model desk-llm/large --credential desk --temperature 0.2';
    expect((await run(`${upsert} --dry-run`)).stdout).toContain('nothing was written');
    expect((await run(upsert)).stdout).toMatch(/^updated config 8 of trader at revision \d+/);

    expect(await help('configs', 'upsert')).toContain('Next: agentllm configs primary <agent>');
    const primary = await run('agentllm configs primary trader');
    expect(primary.stdout).toContain('model             desk-llm/large');
    expect(primary.stdout).toContain('API key           desk');
  });
});
