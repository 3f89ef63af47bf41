import type { ReserveRequest, ReserveResponse } from '../../../gen/ts/agentllm/v1/budget_service.js';
import { counterKey } from '../../domain/budget_counter.js';
import { isPriced, startOf } from '../../domain/budget_effect.js';
import { budgetPeriod, hourOf } from '../../domain/budget_period.js';
import { highestCost } from '../../domain/cost_bound.js';
import type { ChosenVariant } from '../../domain/experiments/active_experiment.js';
import { type ResolvedHop, resolve } from '../../domain/resolve.js';
import type { Agent, Budget } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { textProblem } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { expireReservations, readReservation, type StoredReservation } from '../../store/budgets/reservations.js';
import type { ReserveOutcome } from '../../store/budgets/reserve.js';
import { onDatabase } from '../../store/failure.js';
import type { Call } from '../dispatch/method.js';
import { budgetStateMessage, reservationMessage } from '../messages/budgets.js';
import { activeExperimentOf } from './active_experiments.js';
import type { Backend } from './backend.js';
import { currentStatuses } from './budget_statuses.js';
import { requireCallable } from './callable_agent.js';
import { agentOf } from './requests.js';
import { checkReservation, ended, firstEnd, lifetimeMs, lifetimeProblem } from './reservation_requests.js';

type ReserveCall = Call<ReserveRequest, ReserveResponse>;

/** The attempts of a reservation if the request does not state a number. */
const DEFAULT_ATTEMPTS = 20;

/** Reserves an amount in all budgets that cover an agent. */
export async function reserve(backend: Backend, call: ReserveCall): Promise<ReserveResponse> {
  checkRequest(call.request);
  const { state } = backend.store;
  const agent = agentOf(state, call.request.agent);
  const variants = variantsOf(state, agent);
  requireCallable(agent, state.configsOf(agent.id), ...variants);
  return new Reserving(backend, call, agent, variants).run();
}

/**
 * The variants that the calls can use; the variant of calls without a subject comes first. A reservation covers all of
 * them.
 */
const variantsOf = (state: State, agent: Agent): readonly (ChosenVariant | undefined)[] =>
  activeExperimentOf(state, agent.id)?.choices.filter(({ variant, counted }) => !(counted && variant.control)) ?? [
    undefined,
  ];

/** A chain that the calls can use. */
interface ReservedChain {
  readonly hops: readonly ResolvedHop[];
  /** All hops, including skipped hops. */
  readonly all: readonly Pick<ResolvedHop, 'index' | 'provider' | 'model_name'>[];
}

function checkRequest(request: ReserveRequest): void {
  const problems = new Problems();
  checkReservation(problems, request);
  problems.add('run_id', textProblem(request.run_id, limits.runId));
  problems.add('input_tokens', rangeProblem(request.input_tokens, limits.attemptTokens));
  if (request.output_tokens !== undefined)
    problems.add('output_tokens', rangeProblem(request.output_tokens, limits.reservedOutputTokens));
  if (request.attempts !== undefined) problems.add('attempts', rangeProblem(request.attempts, limits.reservedAttempts));
  problems.add('lifetime', lifetimeProblem(request.lifetime));
  problems.throwIfAny();
}

const rangeProblem = (value: number, { min, max }: { readonly min: number; readonly max: number }) =>
  value >= min && value <= max ? undefined : `must be ${min} to ${max}, not ${value}`;

/** Handles one request: tries to reserve, and steps down while a budget with STEP_DOWN has not enough left. */
class Reserving {
  private readonly state: State;
  private readonly budgets: readonly Budget[];
  /** The chain of calls without a subject comes first. */
  private readonly chains: readonly ReservedChain[];
  private readonly now = new Date();
  /** The budgets that have not enough left. */
  private readonly exhausted = new Map<number, Budget>();

  constructor(
    private readonly backend: Backend,
    private readonly call: ReserveCall,
    private readonly agent: Agent,
    variants: readonly (ChosenVariant | undefined)[],
  ) {
    this.state = backend.store.state;
    const { run_id } = call.request;
    this.budgets = this.state.budgets.covering(agent, run_id !== '').filter(({ enabled }) => enabled);
    const configs = this.state.configsOf(agent.id);
    this.chains = variants.map((chosen) => {
      const { hops, skipped } = resolve(this.state, agent, configs, this.now, { chosen });
      return { hops, all: [...hops, ...skipped].sort((a, b) => a.index - b.index) };
    });
  }

  async run(): Promise<ReserveResponse> {
    // A WARN budget does not limit calls, so no amount is held in it.
    let limiting = this.budgets.filter(({ action }) => action !== 'BUDGET_ACTION_WARN');
    for (let areExpiredReleased = false; ; ) {
      const hops = this.usableHops(limiting);
      if (hops.length === 0) return this.refuse(limiting);
      const outcome = await this.reserveIn(limiting, hops);
      if (outcome.exists) return this.respond(await this.existingReservation());
      if (outcome.tooMany) throw this.tooMany();
      if (outcome.granted) return this.respond(outcome.granted);
      if (!areExpiredReleased) {
        // Expired reservations that are not yet released still hold amounts.
        areExpiredReleased = true;
        if ((await onDatabase(this.backend.store, (db) => expireReservations(db))) > 0) continue;
      }
      const insufficient = limiting.filter(({ id }) => outcome.insufficient.includes(id));
      for (const budget of insufficient) this.exhausted.set(budget.id, budget);
      if (insufficient.length === 0 || insufficient.some(({ action }) => action === 'BUDGET_ACTION_BLOCK'))
        return this.respond(undefined, 'RESERVE_RESULT_BLOCKED');
      limiting = limiting.filter((budget) => !insufficient.includes(budget));
    }
  }

