import type { BudgetSkip } from '../../domain/budget_effect.js';
import type { Resolution, ResolutionHop } from '../resolution_types.js';

/** An attempt that needs the permission of the budgets. */
export interface AttemptRequest {
  readonly resolution: Resolution;
  readonly hop: ResolutionHop;
  /** Empty: the call has no run. */
  readonly runId: string;
  readonly signal: AbortSignal | undefined;
}

/** Whether budgets permit an attempt. */
export type Admission =
  | {
      readonly refused: undefined;
      /** The reservation that covers the attempt; empty: no reservation. */
      readonly reservationId: string;
      /** Returns the unit of the reservation, because no request was sent. */
      unused(): void;
    }
  | {
      readonly refused: BudgetSkip;
      readonly detail: string;
      /** The names of the budgets that do not permit the attempt. */
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
