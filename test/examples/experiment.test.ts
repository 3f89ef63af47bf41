import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, it } from 'vitest';
import { HIT_RATES, isRight } from '../../examples/trading-desk/planted_outcome.js';
import { packageFile } from '../../src/package.js';

/** Runs the example as a user does. The build exists. */
async function runExperiment(): Promise<string> {
  const { PATH = '', HOME = '' } = process.env;
  const { stdout, stderr } = await promisify(execFile)(
    'npm',
    ['run', '--silent', '--ignore-scripts', 'example:experiment'],
    // A key of a real provider must not be used: the example makes hundreds of calls.
    {
      cwd: packageFile('.'),
      env: { PATH, HOME, OPENAI_API_KEY: 'sk-real', ANTHROPIC_API_KEY: 'sk-real' },
      timeout: 280_000,
    },
  );
  expect(stderr).toBe('');
  return stdout;
}

describe('the experiment of the trading desk', () => {
  let output: string;
  beforeAll(async () => {
    output = await runExperiment();
  }, 300_000);

  /** The cells of a row of the results: value, difference, interval and result. */
  function cellsOf(metric: string, variant: string): string[] {
    const [, table = ''] = /^(METRIC [\s\S]*?)\n\n/m.exec(output) ?? [];
    const lines = table.split('\n');
    const at = lines.findIndex((line) => line.startsWith(metric));
    const row = lines.slice(at, at + 2).find((line) => new RegExp(` ${variant} `).test(line)) ?? '';
    return row.slice(row.indexOf(variant)).split(/ {2,}/).slice(1);
  }

  it('ends as soon as the results say that the larger model is better', () => {
    expect(output).toMatch(/^large is better than control in outcome hit, with 95 % confidence/m);
    const [, difference = '', , result] = cellsOf('outcome hit (primary)', 'large');
    expect(result).toBe('better');
    expect(Number(difference)).toBeGreaterThan(0);
  });

  it('shows that the larger model costs more', () => {
    const [, difference = '', , result] = cellsOf('cost per call', 'large');
    expect(result).toBe('worse');
    // The prices of the two models and the tokens of the fake provider give this ratio in every run.
    expect(Number.parseFloat(difference)).toBeGreaterThan(100);
  });

  it('counts every share once, in the ratio of the weights', () => {
    const rounds = [...output.matchAll(/^ +(\d+) shares: /gm)].map(([, shares]) => Number(shares));
    expect(rounds).toEqual(rounds.map((_, at) => (at + 1) * 60));
    const counts = [...output.matchAll(/^(?:control \(control\)|large) +50 % +(\d+) +(\d+) /gm)];
    expect(counts).toHaveLength(2);
    expect(counts.reduce((sum, [, subjects]) => sum + Number(subjects), 0)).toBe(rounds.at(-1));
    for (const [, subjects, calls] of counts) expect(calls).toBe(subjects);
    expect(output).toContain('Sample ratio: matches the weights');
  });

  it('makes the winner the model of the agent', () => {
    expect(output).toContain('its primary config, has the settings of large: claude/claude-sonnet-5-5');
    expect(output).toMatch(/\$ agentllm resolve market_analyst\n[\s\S]*^0 +claude\/claude-sonnet-5-5 +config 1 /m);
  });
});

describe('isRight', () => {
  it.each(Object.entries(HIT_RATES))('is true for %s as often as planted', (model, rate) => {
    const shares = Array.from({ length: 2000 }, (_, at) => `share-${at}`);
    const right = shares.filter((share) => isRight(model, share)).length;
    expect(Math.abs(right / shares.length - rate)).toBeLessThan(0.05);
  });

  it('throws for a model without a planted rate', () => {
    expect(() => isRight('openai/gpt-4', 'share-1')).toThrow('no outcome is planted for openai/gpt-4');
  });
});
