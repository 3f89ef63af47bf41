import { describe, expect, it } from 'vitest';
import { rowsOf, useCli } from '../support.js';

const cli = useCli();
const model = ['--model', 'grok/grok-4.3'];

async function newConfig(...options: string[]): Promise<{ id: string; revision: number }> {
  const { config, revision } = await cli.json(['configs', 'create', 'trader', ...model, ...options]);
  return { id: String(config.id), revision };
}

describe('agentllm history', () => {
  it('prints the time, actor, method, reason and changed values of each revision', async () => {
    const { id } = await newConfig('--temperature', '0.7');
    await cli.json(['configs', 'update', id, '--temperature', '0.2', '--model', 'openai/gpt-4', '--reason', 'calmer']);
    await cli.json(['configs', 'delete', id]);
    const { code, stdout } = await cli(['history', id]);
    expect(code).toBe(0);
    expect(stdout.replace(/^\S+Z {2}revision \d+/gm, 'AT').split('\n')).toEqual([
      'AT  anonymous  DeleteConfig',
      `  trader  config ${id} openai/gpt-4 deleted`,
      'AT  anonymous  UpdateConfig  "calmer"',
      `  trader  config ${id} openai/gpt-4: model grok/grok-4.3 → openai/gpt-4, temperature 0.7 → 0.2`,
      'AT  anonymous  CreateConfig',
      `  trader  config ${id} grok/grok-4.3 created`,
      '',
    ]);
  });

  it('prints only the action when an API key changes', async () => {
    const { config } = await cli.json(['configs', 'create', 'trader', ...model, '--api-key'], { stdin: 'sk-first' });
    await cli.json(['configs', 'update', String(config.id), '--api-key'], { stdin: 'sk-second' });
    await cli.json(['configs', 'update', String(config.id), '--clear-api-key']);
    const { stdout } = await cli(['history', String(config.id)]);
    expect(stdout).toMatch(/: API key cleared\n[\s\S]*: API key replaced\n/);
    expect(stdout).not.toContain('sk-');
  });

  it('prints the changes of one write in one block', async () => {
    const { revision } = await cli.json([
      'configs',
      'bulk',
      'bull_researcher',
      'bear_researcher',
      '--temperature',
      '0.1',
    ]);
    const { stdout } = await cli(['history', '--limit', '2']);
    expect(stdout.match(/revision/g)).toHaveLength(1);
    expect(stdout).toContain(`revision ${revision}  anonymous  BulkAssignConfig`);
    expect(stdout).toMatch(/^ {2}bull_researcher {2}config/m);
    expect(stdout).toMatch(/^ {2}bear_researcher {2}config/m);
  });

  it('applies its filters and reports that more entries exist', async () => {
    await cli.json(['models', 'update', 'grok/grok-4.3', '--input-price', '2', '--output-price', '8']);
    const { entries } = await cli.json(['history', '--kind', 'price', '--kind', 'model', '--limit', '3']);
    expect(new Set(entries.map(({ kind }: { kind: string }) => kind))).toEqual(
      new Set(['RESOURCE_KIND_PRICE', 'RESOURCE_KIND_MODEL']),
    );
    expect(entries).toHaveLength(3);
    const { stderr } = await cli(['history', '--limit', '1']);
    expect(stderr).toBe('(the newest 1; --limit shows more)\n');
    const none = await cli(['history', '999999']);
    expect(none.stdout).toBe('no entry of the history matches\n');
  });

  it('names an agent by its id when the agent was deleted', async () => {
    const { agent } = await cli.json(['agents', 'create', 'gone', '--type', 'analyst']);
    await cli.json(['configs', 'create', 'gone', ...model]);
    await cli.json(['agents', 'delete', 'gone', '--cascade']);
    const { stdout } = await cli(['history', '--agent', String(agent.id)]);
    expect(stdout).toContain(`agent #${agent.id}  agent gone deleted`);
  });
});

