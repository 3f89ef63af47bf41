import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { AGENTS } from '../../examples/trading-desk/desk_configs.js';
import { Providers } from '../../examples/trading-desk/providers.js';
import { packageFile } from '../../src/package.js';
import { useService } from '../support/service.js';

/** Runs the example as a user does, without keys. The build exists. */
async function runDesk(...args: string[]): Promise<string> {
  const { PATH = '', HOME = '' } = process.env;
  const command = ['run', '--silent', '--ignore-scripts', 'example:trading-desk', '--', ...args];
  const { stdout, stderr } = await promisify(execFile)('npm', command, {
    cwd: packageFile('.'),
    env: { PATH, HOME },
    timeout: 150_000,
  });
  expect(stderr).toBe('');
  return stdout;
}

/** The calls of an agent: the model of each, and the lines about why it was used. */
function callsOf(output: string, agent: string): string[] {
  const calls = output.matchAll(new RegExp(`^  ${agent} +(\\S+/\\S+) .*\\n((?: {6}.*\\n)*)`, 'gm'));
  return [...calls].map(([, model, why = '']) => [model, ...why.trim().split(/\n\s+/)].filter(Boolean).join(' | '));
}

const RISK = 'deepseek/deepseek-v4-flash';

function expectRound(output: string): void {
  for (const agent of AGENTS) expect(callsOf(output, agent).length, agent).toBeGreaterThan(0);
  expect(output).toMatch(/\nrisk_manager: DECISION: BUY half a position/);
}

describe('the trading desk', () => {
  let output: string;
  beforeAll(async () => {
    output = await runDesk();
  }, 180_000);

  it('makes a decision with all twelve agents, each with its own config', () => {
    expectRound(output);
    const configs = AGENTS.map((agent) => new RegExp(`^  ${agent} .* (config \\d+) at`, 'm').exec(output)?.[1]);
    expect(new Set(configs).size).toBe(12);
    expect(output).toContain('with a database in memory; providers: all are fake');
  });

  it('uses a changed config in the next call, without a restart', () => {
    expect(output).toMatch(/config change: bull_researcher now uses deepseek\/deepseek-v4-pro, revision (\d+)\n.*\1,/);
    expect(callsOf(output, 'bull_researcher')).toEqual(['openai/gpt-5.2', 'deepseek/deepseek-v4-pro']);
  });

  it('shows which agents used a fallback while a provider failed, and why', () => {
    expect(callsOf(output, 'safe_analyst')).toEqual([
      expect.stringMatching(
        new RegExp(`^claude/\\S+ \\| ${RISK}: overloaded \\(503\\), then retry .* \\| ${RISK}: .*, then next hop$`),
      ),
      RISK,
    ]);
    expect(callsOf(output, 'risky_analyst')[1]).toBe(`grok/grok-4.3 | ${RISK} is skipped: breaker open`);
    expect(callsOf(output, 'neutral_analyst').at(-1)).toBe(RISK);
  });

  it('shows the cost of each agent to the nano-dollar, with every attempt', () => {
    const [, report = ''] = output.split('6. What it has cost\n');
    const rows = [...report.matchAll(/^ {2}(\S.*?) {2,}(\d+)\.(\d{9}) USD {2}(\d+) attempts?, /gm)].map(
      ([, name, dollars, fraction, attempts]) => ({
        name,
        nano: BigInt(`${dollars}${fraction}`),
        attempts: Number(attempts),
      }),
    );
    const total = rows.pop();
    expect(rows.map(({ name }) => name).sort()).toEqual([...AGENTS].sort());
    expect(rows.reduce((sum, { nano }) => sum + nano, 0n)).toBe(total?.nano);
    for (const { name, nano } of rows) expect(nano, name).toBeGreaterThan(0n);
    // Each call has one attempt that succeeded, and a line for each that failed.
    const failures = output.match(/, then (retry|next hop)/g) ?? [];
    const calls = AGENTS.flatMap((name) => callsOf(output, name));
    expect(rows.reduce((sum, { attempts }) => sum + attempts, 0)).toBe(total?.attempts);
    expect(total?.attempts).toBe(calls.length + failures.length);
  });

  it('shows a parameter that was left out', () => {
    expect(callsOf(output, 'trader')).toEqual([
      expect.stringContaining('temperature is left out for openai/gpt-6.1-sol'),
    ]);
  });
});