  /** The hops that the calls may use. Hops without a price are excluded if a BLOCK budget covers the agent. */
  private usableHops(limiting: readonly Budget[]): readonly ResolvedHop[] {
    const needsPrice = limiting.some(({ action }) => action === 'BUDGET_ACTION_BLOCK');
    return this.startedHops.filter(({ price }) => !needsPrice || isPriced(price));
  }

  /** The hops of all chains that the exhausted budgets do not skip. */
  private get startedHops(): readonly ResolvedHop[] {
    return this.chains.flatMap((chain) => chain.hops.filter(({ index }) => index >= this.startIn(chain)));
  }

  /** The index of the first hop of a chain that is not skipped because of a budget. */
  private startIn({ all }: ReservedChain): number {
    return Math.max(0, ...[...this.exhausted.values()].map((budget) => startOf(budget, all)));
  }

  private refuse(limiting: readonly Budget[]): Promise<ReserveResponse> {
    const isUnpriced = limiting.length > 0 && this.startedHops.length > 0;
    return this.respond(undefined, isUnpriced ? 'RESERVE_RESULT_NO_PRICE' : 'RESERVE_RESULT_BLOCKED');
  }

  private reserveIn(limiting: readonly Budget[], hops: readonly ResolvedHop[]): Promise<ReserveOutcome> {
    const { request, caller, signal } = this.call;
    return this.backend.reservationWriter.reserve(
      {
        reservation_id: request.reservation_id.toLowerCase(),
        agent_id: this.agent.id,
        run_id: request.run_id,
        actor: caller,
        required: limiting.map((budget) => ({
          budget,
          key: counterKey(budget, request.run_id, this.now),
          end: budget.rolling_hours === null ? budgetPeriod(budget, this.now).end : undefined,
        })),
        cost: limiting.length === 0 ? 0n : this.highestCost(hops),
        attempts: request.attempts ?? DEFAULT_ATTEMPTS,
        lifetimeMs: lifetimeMs(request.lifetime),
        until: firstEnd(limiting, this.now),
        hour: hourOf(this.now),
      },
      signal,
    );
  }

  /** The highest cost of one attempt at any of the hops. Hops without a price are ignored. */
  private highestCost(hops: readonly ResolvedHop[]): bigint {
    const { input_tokens: input, output_tokens } = this.call.request;
    const costs = hops.map((hop) => {
      const output = output_tokens ?? outputOf(hop);
      return (hop.price && highestCost(hop.price.price, { input, output })) ?? 0n;
    });
    return costs.reduce((highest, cost) => (cost > highest ? cost : highest), 0n);
  }

  private async existingReservation(): Promise<StoredReservation> {
    const id = this.call.request.reservation_id.toLowerCase();
    const found = await onDatabase(this.backend.store, (db) => readReservation(db, id, this.agent.id));
    // The id of a reservation of another agent is not disclosed.
    if (found?.state !== 'open') throw ended(id);
    return found;
  }

  private tooMany(): ServiceError {
    const reservations = String(limits.reservationsPerAgent);
    return ServiceError.of('TOO_MANY_RESERVATIONS', { agent: this.agent.name, reservations });
  }

  private async respond(
    reservation: StoredReservation | undefined,
    refused: ReserveResponse['result'] = 'RESERVE_RESULT_GRANTED',
  ): Promise<ReserveResponse> {
    this.call.recheckAccess();
    const statuses = await currentStatuses(this.backend, this.budgets, this.call.request.run_id);
    const starts = this.chains.map((chain) => this.startIn(chain));
    const isStepDown = reservation !== undefined && starts.some((start) => start > 0);
    return {
      result: isStepDown ? 'RESERVE_RESULT_STEP_DOWN' : refused,
      revision: BigInt(this.state.revision),
      reservation: reservation && reservationMessage(this.state, reservation),
      states: [...statuses.values()].map(budgetStateMessage),
      exhausted: [...this.exhausted.values()].map(({ name }) => name).sort(),
      // A chain without the hop has no start.
      step_down_hop: isStepDown ? starts.find(Number.isFinite) : undefined,
      retry_after_ms: this.retryAfterMs(),
    };
  }

  private retryAfterMs(): bigint | undefined {
    const end = firstEnd([...this.exhausted.values()], this.now);
    return end && BigInt(Math.max(0, end.getTime() - this.now.getTime()));
  }
}

/** An upper bound of the output of one attempt at a hop. */
function outputOf({ parameters, model }: ResolvedHop): number {
  const set = parameters.find(({ name }) => name === 'max_tokens')?.value;
  if (typeof set === 'number') return Math.min(set, limits.reservedOutputTokens.max);
  return model.max_output_tokens ?? limits.defaultReservedOutputTokens;
}
