import type { ReleaseRequest } from '../../../gen/ts/agentllm/v1/budget_service.js';
import { budgetPeriod } from '../../domain/budget_period.js';
import { nanosProblem } from '../../domain/duration.js';
import type { Budget } from '../../domain/rows.js';
import { UUID } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import type { Problems } from '../../problems.js';
import { checkRef } from './requests.js';

interface Lifetime {
  readonly seconds: bigint;
  readonly nanos: number;
}

/** A lifetime in ms. */
export const lifetimeMs = (lifetime: Lifetime | undefined): number =>
  lifetime
    ? Number(lifetime.seconds) * 1000 + Math.round(lifetime.nanos / 1e6)
    : limits.defaultReservationLifetime * 1000;

export function lifetimeProblem(lifetime: Lifetime | undefined): string | undefined {
  const nanos = lifetime && nanosProblem(lifetime);
  if (nanos) return nanos;
  const { min, max } = limits.reservationLifetime;
  const ms = lifetimeMs(lifetime);
  return ms >= min * 1000 && ms <= max * 1000 ? undefined : `must be ${min} s to ${max} s`;
}

/** Adds the problems of the fields that all requests about a reservation have. */
export function checkReservation(
  problems: Problems,
  { agent, reservation_id }: Pick<ReleaseRequest, 'agent' | 'reservation_id'>,
) {
  checkRef(problems, agent);
  if (!UUID.test(reservation_id))
    problems.add('reservation_id', reservation_id === '' ? 'is required' : 'must be a UUID');
}

/** The earliest end of the current periods of budgets. */
export function firstEnd(budgets: readonly Budget[], now: Date): Date | undefined {
  const ends = budgets.flatMap((budget) => budgetPeriod(budget, now).end ?? []);
  return ends.length === 0 ? undefined : new Date(Math.min(...ends.map((end) => end.getTime())));
}

export const ended = (id: string): ServiceError =>
  ServiceError.of('RESERVATION_ENDED', { reservation: id }, { resources: [{ type: 'reservation', name: id }] });