describe('the trading desk on another service', () => {
  const service = useService('embedded');
  const address = () => `127.0.0.1:${service().port}`;

  async function readConfigs() {
    const { results } = await service().configs.batchGetPrimaryConfigs({ agents: AGENTS.map((name) => ({ name })) });
    return results.map(({ config }) => ({ ...config, revision: 0, etag: '', updated_at: undefined }));
  }

  it('restores the configs of the service', async () => {
    const before = await readConfigs();
    expectRound(await runDesk('--address', address()));
    expect(await readConfigs()).toEqual(before);
  }, 180_000);

  it('restores them after Ctrl-C, too', async () => {
    const before = await readConfigs();
    const desk = spawn(process.execPath, ['--import', 'tsx', 'examples/trading-desk/main.ts', '--address', address()], {
      cwd: packageFile('.'),
      env: { PATH: process.env['PATH'] },
    });
    const ended = once(desk, 'close');
    let [isStopping, output] = [false, ''];
    desk.stdout.on('data', (chunk) => {
      output += chunk;
      if (isStopping || !output.includes('2. Researchers debate')) return;
      isStopping = true;
      // The terminal sends the signal to all processes, and npm forwards it.
      desk.kill('SIGINT');
      desk.kill('SIGINT');
    });
    desk.stderr.on('data', (chunk) => {
      output += chunk;
    });
    expect(await ended).toEqual([1, null]);
    // A call in progress may end after it.
    expect(output).toMatch(/^the desk has stopped: interrupted$/m);
    expect(output).not.toContain('5. The risk manager decides');
    expect(await readConfigs()).toEqual(before);
  }, 180_000);
});

describe('Providers', () => {
  afterEach(() => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
  });

  const urls = { openai: 'https://api.openai.com/v1/responses', deepseek: 'https://api.deepseek.com/chat/completions' };

  function start() {
    for (const name of ['OPENAI', 'ANTHROPIC', 'DEEPSEEK', 'GROK']) vi.stubEnv(`${name}_API_KEY`, '');
    vi.stubEnv('OPENAI_API_KEY', 'sk-real');
    const sent: string[] = [];
    vi.spyOn(globalThis, 'fetch').mockImplementation(async (input, init) => {
      const { authorization = 'no key' } = Object.fromEntries(new Headers(init?.headers));
      sent.push(`${input} ${authorization}`);
      return new Response();
    });
    const providers = new Providers('http://127.0.0.1:9');
    const send = async (url: string) => {
      sent.length = 0;
      await providers.fetch(url, { headers: { authorization: 'Bearer sk-real' } });
      return sent[0];
    };
    return { providers, send };
  }

  it('sends requests to the real provider only if its key is set', async () => {
    const { providers, send } = start();
    expect(providers.real).toEqual(['openai']);
    expect(await send(urls.openai)).toBe(`${urls.openai} Bearer sk-real`);
    expect(await send(urls.deepseek)).toBe('http://127.0.0.1:9/deepseek/chat/completions no key');
  });

  it('sends requests of a failing provider to the fake one, without the key', async () => {
    const { providers, send } = start();
    await providers.fail('openai');
    expect(await send(urls.openai)).toBe('http://127.0.0.1:9/openai/v1/responses no key');
    await providers.recover();
    expect(await send(urls.openai)).toBe(`${urls.openai} Bearer sk-real`);
  });

  it('refuses a request to another host', () => {
    expect(() => start().providers.fetch('https://llm.example.com/v1')).toThrow(
      'no provider at https://llm.example.com',
    );
  });
});
