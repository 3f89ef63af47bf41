import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { afterAll, beforeAll } from 'vitest';
import { remoteCommand } from '../../src/cli/kit/remote_command.js';
import { agentsCommand } from '../../src/cli/remote/agents.js';
import { audit } from '../../src/cli/remote/audit.js';
import { budgetsCommand } from '../../src/cli/remote/budgets.js';
import { configsCommand } from '../../src/cli/remote/configs.js';
import { credentialsCommand } from '../../src/cli/remote/credentials.js';
import { diff } from '../../src/cli/remote/diff.js';
import { experimentsCommand } from '../../src/cli/remote/experiments/commands.js';
import { history } from '../../src/cli/remote/history.js';
import { keyCommand } from '../../src/cli/remote/key.js';
import { modelsCommand } from '../../src/cli/remote/models.js';
import { pricesCommand } from '../../src/cli/remote/prices.js';
import { providersCommand } from '../../src/cli/remote/providers.js';
import { rehearseAgent } from '../../src/cli/remote/rehearse.js';
import { resolveAgent } from '../../src/cli/remote/resolve.js';
import { rollback } from '../../src/cli/remote/rollback.js';
import { tokenCommand } from '../../src/cli/remote/token.js';
import { usageCommand } from '../../src/cli/remote/usage.js';
import { watch } from '../../src/cli/remote/watch.js';
import { watchers } from '../../src/cli/remote/watchers.js';
import { generateKey } from '../../src/domain/fernet.js';
import { packageFile } from '../../src/package.js';
import type { Ended } from '../support/command.js';
import { runCommand } from '../support/run_command.js';
import { type TestService, useService } from '../support/service.js';

/** Runs `agentllm` against a test service. */
export interface Cli {
  (args: readonly string[], options?: CliOptions): Promise<Ended>;
  /** A command that must end with 0 and print JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: tests read untyped JSON output
  json(args: readonly string[], options?: CliOptions): Promise<any>;
  readonly service: () => TestService;
}

interface CliOptions {
  readonly stdin?: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Starts a service with an encryption key for all tests of a file, and returns the command line that calls it. */
export function useCli(env: Readonly<Record<string, string>> = {}): Cli {
  const service = useService('embedded', { ENCRYPTION_KEY: generateKey(), ...env });
  const run = (args: readonly string[], options: CliOptions = {}) => {
    const address = { AGENTLLM_ADDRESS: `127.0.0.1:${service().port}` };
    return runCommand(args, { ...address, ...options.env }, options);
  };
  const json = async (args: readonly string[], options?: CliOptions) => {
    const { code, stdout, stderr } = await run([...args, '--json'], options);
    if (code !== 0) throw new Error(`agentllm ${args.join(' ')} ended with ${code}:\n${stdout}${stderr}`);
    return JSON.parse(stdout);
  };
  return Object.assign(run, { json, service });
}

/** Creates a directory for the tests of a file and removes it after them. */
export function useDirectory(): () => string {
  let directory = '';
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'agentllm-cli-'));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));
  return () => directory;
}

/** Creates a directory with an `agentllm` executable, as npm installs it, for the PATH of a shell. */
export function useInstalled(): () => string {
  const directory = useDirectory();
  beforeAll(() => {
    const script = `#!/bin/sh\nexec "${process.execPath}" --liftoff-only "${packageFile('dist/src/cli/agentllm.js')}" "$@"\n`;
    return writeFile(join(directory(), 'agentllm'), script, { mode: 0o755 });
  });
  return directory;
}

const groups = [
  agentsCommand,
  configsCommand,
  providersCommand,
  modelsCommand,
  pricesCommand,
  credentialsCommand,
  budgetsCommand,
  experimentsCommand,
  keyCommand,
  tokenCommand,
  usageCommand,
];
const standaloneCommands = [resolveAgent, rehearseAgent, watch, watchers, history, diff, rollback, audit];

/** Every command that calls a service, by its name: `configs create`, `watch`. */
export const remoteCommands = (): ReadonlyMap<string, Command> =>
  new Map([
    ...groups.flatMap((createGroup) => {
      const group = createGroup();
      const remote = group.commands.filter(({ options }) => options.some(({ long }) => long === '--address'));
      return remote.map((command) => [`${group.name()} ${command.name()}`, command] as const);
    }),
    ...standaloneCommands.map((spec) => [spec.name, remoteCommand(spec)] as const),
  ]);

/** Parses a printed table into rows, keyed by column heading. */
export function rowsOf(printed: string): Record<string, string>[] {
  const [headings = '', ...lines] = printed.trimEnd().split('\n');
  const columns = [...headings.matchAll(/\S+(?: \S+)*/g)].map((match) => ({ heading: match[0], start: match.index }));
  return lines.map((line) =>
    Object.fromEntries(
      columns.map(
        ({ heading, start }, index) => [heading, line.slice(start, columns[index + 1]?.start).trim()] as const,
      ),
    ),
  );
}
