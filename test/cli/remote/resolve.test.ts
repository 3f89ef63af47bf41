import { describe, expect, it } from 'vitest';
import { rowsOf, useCli } from '../support.js';

const cli = useCli();

/** The printed tables; the first has a title. */
const tablesOf = (printed: string) => printed.trimEnd().split('\n\n');

describe('agentllm resolve', () => {
  it('prints the hops with their parameters and the provenance of the values', async () => {
    await cli.json([
      'configs',
      'upsert',
      'trader',
      '--temperature',
      '0.3',
      '--fallback',
      'claude/claude-3-haiku-20240307',
    ]);
    const { code, stdout } = await cli(['resolve', 'trader']);
    expect(code).toBe(0);
    const [hops = '', origins = ''] = tablesOf(stdout);
    expect(hops).toMatch(/^trader at revision \d+, substitution any\n/);
    expect(rowsOf(hops.replace(/.*\n/, ''))).toEqual([
      expect.objectContaining({ HOP: '0', MODEL: 'openai/gpt-4', FROM: 'config 8', KEY: 'environment OPENAI_API_KEY' }),
      expect.objectContaining({ HOP: '1', MODEL: 'claude/claude-3-haiku-20240307', FROM: 'config 8, fallback' }),
    ]);
    expect(hops).toContain('temperature=0.3');
    expect(rowsOf(origins)[0]).toMatchObject({ HOP: '0', 'COME FROM': 'config 8' });
    expect(rowsOf(origins)[0]?.['VALUES']).toContain('temperature');
  });

  it('prints the provenance of each value with --why', async () => {
    const { stdout } = await cli(['resolve', 'trader', '--why']);
    const origin = rowsOf(tablesOf(stdout)[1] ?? '').find((row) => row['VALUE'] === 'parameters.temperature');
    expect(origin).toMatchObject({ 'COME FROM': 'config 8', 'ITS FIELD': 'temperature' });
  });

  it('skips the providers that one or several --down options name', async () => {
    const result = await cli.json(['resolve', 'trader', '--down', 'openai']);
    expect(result.resolved.hops.map(({ provider }: { provider: string }) => provider)).toEqual(['claude']);
    for (const down of [
      ['--down', 'openai,claude'],
      ['--down', 'openai', '--down', 'claude'],
    ]) {
      const { code, stdout } = await cli(['resolve', 'trader', ...down]);
      expect(code).toBe(1);
      expect(stdout).toContain('no model is left to try');
      expect(stdout).toMatch(/0 +openai\/gpt-4 +config 8 +provider down/);
    }
  });

  it('resolves at an earlier revision with --at', async () => {
    const { resolved, revision } = await cli.json(['resolve', 'trader', '--at', '3']);
    expect(revision).toBe(3);
    expect(resolved.hops).toHaveLength(1);
  });

  it('shows the variant of a subject, and the control without one', async () => {
    const agent = { name: 'market_analyst' };
    const { configs, experiments } = cli.service();
    await configs.upsertPrimaryConfig({ agent, config: { provider: 'openai', model_name: 'gpt-4', temperature: 0.7 } });
    const variants = [
      { name: 'now', control: true, weight_basis_points: 1 },
      { name: 'cool', weight_basis_points: 9999, overrides: { temperature: 0.1 } },
    ];
    const primary_metric = { kind: 'EXPERIMENT_METRIC_KIND_COST_PER_CALL' } as const;
    await experiments.createExperiment({ agent, experiment: { name: 'heat', variants, primary_metric } });
    await experiments.startExperiment({ agent, name: 'heat' });
    const { stdout } = await cli(['resolve', 'market_analyst', '--subject', 'run-17', '--why']);
    expect(stdout).toMatch(/\nexperiment heat, variant cool: subject run-17 is in bucket \d+\n/);
    const origin = rowsOf(tablesOf(stdout)[1] ?? '').find((row) => row['VALUE'] === 'parameters.temperature');
    expect(origin).toMatchObject({ 'COME FROM': 'experiment heat/cool', 'ITS FIELD': 'overrides.temperature' });
    const without = await cli(['resolve', 'market_analyst']);
    expect(without.stdout).toContain('experiment heat, variant now: no --subject; calls do not count\n');
    const all = await cli.json(['resolve', '--all', '--subject', 'run-17']);
    const found = all.results.find((one: { agent_name: string }) => one.agent_name === 'market_analyst');
    expect(found.resolved.experiment).toMatchObject({ variant: 'cool', subject: 'run-17' });
    const { code, stderr } = await cli(['resolve', 'market_analyst', '--subject', '']);
    expect([code, stderr]).toEqual([2, expect.stringContaining('must not be empty')]);
  });

  it('names the option that caused an error', async () => {
    const { code, stderr } = await cli(['resolve', 'trader', '--down', 'opnai']);
    expect([code, stderr]).toEqual([2, expect.stringMatching(/--down opnai +.*did you mean "openai"/)]);
    const future = await cli(['resolve', 'trader', '--at', '999999']);
    expect([future.code, future.stderr]).toEqual([1, expect.stringContaining('newer than the store')]);
    expect((await cli(['resolve', 'nobody'])).code).toBe(3);
  });

  it('names the command that activates an inactive agent', async () => {
    await cli.json(['agents', 'create', 'sleeper', '--type', 'analyst', '--no-active']);
    const { code, stderr } = await cli(['resolve', 'sleeper']);
    expect([code, stderr]).toEqual([1, expect.stringContaining('agentllm agents update <agent> --active')]);
  });
});
