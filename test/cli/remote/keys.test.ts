import { execFile, spawnSync } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { packageFile } from '../../../src/package.js';
import type { Ended } from '../../support/command.js';
import { unique } from '../../support/service.js';
import { rowsOf, useCli } from '../support.js';

const cli = useCli();
const KEY = 'sk-proj-never-to-be-shown-4711';
const newCredential = async (): Promise<string> => {
  const name = unique('desk');
  expect((await cli(['credentials', 'create', name, '--provider', 'openai'], { stdin: KEY })).code).toBe(0);
  return name;
};
const printed = ({ stdout, stderr }: Ended) => stdout + stderr;

describe('agentllm credentials', () => {
  it('create stores a key from standard input, update replaces it, and delete fails while it is used', async () => {
    const name = unique('desk');
    const created = await cli(['credentials', 'create', name, '--provider', 'OpenAI', '--description', 'of the desk'], {
      stdin: `${KEY}\r\n`,
    });
    expect(created.stdout).toMatch(new RegExp(`^created credential ${name} of openai at revision \\d+\n$`));
    await cli.json(['configs', 'upsert', 'trader', '--credential', name]);
    expect(rowsOf((await cli(['credentials', 'list', '--provider', 'openai'])).stdout)).toContainEqual(
      expect.objectContaining({ NAME: name, KEY: 'set', CONFIGS: '1' }),
    );
    const fetched = await cli(['credentials', 'get', name]);
    expect(fetched.stdout).toMatch(new RegExp(`^credential ${name} of openai\n {2}key {10}set\n`));
    const { credential } = await cli.json(['credentials', 'get', name]);
    const replaced = await cli(['credentials', 'update', name, '--api-key', '--etag', credential.etag], {
      stdin: `${KEY}-2`,
    });
    expect(replaced.stdout).toMatch(new RegExp(`^updated credential ${name} of openai at`));
    expect((await cli.json(['credentials', 'update', name, '--unset', 'description'])).credential).not.toHaveProperty(
      'description',
    );
    const inUse = await cli(['credentials', 'delete', name]);
    expect([inUse.code, inUse.stderr]).toEqual([1, expect.stringContaining('is used by 1 configs')]);
    await cli.json(['configs', 'upsert', 'trader', '--unset', 'credential']);
    expect((await cli(['credentials', 'delete', name])).code).toBe(0);
    expect([created, fetched, replaced].map(printed).join()).not.toContain(KEY);
  });

  it('create removes one trailing newline of a key and rejects an empty key', async () => {
    for (const stdin of ['', '\n', undefined]) {
      const { code, stderr } = await cli(
        ['credentials', 'create', unique('x'), '--provider', 'openai'],
        stdin === undefined ? {} : { stdin },
      );
      expect([code, stderr]).toEqual([2, expect.stringContaining('standard input contains no API key')]);
    }
    const twoNewlines = await cli(['credentials', 'create', unique('x'), '--provider', 'openai'], {
      stdin: `${KEY}\n\n`,
    });
    expect([twoNewlines.code, twoNewlines.stderr]).toEqual([2, expect.stringMatching(/\n {2}--api-key {2}must /)]);
    expect(printed(twoNewlines)).not.toContain(KEY);
  });

  it('reads no key when another option is invalid', async () => {
    const { code, stderr } = await cli(['configs', 'update', '8', '--api-key', '--temperature', 'warm'], {
      stdin: KEY,
    });
    expect([code, stderr]).toEqual([2, expect.stringContaining('--temperature warm  must be a number')]);
  });
});

describe('an API key of a config', () => {
  it('is set, replaced and cleared', async () => {
    const { config } = await cli.json(['configs', 'create', 'trader', '--model', 'openai/gpt-4o', '--api-key'], {
      stdin: KEY,
    });
    expect(config).toMatchObject({ has_api_key_override: true, api_key_state: 'API_KEY_STATE_SET' });
    const id = String(config.id);
    expect((await cli(['configs', 'get', id])).stdout).toContain('API key           own, set');
    const rejected = await cli(['configs', 'update', id, '--model', 'claude/claude-3-haiku-20240307']);
    expect([rejected.code, rejected.stderr]).toEqual([1, expect.stringContaining('(use --api-key, --clear-api-key,')]);
    await cli.json(['configs', 'update', id, '--api-key'], { stdin: KEY });
    const cleared = await cli.json(['configs', 'update', id, '--clear-api-key']);
    expect(cleared.config).toMatchObject({ has_api_key_override: false });
    const both = await cli(['configs', 'update', id, '--clear-api-key', '--api-key'], { stdin: KEY });
    expect([both.code, both.stderr]).toEqual([
      2,
      expect.stringContaining('--clear-api-key  must not be set together with api_key'),
    ]);
  });

  it('is rejected together with a credential', async () => {
    const name = await newCredential();
    const { code, stderr } = await cli(
      ['configs', 'create', 'trader', '--model', 'openai/gpt-4o', '--credential', name, '--api-key'],
      { stdin: KEY },
    );
    expect([code, stderr]).toEqual([2, expect.stringContaining(`--credential ${name}  must not be set`)]);
  });
});

