import { describe, expect, it } from 'vitest';
import { usdText } from '../../../src/cli/remote/usage_range.js';
import { connect } from '../../../src/client/index.js';
import { usageRecord } from '../../support/usage.js';
import { useCli } from '../support.js';

const cli = useCli();

async function record(...records: ReturnType<typeof usageRecord>[]): Promise<void> {
  const client = connect({ address: `127.0.0.1:${cli.service().port}` });
  try {
    await client.usage.recordUsage({ records });
  } finally {
    client.close();
  }
}

describe('agentllm usage', () => {
  const range = ['--since', '2026-03-01', '--until', '2026-04-01'];
  const at = (time: string, agent: string) =>
    usageRecord({ agent, agent_id: agent === 'a,b' ? 901 : 902, attempt: { started_at: new Date(time) } });

  it('prints a bar for each day, and the total', async () => {
    await record(
      at('2026-03-02T12:00:00Z', 'a,b'),
      at('2026-03-02T13:00:00Z', 'a,b'),
      at('2026-03-03T12:00:00Z', '=x'),
    );
    const { stdout, code, stderr } = await cli(['usage', ...range]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^DAY +ATTEMPTS/);
    expect(stdout).toMatch(/2026-03-02 +2 /);
    expect(stdout).toContain('3 attempts');
  });

  it('prints CSV in which a spreadsheet executes no cell', async () => {
    const { stdout } = await cli(['usage', '--by', 'agent', '--csv', ...range]);
    expect(stdout.split('\n').map((line) => line.slice(0, 9))).toEqual(['AGENT,ATT', '"a,b",2,0', "'=x,1,0,0", '']);
  });

  it('prints the groups and the totals as JSON', async () => {
    const { groups, totals } = await cli.json(['usage', '--by', 'agent,model', ...range]);
    expect(groups).toHaveLength(2);
    expect(totals.attempts).toBe(3);
  });

  it('lists attempts, and calculates and stores other prices', async () => {
    const listed = await cli(['usage', 'list', ...range]);
    expect(listed.stdout.split('\n')).toHaveLength(5);
    const what = await cli(['usage', 'what-if', '--input', '2', '--output', '8', ...range]);
    expect(what.stdout).toContain('WHAT IF');
    expect(what.stdout).toMatch(/total +3 +\S+ +0\.0084 /);
    const dry = await cli(['usage', 'reprice', '--reason', 'test', '--dry-run', ...range]);
    expect(dry.stdout).toMatch(/^dry run, nothing was stored: would adjust/);
  });

  it.each([
    ['usage', '--by', 'colour'],
    ['usage', '--last', '7d', '--since', '2026-01-01'],
    ['usage', '--csv', '--json'],
  ])('rejects %s %s %s %s', async (...args) => {
    expect((await cli(args)).code).toBe(2);
  });

  it.each([
    [0n, '0.00'],
    [1n, '0.000000001'],
    [-1_500_000_000n, '-1.50'],
    [123_456_789_012n, '123.456789012'],
  ])('prints %s nano-USD as %s', (nanoUsd, expected) => {
    expect(usdText(nanoUsd)).toBe(expected);
  });
});
