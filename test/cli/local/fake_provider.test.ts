import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { fakeProviderCommand } from '../../../src/cli/local/fake_provider.js';
import { faultCatalogue } from '../../../src/fake_provider/faults/fault_catalogue.js';
import { agentllm, type RunningCommand, useDirectories } from '../../support/command.js';
import { runCommand } from '../../support/run_command.js';
import { rowsOf, useInstalled } from '../support.js';

const directory = useDirectories();
const installed = useInstalled();
const KEY = 'sk-planted-0123456789abcdef';

/** Starts the command on a free port, and returns it with its URL. */
async function start(...args: string[]): Promise<RunningCommand & { readonly url: string }> {
  const command = agentllm(['fake-provider', '--port', '0', ...args]);
  const [, url = ''] = await command.untilOutput(/(http:\/\/127\.0\.0\.1:\d+)/);
  return { ...command, url };
}

const send = (url: string, body: object = {}, headers: Record<string, string> = {}) =>
  fetch(`${url}/openai/v1/chat/completions`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ model: 'gpt-4o', messages: [{ role: 'user', content: 'Hello' }], ...body }),
  });

async function stop(command: RunningCommand) {
  command.child.kill('SIGINT');
  return command.ended;
}

describe('agentllm fake-provider', () => {
  it('prints its addresses, serves requests, prints each of them, and stops on Ctrl-C', async () => {
    const command = await start();
    await command.untilOutput(/stop {14}Ctrl-C/);
    expect(
      (await send(command.url, { model: 'gpt-4o@fault=rate-limit' }, { authorization: `Bearer ${KEY}` })).status,
    ).toBe(429);
    await command.untilOutput(
      /429 POST \/openai\/v1\/chat\/completions gpt-4o@fault=rate-limit \[rate-limit\] \d+ ms\n/,
    );
    const { code, stdout, stderr } = await stop(command);
    expect(code).toBe(0);
    expect(stderr).toMatch(/fake provider is ready at http:.*\n {2}OpenAI {12}http:\S+\/openai\/v1\n/);
    expect(stderr).toContain(
      `agentllm providers create fake --dialect openai-compatible --base-url ${command.url}/compatible/v1`,
    );
    expect(stderr).toMatch(/fake provider has stopped \(SIGINT\)\n$/);
    expect(stdout + stderr).not.toContain(KEY);
  });

  it('stops on Ctrl-C while requests are open', async () => {
    const command = await start();
    const held = send(command.url, {}, { 'x-fake-fault': 'silence' }).catch(({ message }) => message);
    await fetch(`${command.url}/_fake/log`);
    await expect
      .poll(async () => ((await (await fetch(`${command.url}/_fake/log`)).json()) as { requests: [] }).requests.length)
      .toBe(1);
    const { code, stdout } = await stop(command);
    expect([code, await held]).toEqual([0, 'fetch failed']);
    expect(stdout).toMatch(/^- POST .* \[silence\] \d+ ms \(stopped\)\n$/);
  });

  it('prints JSON with --json: the addresses, then each request', async () => {
    const command = await start('--json', '--require-key');
    expect((await send(command.url)).status).toBe(401);
    await command.untilOutput(/"ended":"completed"/);
    const { stdout } = await stop(command);
    const [addresses, request] = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(addresses).toEqual({
      url: command.url,
      base_urls: expect.objectContaining({ deepseek: `${command.url}/deepseek` }),
    });
    expect(request).toMatchObject({ status: 401, model: 'gpt-4o', ended: 'completed' });
  });

  it('reads faults from a file and appends requests to a log', async () => {
    const path = await directory();
    const [faults, log] = [join(path, 'faults.json'), join(path, 'requests.jsonl')];
    await writeFile(faults, JSON.stringify({ rules: [{ match: { attempt: 1 }, fault: 'overloaded' }], keys: [KEY] }));
    const command = await start('--faults', faults, '--log', log, '--latency', '1', '--token-delay', '1');
    const key = { authorization: `Bearer ${KEY}` };
    expect([(await send(command.url, {}, key)).status, (await send(command.url, {}, key)).status]).toEqual([503, 200]);
    await stop(command);
    const written = await readFile(log, 'utf8');
    expect(
      written
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line).status),
    ).toEqual([503, 200]);
    expect(written).not.toContain(KEY);
  });

  it('reports a port that is in use', async () => {
    const command = await start();
    const { code, stderr } = await agentllm(['fake-provider', '--port', new URL(command.url).port]).ended;
    expect([code, stderr]).toEqual([2, expect.stringContaining('is in use by another process; choose another one')]);
  });

  it.each([
    [['--port', '70000'], '--port 70000  must be a whole number from 0 to 65535'],
    [['--latency', 'x'], '--latency x  must be a whole number'],
    [['--faults', '/absent.json'], '--faults /absent.json  does not exist'],
    [['--log', '/absent/log'], '--log /absent/log  cannot be written (ENOENT)'],
    [['--host', '192.0.2.1'], '--host 192.0.2.1  cannot be listened on (EADDRNOTAVAIL)'],
    [['--nonsense'], "unknown option '--nonsense'"],
  ])('rejects %j', async (args, problem) => {
    const { code, stderr } = await runCommand(['fake-provider', '--port', '0', ...args]);
    expect([code, stderr]).toEqual([2, expect.stringContaining(problem)]);
  });

  it('rejects a file with invalid faults without repeating its keys', async () => {
    const faults = join(await directory(), 'faults.json');
    for (const [text, problem] of [
      ['{"rules":[{"fault":"nonsense"}]}', 'rules[0].fault: there is no fault "nonsense"'],
      [`{"keys":["${KEY}"`, 'must be JSON (at position '],
      [`{"keys":[${KEY}]}`, 'must be JSON'],
    ] as const) {
      await writeFile(faults, text);
      const { code, stderr } = await runCommand(['fake-provider', '--faults', faults]);
      expect([code, stderr]).toEqual([2, expect.stringContaining(problem)]);
      expect(stderr).not.toContain(KEY);
    }
  });
});

