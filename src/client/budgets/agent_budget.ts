import { performance } from 'node:perf_hooks';
import type { ReserveResponse } from '../../../gen/ts/agentllm/v1/budget_service.js';
import type { UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { type CoveringBudget, isPriced, startOf } from '../../domain/budget_effect.js';
import { Backoff } from '../backoff.js';
import { AgentLLMError } from '../error.js';
import type { Resolution } from '../resolution_types.js';
import { waitFor } from '../wait.js';
import { ADMITTED, type Admission, type AttemptRequest, exhausted, unpriced } from './admission.js';
import { BudgetLease } from './budget_lease.js';
import { newReservationId, type ReservationCalls } from './reservation_calls.js';

const METHOD = 'agentllm.v1.BudgetService/Reserve';
/** An amount can become available when another process ends a reservation. */
const REFUSED_MS = 2_000;

/** The parts of the client that AgentBudget uses. */
export interface AgentBudgetParts {
  readonly calls: ReservationCalls;
  /** The enabled budgets with STEP_DOWN or BLOCK that cover the agent, with their newest states. */
  limiting(): readonly CoveringBudget[];
  /** The store revision of these budgets. */
  revision(): bigint;
  readonly inputTokens: () => number;
  readonly attempts: number | undefined;
  /** Called when no reservation is held. */
  onIdle(): void;
}

/**
 * The reason why there is no reservation, the time until which it applies, and the hops that may be used without a
 * reservation.
 */
interface Refusal {
  readonly until: number;
  readonly admission: (limiting: readonly CoveringBudget[], request: AttemptRequest) => Admission;
}

type Outcome = BudgetLease | Refusal;

/**
 * The reservations of one agent, or of one agent in one run. An attempt uses a unit of the current reservation without
 * a request. The next reservation is requested before the current reservation is used up.
 */
export class AgentBudget {
  private current: BudgetLease | undefined;
  private next: BudgetLease | undefined;
  private readonly leases = new Map<string, BudgetLease>();
  private refusal: Refusal | undefined;
  private requesting: Promise<Outcome> | undefined;
  /** The id of a request whose response was lost. The repetition uses the same id, so only one reservation is made. */
  private pendingId: string | undefined;
  private readonly backoff = new Backoff();
  private readonly timers = new Map<BudgetLease, NodeJS.Timeout>();
  private readonly commits = new Set<Promise<void>>();
  private isClosed = false;

  constructor(
    private readonly agent: string,
    private readonly runId: string,
    private readonly parts: AgentBudgetParts,
  ) {}

  /** Whether an attempt may be made. Sends no request while a reservation has units left. */
  admit(request: AttemptRequest): Admission | Promise<Admission> {
    const limiting = this.parts.limiting();
    if (limiting.length === 0) return ADMITTED;
    const known = knownRefusal(limiting, request);
    if (known) return known;
    const lease = this.usableLease(limiting);
    if (lease) return this.take(lease, limiting, request);
    if (this.refusal && this.refusal.until > performance.now()) return this.refusal.admission(limiting, request);
    return this.reserveThen(request);
  }

  /** The attempts of a call have ended. @param records by the id of their reservation. */
  settle(reservationId: string, records: readonly UsageRecord[]): void {
    this.leases.get(reservationId)?.settle(records);
  }

  has(reservationId: string): boolean {
    return this.leases.has(reservationId);
  }

  /** Ends all reservations. A reservation with attempts in progress expires instead. */
  async close(): Promise<void> {
    this.isClosed = true;
    for (const lease of [...this.leases.values()]) {
      lease.close();
      if (lease.isIdle) this.finish(lease);
    }
    await Promise.all(this.commits);
    for (const timer of this.timers.values()) clearTimeout(timer);
  }

  private async reserveThen(request: AttemptRequest): Promise<Admission> {
    const outcome = await waitFor(this.request(true), request.signal, METHOD);
    const limiting = this.parts.limiting();
    if (!(outcome instanceof BudgetLease)) return outcome.admission(limiting, request);
    // Other waiting calls may have used all units of the reservation.
    return outcome.hasUnits ? this.take(outcome, limiting, request) : this.admit(request);
  }

  private take(
    lease: BudgetLease,
    limiting: readonly CoveringBudget[],
    { hop, resolution }: AttemptRequest,
  ): Admission {
    const { exhausted: names } = lease.grant;
    if (hop.index < startIn(resolution, lease, limiting)) return exhausted(names);
    const admission = lease.take();
    if (lease.isLow && !this.next) void this.request(false).catch(() => {});
    return admission;
  }

  /** The current reservation. It is ended if it no longer covers all budgets. */
  private usableLease(limiting: readonly CoveringBudget[]): BudgetLease | undefined {
    for (const lease of [this.current, this.next]) {
      if (lease?.hasUnits && this.covers(lease, limiting)) {
        if (lease === this.next) this.next = undefined;
        this.current = lease;
        return lease;
      }
      if (lease) this.retire(lease);
    }
    return undefined;
  }

  /** Whether a reservation covers all budgets. It does not cover budgets that were created after it. */
  private covers({ grant }: BudgetLease, limiting: readonly CoveringBudget[]): boolean {
    if (this.parts.revision() <= grant.revision) return true;
    const names = new Set([...grant.reservation.budgets, ...grant.exhausted]);
    return limiting.every(({ budget }) => names.has(budget.name));
  }

  private retire(lease: BudgetLease): void {
    lease.close();
    if (lease === this.current) this.current = undefined;
    if (lease === this.next) this.next = undefined;
    if (lease.isIdle) this.finish(lease);
  }

  /** The request in progress, which all calls share. */
  private request(isAwaited: boolean): Promise<Outcome> {
    this.requesting ??= this.reserve(isAwaited).finally(() => {
      this.requesting = undefined;
    });
    return this.requesting;
  }

  private async reserve(isAwaited: boolean): Promise<Outcome> {
    const { calls, inputTokens, attempts } = this.parts;
    this.pendingId ??= newReservationId();
    const request = { id: this.pendingId, agent: this.agent, runId: this.runId, inputTokens: inputTokens(), attempts };
    try {
      const response = await calls.reserve(request, isAwaited);
      this.pendingId = undefined;
      this.backoff.reset();
      return this.accept(response);
    } catch (error) {
      return this.refuse(unavailableRefusal(error), this.backoff.next());
    }
  }

  private accept(response: ReserveResponse): Outcome {
    const { reservation, result, exhausted: names, retry_after_ms, step_down_hop: start = 0, revision } = response;
    if (!reservation) {
      const untilMs = Math.min(REFUSED_MS, Number(retry_after_ms ?? REFUSED_MS));
      const isUnpriced = result === 'RESERVE_RESULT_NO_PRICE';
      return this.refuse((limiting) => (isUnpriced ? unpriced(blocking(limiting)) : exhausted(names)), untilMs);
    }
    this.refusal = undefined;
    const lease = new BudgetLease({ reservation, start, exhausted: names, revision }, () => this.finish(lease));
    this.leases.set(lease.id, lease);
    this.schedule(lease);
    if (this.isClosed) this.retire(lease);
    else if (this.current?.hasUnits) this.next = lease;
    else this.current = lease;
    return lease;
  }

  private refuse(admission: Refusal['admission'], ms: number): Refusal {
    this.refusal = { until: performance.now() + ms, admission };
    return this.refusal;
  }

  /** Renews a used reservation, and ends an unused reservation. */
  private schedule(lease: BudgetLease): void {
    clearTimeout(this.timers.get(lease));
    const timer = setTimeout(() => void this.renewOrEnd(lease), Math.max(1, lease.renewalMs)).unref();
    this.timers.set(lease, timer);
  }

  private async renewOrEnd(lease: BudgetLease): Promise<void> {
    if (!this.leases.has(lease.id)) return;
    if (lease.remainingMs <= 0 || (!lease.wasUsed && lease.isIdle)) return this.retire(lease);
    try {
      const { reservation } = await this.parts.calls.renew(this.agent, lease.id);
      if (reservation) lease.renewed(reservation);
    } catch {
      // The reservation stays usable until it expires.
    }
    if (this.leases.has(lease.id)) this.schedule(lease);
  }

  /** Commits the attempts of a reservation and releases the rest of its amount. */
  private finish(lease: BudgetLease): void {
    if (!this.leases.delete(lease.id)) return;
    clearTimeout(this.timers.get(lease));
    this.timers.delete(lease);
    if (lease === this.current) this.current = undefined;
    if (lease === this.next) this.next = undefined;
    // If the request fails, the reservation expires. The spool also reports the usage.
    const commit: Promise<void> = this.parts.calls
      .commit(this.agent, lease.id, lease.records)
      .then(
        () => {},
        () => {},
      )
      .finally(() => {
        this.commits.delete(commit);
        if (this.leases.size === 0 && !this.requesting) this.parts.onIdle();
      });
    this.commits.add(commit);
  }
}

/**
 * The index of the first hop that a reservation covers. The service states this index for the chain without a variant;
 * in the chain of a variant, the hop of the budget can have another index.
 */
function startIn(resolution: Resolution, { grant }: BudgetLease, limiting: readonly CoveringBudget[]): number {
  if (!resolution.experiment) return grant.start;
  const refusing = limiting.filter(({ budget }) => grant.exhausted.includes(budget.name));
  // The list does not contain a budget that this client does not know yet.
  if (refusing.length === 0 || refusing.length < grant.exhausted.length) return grant.start;
  const chain = chainOf(resolution);
  return Math.max(...refusing.map(({ budget }) => startOf(budget, chain)));
}

/** The refusal that is known without a request: because of exhausted budgets, or of hops without a price. */
function knownRefusal(limiting: readonly CoveringBudget[], { resolution, hop }: AttemptRequest): Admission | undefined {
  const chain = chainOf(resolution);
  const names = limiting
    .filter((one) => one.exhausted && hop.index < startOf(one.budget, chain))
    .map(({ budget }) => budget.name);
  if (names.length > 0) return exhausted(names);
  const blocks = blocking(limiting);
  return blocks.length > 0 && !isPriced(hop.price) ? unpriced(blocks) : undefined;
}

/**
 * The refusal while the service is unavailable. Budgets then count as exhausted, because other processes may have used
 * the remaining amount: STEP_DOWN starts at its hop, and BLOCK permits no call.
 */
function unavailableRefusal(error: unknown): Refusal['admission'] {
  const reason = error instanceof AgentLLMError ? error.message : String(error);
  return (limiting, { resolution, hop }) => {
    const chain = chainOf(resolution);
    const names = limiting.filter(({ budget }) => hop.index < startOf(budget, chain)).map(({ budget }) => budget.name);
    return names.length > 0 ? exhausted(names, `no amount can be reserved: ${reason}`) : ADMITTED;
  };
}

const blocking = (limiting: readonly CoveringBudget[]): string[] =>
  limiting.filter(({ budget }) => budget.action === 'BUDGET_ACTION_BLOCK').map(({ budget }) => budget.name);

const chainOf = ({ hops, skipped }: Resolution) => [...hops, ...skipped].sort((a, b) => a.index - b.index);
