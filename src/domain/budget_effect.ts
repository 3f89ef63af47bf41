import type { Finding } from '../../gen/ts/agentllm/v1/finding.js';
import type { ChainHop } from './chain.js';
import { finding } from './findings.js';
import type { HopPrice } from './price.js';
import type { Budget } from './rows.js';

/** A budget that covers the calls of an agent, with its state. */
export interface CoveringBudget {
  readonly budget: Pick<Budget, 'name' | 'action' | 'step_down_provider' | 'step_down_model' | 'warn_percent'>;
  readonly exhausted: boolean;
  /** Whether the spent amount has reached `warn_percent` of the limit. */
  readonly warning: boolean;
}

/** The reasons for which budgets skip a hop. */
export type BudgetSkip = 'SKIP_REASON_BUDGET_EXHAUSTED' | 'SKIP_REASON_NO_PRICE';

type Named = Pick<ChainHop, 'index' | 'provider' | 'model_name'>;

/** The effect of the budgets that cover an agent on the hops of its chain. */
export class BudgetEffect {
  /** The hops before this index are skipped; Infinity: all of them. */
  readonly start: number;
  /** Whether hops without a price are skipped. */
  readonly needsPrice: boolean;

  /** @param budgets the enabled budgets. */
  constructor(
    private readonly budgets: readonly CoveringBudget[],
    private readonly hops: readonly Named[],
  ) {
    this.start = Math.max(
      0,
      ...budgets.filter(({ exhausted }) => exhausted).map(({ budget }) => startOf(budget, hops)),
    );
    this.needsPrice = budgets.some(({ budget }) => budget.action === 'BUDGET_ACTION_BLOCK');
  }

  /** The reason why budgets skip a hop; undefined if no budget skips it. */
  skip({ index }: Pick<Named, 'index'>, price: HopPrice | undefined): BudgetSkip | undefined {
    if (index < this.start) return 'SKIP_REASON_BUDGET_EXHAUSTED';
    return this.needsPrice && !isPriced(price) ? 'SKIP_REASON_NO_PRICE' : undefined;
  }

  get exhausted(): string[] {
    return this.budgets.filter(({ exhausted }) => exhausted).map(({ budget }) => budget.name);
  }

  /** The names of the exhausted budgets that skip a hop. */
  skipping({ index }: Pick<Named, 'index'>): string[] {
    return this.budgets
      .filter(({ budget, exhausted }) => exhausted && index < startOf(budget, this.hops))
      .map(({ budget }) => budget.name);
  }
}

/** The index at which the chain starts when a budget is exhausted. */
export function startOf(budget: CoveringBudget['budget'], hops: readonly Named[]): number {
  if (budget.action === 'BUDGET_ACTION_WARN') return 0;
  if (budget.action === 'BUDGET_ACTION_BLOCK') return Number.POSITIVE_INFINITY;
  return stepDownHop(budget, hops)?.index ?? Number.POSITIVE_INFINITY;
}

const stepDownHop = (budget: CoveringBudget['budget'], hops: readonly Named[]) =>
  hops.find((hop) => hop.provider === budget.step_down_provider && hop.model_name === budget.step_down_model);

/** Whether the cost of every attempt at a hop can be limited: the rates of input and of output are known. */
export const isPriced = (hop: HopPrice | undefined): hop is HopPrice =>
  hop !== undefined &&
  hop.price.input_micro_usd_per_million !== null &&
  hop.price.output_micro_usd_per_million !== null;

/** The findings about the budgets that cover an agent. */
export function* aboutBudgets(budgets: readonly CoveringBudget[], hops: readonly Named[]): Generator<Finding> {
  for (const { budget, exhausted, warning } of budgets) {
    if (exhausted || warning) yield used(budget, exhausted);
    if (budget.action === 'BUDGET_ACTION_STEP_DOWN' && !stepDownHop(budget, hops)) yield missingHop(budget);
  }
}

const EFFECTS = {
  BUDGET_ACTION_WARN: 'calls continue',
  BUDGET_ACTION_BLOCK: 'every hop is skipped',
} as const;

function used(budget: CoveringBudget['budget'], exhausted: boolean): Finding {
  const { name, action } = budget;
  const hop = `${budget.step_down_provider}/${budget.step_down_model}`;
  const effect = (EFFECTS as Partial<Record<string, string>>)[action] ?? `the chain starts at ${hop}`;
  return finding({
    severity: exhausted && action === 'BUDGET_ACTION_BLOCK' ? 'SEVERITY_ERROR' : 'SEVERITY_WARNING',
    reason: 'FINDING_REASON_BUDGET_EXHAUSTED',
    message: exhausted
      ? `Budget "${name}" is exhausted; ${effect}`
      : `Budget "${name}" has reached ${budget.warn_percent} percent of its limit`,
  });
}

const missingHop = ({ name, step_down_provider, step_down_model }: CoveringBudget['budget']): Finding =>
  finding({
    severity: 'SEVERITY_WARNING',
    reason: 'FINDING_REASON_STEP_DOWN_HOP_MISSING',
    message:
      `Budget "${name}" steps down to ${step_down_provider}/${step_down_model}, which the chain does not have; ` +
      'when it is exhausted, every hop is skipped',
  });