describe('agentllm fake-provider --list-faults', () => {
  it('prints every fault with its options', async () => {
    const { code, stdout } = await runCommand(['fake-provider', '--list-faults']);
    expect(code).toBe(0);
    const [listed = ''] = stdout.split('\n\n');
    expect(rowsOf(listed).map(({ FAULT }) => FAULT)).toEqual(faultCatalogue.map(({ name }) => name));
    expect(stdout).toMatch(/Options of every fault:\n {2}times /);
    expect(stdout).toMatch(/^cut-stream .* TORN +after=40$/m);
  });

  it('prints JSON with --json', async () => {
    const { stdout } = await runCommand(['fake-provider', '--list-faults', '--json']);
    const { faults } = JSON.parse(stdout) as { faults: object[] };
    expect(faults).toHaveLength(faultCatalogue.length);
    expect(faults[0]).toMatchObject({ name: 'rate-limit', class: 'RATE_LIMIT' });
  });
});

describe('the help text of fake-provider', () => {
  const help = async () => (await runCommand(['fake-provider', '--help'])).stdout;

  it('has examples that succeed; those that run until Ctrl-C print where they listen', async () => {
    const cwd = await directory();
    await writeFile(join(cwd, 'faults.json'), '{"rules":[{"fault":"overloaded"}]}');
    const examples = [...(await help()).matchAll(/^ {2}\$ (.*)$/gm)].map(([, example = '']) => example);
    expect(examples.length).toBeGreaterThan(1);
    for (const example of examples) {
      // The default port may be in use on this machine.
      const line = /--port|--list-faults/.test(example) ? example : `${example} --port 0`;
      const env = { PATH: `${installed()}:${process.env['PATH']}` };
      const child = spawn('bash', ['--norc', '-c', `exec ${line}`], { cwd, env, stdio: 'pipe' });
      let output = '';
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (chunk) => {
          output += chunk;
          if (output.includes('Ctrl-C') && !child.killed) child.kill('SIGINT');
        });
      const [code] = await once(child, 'close');
      expect([example, code]).toEqual([example, 0]);
      expect(output).toMatch(/^(fake provider is ready at|FAULT)/);
    }
  });

  it('has no line longer than 120 characters, and names only options that exist', async () => {
    const text = await help();
    expect(text.split('\n').filter((line) => line.length > 120)).toEqual([]);
    const known = fakeProviderCommand().options.map(({ long }) => long);
    const named = [...text.matchAll(/fake-provider (.*)$/gm)].flatMap(
      ([, rest = '']) => rest.match(/--[a-z-]+/g) ?? [],
    );
    expect(named.filter((option) => !known.includes(option))).toEqual([]);
  });
});

describe('completion of fake-provider', () => {
  it('offers options, and files for their values', async () => {
    const complete = async (...words: string[]) => (await runCommand(['__complete', ...words])).stdout;
    expect(await complete('fake')).toMatch(/^fake-provider\t/);
    expect(await complete('fake-provider', '--li')).toMatch(/^--list-faults\t/);
    expect(await complete('fake-provider', '--faults', '')).toMatch(/^:files/);
  });
});