describe('an API key on the command line', () => {
  it.each([
    ['configs', 'create', 'trader', '--model', 'openai/gpt-4o', '--api-key', KEY],
    ['configs', 'create', 'trader', '--model', 'openai/gpt-4o', `--api-key=${KEY}`],
    ['configs', 'bulk', 'trader', '--api-key', KEY, '--model', 'openai/gpt-4o'],
    ['credentials', 'create', '--provider', 'openai', 'desk', '--api-key', KEY],
    ['providers', 'check-key', 'openai', `--api-key=${KEY}`, '--json'],
  ])('is rejected with an explanation when it is the value of --api-key: %s %s … ', async (...args) => {
    const ended = await cli(args, { stdin: KEY });
    expect([ended.code, ended.stdout, ended.stderr]).toEqual([
      2,
      '',
      expect.stringContaining('--api-key takes no value: every process of this machine can read an argument'),
    ]);
    expect(printed(ended)).not.toContain(KEY);
  });

  it.each([
    ['credentials', 'create', 'desk', KEY, '--provider', 'openai'],
    ['providers', 'check-key', 'openai', KEY],
    ['configs', 'create', 'trader', KEY],
    ['credentials', 'create', 'desk', '--provider', 'openai', '--key', KEY],
  ])('is recognized when it is not the value of --api-key: %s %s … ', async (...args) => {
    const ended = await cli(args);
    const warning = expect.stringContaining('every process of this machine can read an argument');
    expect([ended.code, ended.stderr]).toEqual([2, warning]);
    expect(printed(ended)).not.toContain(KEY);
  });

  it.each([
    ['agents', 'list', '--cert', 'none.pem', '--key', KEY],
    ['configs', 'create', 'trader', `--apikey=${KEY}`],
    ['credentials', 'create', '--api-key', KEY],
    ['credentials', 'create', 'desk', KEY],
  ])('is not printed when the command is rejected for another reason: %s %s … ', async (...args) => {
    const ended = await cli(args, { stdin: KEY });
    expect(ended.code).toBe(2);
    expect(printed(ended)).not.toContain(KEY);
  });
});

const hasScript = spawnSync('script', ['--version']).status === 0;

describe.skipIf(!hasScript)('an API key typed at a terminal', () => {
  const program = packageFile('dist/src/cli/agentllm.js');
  const atTerminal = (keys: string, args: string) => {
    const env = { ...process.env, AGENTLLM_ADDRESS: `127.0.0.1:${cli.service().port}` };
    const command = `(sleep 2; printf '${keys}'; sleep 2) | script -qec "${process.execPath} ${program} ${args}" /dev/null`;
    return promisify(execFile)('bash', ['--norc', '-c', command], { env }).then(
      ({ stdout }) => ({ code: 0, stdout }),
      ({ code, stdout }: { code: number; stdout: string }) => ({ code, stdout }),
    );
  };

  it('is not echoed', async () => {
    const name = unique('typed');
    const { code, stdout } = await atTerminal(`${KEY}\\r`, `credentials create ${name} --provider openai`);
    expect([code, stdout]).toEqual([
      0,
      expect.stringMatching(new RegExp(`^API key: \\r\ncreated credential ${name} of openai`)),
    ]);
    expect(stdout).not.toContain(KEY);
  });

  it('is rejected when the line is empty', async () => {
    const { stdout } = await atTerminal('\\r', `credentials create ${unique('typed')} --provider openai`);
    expect(stdout).toContain('agentllm: no key was typed');
  });

  it('is not stored when Ctrl-C interrupts the input', async () => {
    const name = unique('typed');
    const { stdout } = await atTerminal('sk-half\\003', `credentials create ${name} --provider openai`);
    expect(stdout).toContain('no key was typed; nothing was changed');
    expect((await cli(['credentials', 'get', name])).code).toBe(3);
  });
});
