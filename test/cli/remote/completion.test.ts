import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../../support/run_command.js';
import { unique } from '../../support/service.js';
import { useCli, useInstalled } from '../support.js';

const cli = useCli();
const directory = useInstalled();
let completionScript = '';
beforeAll(async () => {
  await writeFile(join(directory(), 'some file.json'), '{}');
  completionScript = (await runCommand(['completion', 'bash'])).stdout;
});

/** The completions that bash offers for the last word when Tab is pressed. */
async function complete(words: readonly string[], address = `127.0.0.1:${cli.service().port}`): Promise<string[]> {
  const script = `
    eval "$COMPLETION_SCRIPT"
    complete -p agentllm >/dev/null || exit 1
    COMP_WORDS=(agentllm "$@"); COMP_CWORD=$#
    _agentllm
    printf '%s\\n' "\${COMPREPLY[@]}"`;
  const env = {
    HOME: directory(),
    PATH: `${directory()}:${process.env['PATH']}`,
    AGENTLLM_ADDRESS: address,
    COMPLETION_SCRIPT: completionScript,
  };
  const { stdout, stderr } = await promisify(execFile)('bash', ['--norc', '-c', script, 'bash', ...words], {
    env,
    cwd: directory(),
  });
  expect(stderr).toBe('');
  return stdout.split('\n').filter(Boolean);
}

describe('completion in bash', () => {
  it.each([
    [['con'], ['configs']],
    [
      ['configs', 'up'],
      ['update', 'upsert'],
    ],
    [
      ['configs', 'update', '8', '--fallback-'],
      ['--fallback-provider', '--fallback-model'],
    ],
    [['configs', 'update', '8', '--no-e'], ['--no-enabled']],
    [['configs', 'update', '8', '--unset', 'max'], ['max-tokens']],
    [
      ['agents', 'update', 'trader', '--substitution', 'same'],
      ['same-model', 'same-provider'],
    ],
    [['migrate', 's'], ['status']],
    [['wat'], ['watch', 'watchers']],
    [['watch', 'trader', 'bull'], ['bull_researcher']],
    [['resolve', 'trader', '--down', 'gr'], ['grok']],
    [
      ['history', '--kind', 'pr'],
      ['provider', 'price'],
    ],
    [['diff', '8', '3', 'n'], ['now']],
    [
      ['token', 'create', '--role', 'a'],
      ['admin', 'agent'],
    ],
    [['token', 'create', '--role', 'agent', '--agents', 'tra'], ['trader']],
    [['completion', 'z'], ['zsh']],
    [['configs', 'primary', 'tra'], ['trader']],
    [['configs', 'bulk', 'trader', 'bull'], ['bull_researcher']],
    [['configs', 'get', '8'], ['8']],
    [['configs', 'create', 'trader', '--model', 'claude/claude-3-haiku'], ['claude/claude-3-haiku-20240307']],
    [['configs', 'create', 'trader', '--provider=', 'x'], []],
    [['configs', 'create', 'trader', '--provider', '=', 'gr'], ['grok']],
    [['models', 'list', '--provider', 'deep'], ['deepseek']],
    [['configs', 'update', '8', '--from-file', 'some'], ['some\\ file.json']],
    [['configs', 'update', '8', '--temperature', ''], []],
  ])('completes %j to %j', async (words, completions) => expect(await complete(words)).toEqual(completions));

  it('offers the names of credentials, quoted for the shell', async () => {
    const name = `${unique('my')} desk`;
    await cli.json(['credentials', 'create', name, '--provider', 'openai'], { stdin: 'sk-x' });
    expect(await complete(['configs', 'update', '8', '--credential', name.slice(0, 6)])).toEqual([
      name.replace(' ', '\\ '),
    ]);
  });

  it('calls the service that --address names', async () => {
    const address = `127.0.0.1:${cli.service().port}`;
    for (const connection of [
      ['--address', address],
      [`--address=${address}`],
      ['--timeout', '5000', '--address', address],
    ]) {
      const { stdout } = await runCommand(['__complete', 'configs', 'primary', ...connection, 'tra']);
      expect([connection, stdout]).toEqual([connection, 'trader\ttrader\n']);
    }
  });

  it('prints nothing within 8 s when no service responds', async () => {
    const started = performance.now();
    expect(await complete(['configs', 'primary', 'tra'], '127.0.0.1:1')).toEqual([]);
    expect(await complete(['configs', 'primary', 'tra'], '10.255.255.1:50051')).toEqual([]);
    expect(performance.now() - started).toBeLessThan(8000);
    expect(await complete(['configs', 'pri'], '127.0.0.1:1')).toEqual(['primary']);
  });
});

describe('agentllm completion', () => {
  it.each(['bash', 'zsh', 'fish'])('prints a script for %s that calls agentllm __complete', async (shell) => {
    const { code, stdout } = await cli(['completion', shell]);
    expect([code, stdout]).toEqual([0, expect.stringContaining('agentllm __complete')]);
  });

  it('rejects an unknown shell', async () => {
    expect((await cli(['completion', 'tcsh'])).code).toBe(2);
  });

  it('prints a description of each word for shells that display it', async () => {
    expect((await cli(['__complete', 'agents', 'del'])).stdout).toBe('delete\tdelete an agent\n');
    expect((await cli(['__complete', 'configs', 'create', 'x', '--model=openai/gpt-4o-m'])).stdout).toBe(
      '--model=openai/gpt-4o-mini\t\n',
    );
  });
});
