import type {
  BudgetServiceService,
  CommitRequest,
  CommitResponse,
  ReleaseRequest,
  ReleaseResponse,
  RenewRequest,
  RenewResponse,
} from '../../../gen/ts/agentllm/v1/budget_service.js';
import { type UsageRecord, UsageRejection, type UsageResult } from '../../../gen/ts/agentllm/v1/usage.js';
import type { Agent, Budget } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { Problems } from '../../problems.js';
import {
  endReservation,
  readReservation,
  renewReservation,
  type StoredReservation,
} from '../../store/budgets/reservations.js';
import { onDatabase } from '../../store/failure.js';
import type { Call, Handlers } from '../dispatch/method.js';
import { budgetStateMessage, reservationMessage } from '../messages/budgets.js';
import type { Backend } from './backend.js';
import { currentStatuses } from './budget_statuses.js';
import { recordUsage, rejected, withCost } from './record_usage.js';
import { agentOf } from './requests.js';
import { checkReservation, ended, firstEnd, lifetimeMs, lifetimeProblem } from './reservation_requests.js';
import { reserve } from './reserve.js';

type ReservationMethods = 'reserve' | 'renew' | 'commit' | 'release';

/** The handlers of BudgetService for reservations. */
export const reservationHandlers = (
  backend: Backend,
): Pick<Handlers<typeof BudgetServiceService>, ReservationMethods> => ({
  reserve: (call) => reserve(backend, call),
  renew: (call) => renew(backend, call),
  commit: (call) => commit(backend, call),
  release: (call) => release(backend, call),
});

const budgetsOf = (state: State, { budget_ids }: StoredReservation): Budget[] =>
  budget_ids.flatMap((id) => state.budgets.withId(id) ?? []);

async function renew(backend: Backend, call: Call<RenewRequest, RenewResponse>): Promise<RenewResponse> {
  const { request } = call;
  const problems = new Problems();
  checkReservation(problems, request);
  problems.add('lifetime', lifetimeProblem(request.lifetime));
  problems.throwIfAny();
  const { store } = backend;
  const { agent, id } = ownerOf(store.state, request);
  const found = await existing(backend, agent, id);
  call.recheckAccess();
  const until = firstEnd(budgetsOf(store.state, found), new Date());
  const lifetime = lifetimeMs(request.lifetime);
  const renewed =
    found.state === 'open' &&
    (await onDatabase(store, (db) => renewReservation(db, { id, agentId: agent.id, lifetimeMs: lifetime, until })));
  if (!renewed) throw ended(id);
  return { reservation: reservationMessage(store.state, renewed), revision: BigInt(store.state.revision) };
}

/** Records the attempts of a reservation and ends it, in one transaction. */
async function commit(backend: Backend, call: Call<CommitRequest, CommitResponse>): Promise<CommitResponse> {
  const { request, principal, signal } = call;
  const problems = new Problems();
  checkReservation(problems, request);
  problems.throwIfAny();
  const { store } = backend;
  const { agent, id } = ownerOf(store.state, request);
  const found = await existing(backend, agent, id);
  call.recheckAccess();
  const own = request.records.map((record) => ownRecord(record, agent, id));
  const records = own.filter((record) => record !== undefined);
  const ending = { id, agentId: agent.id };
  const recorded = await recordUsage(backend, principal, { records, losses: [], ending }, signal);
  const costs = await backend.usageWriter.costs(recorded.known);
  const results = recorded.results.map((result) => withCost(result, costs));
  const statuses = await currentStatuses(backend, budgetsOf(store.state, found), found.run_id);
  return {
    results: own.map((record, at) => (record ? (results.shift() as UsageResult) : foreign(request.records[at]))),
    revision: BigInt(recorded.revision),
    released_nano_usd: recorded.released,
    states: [...statuses.values()].map(budgetStateMessage),
  };
}

/** The attempt with the id of the reservation; undefined if the attempt belongs to another agent or reservation. */
function ownRecord(record: UsageRecord, agent: Agent, id: string): UsageRecord | undefined {
  const { attempt } = record;
  if (!attempt) return record;
  const isOfAgent = record.agent_id === 0 ? record.agent === agent.name : record.agent_id === agent.id;
  const isOfReservation = attempt.reservation_id === '' || attempt.reservation_id.toLowerCase() === id;
  return isOfAgent && isOfReservation ? { ...record, attempt: { ...attempt, reservation_id: id } } : undefined;
}

const foreign = (record: UsageRecord | undefined): UsageResult =>
  rejected(
    record?.attempt?.attempt_id ?? '',
    UsageRejection.INVALID,
    'agent and reservation_id must be those of the reservation.',
  );

async function release(backend: Backend, call: Call<ReleaseRequest, ReleaseResponse>): Promise<ReleaseResponse> {
  const { request } = call;
  const problems = new Problems();
  checkReservation(problems, request);
  problems.throwIfAny();
  const { store } = backend;
  const { agent, id } = ownerOf(store.state, request);
  const found = await existing(backend, agent, id);
  call.recheckAccess();
  const released = await onDatabase(store, (db) => endReservation(db, { id, agentId: agent.id, state: 'released' }));
  const statuses = await currentStatuses(backend, budgetsOf(store.state, found), found.run_id);
  return {
    released_nano_usd: released,
    revision: BigInt(store.state.revision),
    states: [...statuses.values()].map(budgetStateMessage),
  };
}

const ownerOf = (state: State, request: Pick<ReleaseRequest, 'agent' | 'reservation_id'>) => ({
  agent: agentOf(state, request.agent),
  id: request.reservation_id.toLowerCase(),
});

async function existing({ store }: Backend, agent: Agent, id: string): Promise<StoredReservation> {
  const found = await onDatabase(store, (db) => readReservation(db, id, agent.id));
  if (found) return found;
  const resources = [{ type: 'reservation', name: id }] as const;
  throw ServiceError.of('RESERVATION_NOT_FOUND', { reservation: id }, { resources });
}