describe('agentllm diff', () => {
  it('compares two revisions, or a revision with the current state', async () => {
    const { id, revision } = await newConfig('--temperature', '0.7');
    const { revision: second } = await cli.json(['configs', 'update', id, '--temperature', '0.2', '--max-tokens', '9']);
    await cli.json(['configs', 'update', id, '--unset', 'max-tokens']);
    const comparison = await cli(['diff', id, String(revision), String(second)]);
    expect(comparison.code).toBe(0);
    expect(rowsOf(comparison.stdout)).toEqual([
      { FIELD: 'temperature', [`AT ${revision}`]: '0.7', [`AT ${second}`]: '0.2' },
      { FIELD: 'max_tokens', [`AT ${revision}`]: 'none', [`AT ${second}`]: '9' },
    ]);
    const { differences, after } = await cli.json(['diff', id, String(second), 'now']);
    expect(differences).toEqual([{ field: 'max_tokens', before: 9 }]);
    expect(after.config.temperature).toBe(0.2);
  });

  it('reports a difference by its exit code with --exit-code', async () => {
    const { id, revision } = await newConfig();
    const same = ['diff', id, String(revision), '--exit-code'];
    expect(await cli(same)).toMatchObject({ code: 0, stdout: expect.stringContaining('no difference') });
    await cli.json(['configs', 'update', id, '--temperature', '1.1']);
    expect((await cli(same)).code).toBe(1);
  });

  it('compares a deleted config and rejects an id that never existed', async () => {
    const { id, revision } = await newConfig();
    await cli.json(['configs', 'delete', id]);
    const { stdout } = await cli(['diff', id, String(revision)]);
    expect(stdout).toMatch(/^model +grok\/grok-4\.3 +none$/m);
    expect(await cli(['diff', '999999', '3'])).toMatchObject({ code: 3 });
    expect(await cli(['diff', id, 'yesterday'])).toMatchObject({ code: 2 });
  });
});

describe('agentllm rollback', () => {
  it('prints the change with --dry-run, then applies it as a new revision', async () => {
    const { id, revision } = await newConfig('--temperature', '0.7');
    await cli.json(['configs', 'update', id, '--temperature', '0.2']);
    const rollbackArgs = ['rollback', id, '--to', String(revision)];
    const dryRun = await cli([...rollbackArgs, '--dry-run']);
    expect(dryRun.code).toBe(0);
    expect(dryRun.stdout).toMatch(/^dry run at revision \d+, nothing was written: config \d+ of trader/);
    expect(rowsOf(dryRun.stdout.replace(/.*\n/, ''))).toEqual([{ FIELD: 'temperature', NOW: '0.2', THEN: '0.7' }]);
    const applied = await cli([...rollbackArgs, '--reason', 'was better']);
    expect(applied.stdout).toMatch(
      new RegExp(`^rolled back config ${id} of trader \\(to its state at revision ${revision}\\)`),
    );
    expect((await cli.json(['configs', 'get', id])).config.temperature).toBe(0.7);
    expect((await cli(['history', id, '--limit', '1'])).stdout).toMatch(/RollbackConfig {2}"was better"/);
  });

  it('restores a deleted config', async () => {
    const { id, revision } = await newConfig();
    await cli.json(['configs', 'delete', id]);
    const { stdout } = await cli(['rollback', id, '--to', String(revision), '--dry-run']);
    expect(stdout).toContain(`config ${id} of trader`);
    expect((await cli.json(['rollback', id, '--to', String(revision)])).config.id).toBe(Number(id));
  });

  it('requires --api-key or --without-key when the config had an API key', async () => {
    const { config, revision } = await cli.json(['configs', 'create', 'trader', ...model, '--api-key'], {
      stdin: 'sk-x',
    });
    const id = String(config.id);
    await cli.json(['configs', 'delete', id]);
    const rollbackArgs = ['rollback', id, '--to', String(revision)];
    const rejected = await cli(rollbackArgs);
    expect([rejected.code, rejected.stderr]).toEqual([1, expect.stringContaining('use --api-key or --without-key')]);
    const restored = await cli.json([...rollbackArgs, '--api-key'], { stdin: 'sk-y' });
    expect(restored.config.api_key_state).toBe('API_KEY_STATE_SET');
    expect((await cli.json([...rollbackArgs, '--without-key'])).config.api_key_state).toBe('API_KEY_STATE_NONE');
  });

  it('is rejected without --to', async () => {
    expect(await cli(['rollback', '8'])).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('use --to with the revision to roll back to'),
    });
  });
});

describe('agentllm audit', () => {
  it('prints writes and health checks with the caller, method and resource', async () => {
    await cli.json(['configs', 'update', '8', '--temperature', '0.4']);
    await cli(['configs', 'health', '8']);
    const { code, stdout } = await cli(['audit', '--agent', 'trader', '--limit', '2']);
    expect(code).toBe(0);
    const [check, write] = rowsOf(stdout);
    expect(check).toMatchObject({ ACTOR: 'anonymous', METHOD: 'CheckConfigHealth', RESOURCE: 'trader' });
    expect(check?.['DETAILS']).toMatch(/^config 8: openai: no-key$/);
    expect(write).toMatchObject({ METHOD: 'UpdateConfig', RESOURCE: 'trader' });
    expect(write?.['DETAILS']).toContain('→ 0.4');
    expect((await cli(['audit', '--actor', 'nobody'])).stdout).toBe('no event matches\n');
    expect((await cli(['audit', '--kind', 'gossip'])).code).toBe(2);
  });
});
