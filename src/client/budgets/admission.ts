import type { BudgetSkip } from '../../domain/budget_effect.js';
import type { Resolution, ResolutionHop } from '../resolution_types.js';

/** An attempt for which the budgets are asked. */
export interface AttemptRequest {
  readonly resolution: Resolution;
  readonly hop: ResolutionHop;
  /** Empty: the call is part of no run. */
  readonly runId: string;
  readonly signal: AbortSignal | undefined;
}

/** Whether budgets permit an attempt. */
export type Admission =
  | {
      readonly refused: undefined;
      /** The reservation that the attempt draws on; empty: none. */
      readonly reservationId: string;
      /** Gives the attempt back: no request was sent. */
      unused(): void;
    }
  | {
      readonly refused: BudgetSkip;
      readonly detail: string;
      /** The names of the budgets that refuse it. */
      readonly budgets: readonly string[];
    };

/** The admission of an attempt that no budget limits. */
export const ADMITTED: Admission = { refused: undefined, reservationId: '', unused() {} };

export const exhausted = (budgets: readonly string[], detail = ''): Admission => ({
  refused: 'SKIP_REASON_BUDGET_EXHAUSTED',
  detail: [budgets.map((name) => JSON.stringify(name)).join(', '), detail].filter((part) => part !== '').join(': '),
  budgets,
});

export const unpriced = (budgets: readonly string[]): Admission => ({
  refused: 'SKIP_REASON_NO_PRICE',
  detail: budgets.map((name) => JSON.stringify(name)).join(', '),
  budgets,
});
