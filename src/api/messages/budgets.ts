import type { BudgetState, Reservation } from '../../../gen/ts/agentllm/v1/budget.js';
import { int64Amount } from '../../domain/amount.js';
import type { State } from '../../domain/state.js';
import type { BudgetStatus } from '../../feed/budget_monitor.js';
import type { StoredReservation } from '../../store/budgets/reservations.js';

export const budgetStateMessage = ({ budget, run_id, amounts }: BudgetStatus): BudgetState => ({
  budget: budget.name,
  run_id,
  period_start: amounts.period.start,
  period_end: amounts.period.end,
  limit_nano_usd: budget.limit_nano_usd,
  spent_nano_usd: int64Amount(amounts.spent),
  reserved_nano_usd: amounts.reserved,
  left_nano_usd: amounts.left,
  unreserved_nano_usd: int64Amount(amounts.unreserved),
  unpriced_attempts: BigInt(amounts.unpriced),
  open_reservations: amounts.open,
  exhausted: amounts.exhausted,
  warning: amounts.warning,
});

export const reservationMessage = (state: State, reservation: StoredReservation): Reservation => ({
  reservation_id: reservation.reservation_id,
  amount_nano_usd: reservation.amount,
  held_nano_usd: reservation.held,
  attempts: reservation.attempts,
  expires_at: reservation.expires_at,
  expires_in_ms: BigInt(Math.max(0, reservation.expires_at.getTime() - reservation.now.getTime())),
  budgets: reservation.budget_ids.flatMap((id) => state.budgets.withId(id)?.name ?? []),
});
