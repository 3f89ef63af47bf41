import { describe, expect, it } from 'vitest';
import { rowsOf, useCli } from '../support.js';

/* Commands that act on many agents, and the reports of agents without an enabled config. */

const cli = useCli();

describe('agentllm configs bulk', () => {
  it('selects agents with --all or with filters', async () => {
    const { agents } = await cli.json(['agents', 'list']);
    const change = ['--max-tokens', '4000', '--dry-run'];
    const all = await cli.json(['configs', 'bulk', '--all', ...change]);
    expect(all.results).toHaveLength(agents.length);
    const some = await cli.json(['configs', 'bulk', '--of-type', 'researcher', ...change]);
    const researchers = agents.filter((item: { agent_type: string }) => item.agent_type === 'researcher');
    expect(some.results.map((item: { agent_id: number }) => item.agent_id)).toEqual(
      researchers.map((item: { id: number }) => item.id),
    );
    await cli.json(['configs', 'upsert', 'trader', '--model', 'claude/claude-3-haiku-20240307']);
    const byProvider = await cli.json(['configs', 'bulk', '--of-provider', 'anthropic', ...change]);
    expect(byProvider.results.map((item: { agent_name: string }) => item.agent_name)).toEqual(['trader']);
  });

  it('is rejected when the selection of agents is empty or ambiguous', async () => {
    const change = ['--temperature', '0'];
    expect((await cli(['configs', 'bulk', ...change])).stderr).toContain('no agents are selected');
    expect((await cli(['configs', 'bulk', 'trader', '--all', ...change])).stderr).toContain('not both');
    expect((await cli(['configs', 'bulk', '--of-type', 'nobody', ...change])).stderr).toContain('no agent matches');
  });

  it('names the agents that caused the rejection', async () => {
    await cli.json(['configs', 'upsert', 'trader', '--model', 'openai/gpt-4']);
    await cli.json(['configs', 'upsert', 'risk_manager', '--model', 'claude/claude-3-haiku-20240307']);
    const { code, stderr } = await cli(['configs', 'bulk', '--of-active', '--model-name', 'gpt-4']);
    expect(code).not.toBe(0);
    expect(stderr).toContain('(for "risk_manager")');
  });
});

describe('agentllm rollback --revision', () => {
  it('rolls back a bulk change, or names the configs that were changed later', async () => {
    const names = ['bull_researcher', 'bear_researcher'];
    const { revision, results } = await cli.json(['configs', 'bulk', ...names, '--temperature', '0.1']);
    const dryRun = await cli(['rollback', '--revision', String(revision), '--dry-run']);
    expect(dryRun.stdout).toContain(`nothing was written: revision ${revision} would be rolled back`);
    const { code, stdout } = await cli(['rollback', '--revision', String(revision)]);
    expect(code).toBe(0);
    expect(stdout).toContain(`rolled back revision ${revision} at revision ${revision + 1}`);
    for (const [index, name] of names.entries())
      expect(stdout).toContain(`  ${name}  config ${results[index].config.id} `);
    await cli.json(['configs', 'update', String(results[0].config.id), '--temperature', '0.3']);
    const rejected = await cli(['rollback', '--revision', String(revision + 1)]);
    expect(rejected.code).not.toBe(0);
    expect(rejected.stderr).toContain(`agentllm: revision ${revision + 1} cannot be rolled back`);
    expect(rejected.stderr).toContain(`config ${results[0].config.id} of "bull_researcher"  was changed again`);
  });

  it('is rejected without a target or with two targets', async () => {
    expect((await cli(['rollback'])).stderr).toContain('use the id of a config with --to, or --revision');
    expect((await cli(['rollback', '8'])).stderr).toContain('use --to');
    expect((await cli(['rollback', '8', '--revision', '3'])).stderr).toContain('cannot be combined with <id>');
  });
});

describe('agentllm resolve --all', () => {
  it('prints every agent in one table, or as JSON with --json', async () => {
    const { agents } = await cli.json(['agents', 'list']);
    const { stdout, code } = await cli(['resolve', '--all']);
    expect(rowsOf(stdout).length).toBe(agents.length);
    expect(stdout).toContain('openai/gpt-4');
    expect(code).toBe(0);
    const { results } = await cli.json(['resolve', '--all']);
    expect(results.map((item: { agent_id: number }) => item.agent_id)).toEqual(
      agents.map((item: { id: number }) => item.id),
    );
    expect((await cli(['resolve', '--all', '--down', 'openai,claude'])).code).toBe(1);
    expect((await cli(['resolve'])).stderr).toContain('name an agent');
    expect((await cli(['resolve', 'trader', '--all'])).stderr).toContain('not both');
  });
});

describe('an agent without an enabled config', () => {
  it('is reported by the command that leaves the agent in this state', async () => {
    const created = await cli(['agents', 'create', 'lonely', '--type', 'analyst']);
    expect(created.stdout).toContain('no enabled config; it uses its default model openai/gpt-4o-mini');
    const none = await cli(['agents', 'update', 'lonely', '--model', 'none']);
    expect(none.stdout).toContain('no default model');
    const { config } = await cli.json(['configs', 'create', 'lonely', '--model', 'openai/gpt-4o']);
    const deleted = await cli(['configs', 'delete', String(config.id), '--dry-run']);
    expect(deleted.stdout).toContain('so it can call no model');
    await cli.json(['configs', 'delete', String(config.id)]);
    expect((await cli(['resolve', 'lonely'])).stderr).toContain('no enabled config and no default model');
    await cli.json(['agents', 'delete', 'lonely']);
  });
});

describe('agentllm history and configs list', () => {
  it('print a change of only the fallback model, and prices with their amounts', async () => {
    const fallback = ['--fallback', 'openai/gpt-4o'];
    const { config } = await cli.json(['configs', 'create', 'trader', '--model', 'openai/gpt-4', ...fallback]);
    await cli.json(['configs', 'update', String(config.id), '--fallback-model', 'gpt-4o-mini']);
    const { stdout } = await cli(['history', String(config.id), '--limit', '1']);
    expect(stdout).toContain('fallback_model gpt-4o → gpt-4o-mini');
    expect(stdout).not.toContain('undefined');
    await cli.json(['models', 'update', 'openai/gpt-4o', '--input-price', '2', '--output-price', '8.5']);
    const prices = await cli(['history', '--kind', 'price', '--limit', '1']);
    expect(prices.stdout).toContain('price of openai/gpt-4o created: input USD/M 2, output USD/M 8.5');
  });

  it('find a config by its fallback provider with --include-fallbacks', async () => {
    const { config } = await cli.json([
      ...['configs', 'create', 'trader', '--model', 'openai/gpt-4o', '--fallback', 'deepseek/deepseek-chat'],
    ]);
    const list = ['configs', 'list', '--provider', 'deepseek'];
    const ids = async (...more: string[]) =>
      (await cli.json([...list, ...more])).configs.map((item: { id: number }) => item.id);
    expect(await ids()).not.toContain(config.id);
    expect(await ids('--include-fallbacks')).toContain(config.id);
  });
});
