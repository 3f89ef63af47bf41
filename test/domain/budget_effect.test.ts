import { describe, expect, it } from 'vitest';
import { newBudget } from '../../src/domain/budget.js';
import { aboutBudgets, BudgetEffect, type CoveringBudget } from '../../src/domain/budget_effect.js';

const hops = ['a', 'b', 'c'].map((model_name, index) => ({ index, provider: 'p', model_name }));
const covering = (fields: Partial<CoveringBudget['budget']>, exhausted = true): CoveringBudget => ({
  budget: { ...newBudget(), name: 'desk', ...fields },
  exhausted,
  warning: exhausted,
});
const stepDown = (model: string) =>
  covering({ action: 'BUDGET_ACTION_STEP_DOWN', step_down_provider: 'p', step_down_model: model });
const block = (exhausted: boolean) => covering({ action: 'BUDGET_ACTION_BLOCK' }, exhausted);

describe('BudgetEffect', () => {
  it('skips the hops before the one that an exhausted budget names; the latest of several counts', () => {
    expect(new BudgetEffect([stepDown('b')], hops).start).toBe(1);
    expect(new BudgetEffect([stepDown('c'), stepDown('b')], hops).start).toBe(2);
  });

  it('skips every hop if the named one is missing, or if a budget with BLOCK is exhausted', () => {
    expect(new BudgetEffect([stepDown('x')], hops).start).toBe(Number.POSITIVE_INFINITY);
    expect(new BudgetEffect([block(true)], hops).skip({ index: 2 }, undefined)).toBe('SKIP_REASON_BUDGET_EXHAUSTED');
  });

  it('skips hops without a price under a budget with BLOCK, and none under a budget with WARN', () => {
    expect(new BudgetEffect([block(false)], hops).skip({ index: 0 }, undefined)).toBe('SKIP_REASON_NO_PRICE');
    const warn = new BudgetEffect([covering({ action: 'BUDGET_ACTION_WARN' })], hops);
    expect(warn.skip({ index: 0 }, undefined)).toBeUndefined();
    expect(warn.exhausted).toEqual(['desk']);
  });

  it('names the budgets that skip a hop, without WARN and without those that skip only earlier hops', () => {
    const named = (name: string, one: CoveringBudget) => ({ ...one, budget: { ...one.budget, name } });
    const budgets = [
      named('warn', covering({ action: 'BUDGET_ACTION_WARN' })),
      named('first', stepDown('a')),
      named('second', stepDown('b')),
      named('third', stepDown('c')),
      named('open', block(false)),
    ];
    const effect = new BudgetEffect(budgets, hops);
    expect(effect.exhausted).toEqual(['warn', 'first', 'second', 'third']);
    expect(effect.skipping({ index: 0 })).toEqual(['second', 'third']);
    expect(effect.skipping({ index: 1 })).toEqual(['third']);
  });

  it('has a finding for each used budget, and for a hop that the chain does not have', () => {
    const reasons = [...aboutBudgets([stepDown('x'), block(false)], hops)].map(({ reason }) => reason);
    expect(reasons).toEqual(['FINDING_REASON_BUDGET_EXHAUSTED', 'FINDING_REASON_STEP_DOWN_HOP_MISSING']);
  });
});
