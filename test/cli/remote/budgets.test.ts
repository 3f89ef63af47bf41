import { describe, expect, it } from 'vitest';
import { unique } from '../../support/service.js';
import { rowsOf, useCli } from '../support.js';

describe('agentllm budgets', () => {
  const cli = useCli();
  const desk = ['--scope', 'all', '--period', 'day', '--limit', '5', '--action', 'warn'];

  it('creates, lists, shows, changes and deletes a budget', async () => {
    const name = unique('desk');
    const created = await cli(['budgets', 'create', name, ...desk]);
    expect(created.stdout).toMatch(new RegExp(`^created budget ${name} at revision \\d+\n$`));
    const { stdout } = await cli(['budgets', 'list']);
    expect(rowsOf(stdout).find((row) => row['NAME'] === name)).toMatchObject({
      SCOPE: 'all agents',
      PERIOD: 'day',
      LIMIT: '5.00',
      SPENT: '0.00',
      USED: '░░░░░░░░░░ 0%',
      ACTION: 'warn',
    });
    await cli.json(['budgets', 'set', name, '--limit', '0.000000001', '--action', 'block', '--warn-percent', '50']);
    const shown = await cli(['budgets', 'show', name]);
    expect(shown.stdout).toMatch(/limit +0\.000000001 USD/);
    expect(shown.stdout).toMatch(/action +block/);
    await cli.json(['budgets', 'delete', name]);
    expect((await cli(['budgets', 'show', name])).code).not.toBe(0);
  });

  it('prints budgets and their amounts as JSON', async () => {
    const name = unique('desk');
    await cli.json(['budgets', 'create', name, ...desk]);
    const { budgets, states } = await cli.json(['budgets', 'list']);
    expect(budgets).toContainEqual(expect.objectContaining({ name, limit_nano_usd: 5_000_000_000 }));
    expect(states).toContainEqual(expect.objectContaining({ budget: name, left_nano_usd: 5_000_000_000 }));
  });

  it('names the option of an invalid value', async () => {
    const rejected = await cli(['budgets', 'create', unique('desk'), ...desk, '--warn-percent', '101']);
    expect(rejected.code).not.toBe(0);
    expect(rejected.stderr).toContain('--warn-percent 101');
    const amount = await cli(['budgets', 'create', unique('desk'), ...desk.slice(0, 4), '--limit', '1.0000000001']);
    expect(amount.stderr).toContain('must be an amount in USD with at most 9 decimal places');
  });

  it('are applied by a resolution that treats them as exhausted', async () => {
    const name = unique('desk');
    await cli.json(['budgets', 'create', name, ...desk.slice(0, -1), 'block']);
    const { code, stdout } = await cli(['resolve', 'trader', '--exhausted', name]);
    expect(code).toBe(1);
    expect(stdout).toContain(`Budget "${name}" is exhausted`);
    await cli.json(['budgets', 'delete', name]);
  });
});
