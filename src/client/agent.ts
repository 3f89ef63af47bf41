import type { Agent } from '../../gen/ts/agentllm/v1/agent.js';
import type { AgentLLMConfig } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import { subjectProblem } from '../domain/experiments/subject.js';
import { type KeyedHop, keyOfHop } from './api_key.js';
import type { Admission, AttemptRequest } from './budgets/admission.js';
import type { BudgetLeases } from './budgets/budget_leases.js';
import type { BudgetStates } from './budgets/budget_states.js';
import type { Change } from './change.js';
import type { CallOptions } from './connection.js';
import type { ListenOptions } from './events.js';
import { type Frozen, freeze } from './freeze.js';
import type { LeaseManager } from './lease_manager.js';
import type { OutcomeInput, OutcomeReporter, RecordedOutcome } from './outcomes.js';
import { resolveFrom } from './resolution.js';
import type { Resolution, ResolveOptions } from './resolution_types.js';
import type { HeldAgent, HeldResolutions, View } from './view.js';

/** An agent that a resident client holds. */
export interface ResidentAgent {
  readonly name: string;
  /**
   * Resolves the agent from the state that this process holds: synchronously, without the network, well over a million
   * times per second. Returns the same frozen object until the agent, the catalogue or the state of a budget changes.
   * With `subject`, a running experiment of the agent assigns the subject to a variant, without a request; each variant
   * has one object.
   *
   * Throws the AgentLLMError that ResolveConfig returns: NOT_FOUND with reason AGENT_NOT_FOUND when the store has no such
   * agent; FAILED_PRECONDITION with reason AGENT_INACTIVE or NO_ENABLED_CONFIG; INVALID_ARGUMENT with reason
   * INVALID_FIELDS for an unknown provider in `providerDown`, and for a `subject` that is empty or too long. Throws UNAVAILABLE without a reason while the client holds
   * no state; `ready()` waits for one.
   */
  resolve(options?: ResolveOptions): Resolution;
  /**
   * Returns the API key for a hop of `resolve()`; without `hop`, for its first hop. This is the key that is stored with
   * the configuration or its credential; if none is stored, the first environment variable of the provider that is set in
   * this process and may be sent; undefined if none is set. Call it before each request and do not keep the key: an
   * unchanged key is read from memory. Send the key to the `base_url` of the hop and nowhere else.
   *
   * The variables of the built-in providers may be sent to those providers at their built-in addresses. The variables of
   * operator-defined providers may be sent only if PROVIDER_ALLOW_KEY_VARS in the environment of this process lists them.
   *
   * A stored key is leased from the service on first use, which requires a token. While it is in use, the lease is
   * renewed before it expires (`leaseMs`). The lease is dropped as soon as the key is replaced or revoked. While the
   * service is unavailable, leased keys remain usable until their lease expires.
   *
   * Rejects with AgentLLMError; another key never replaces a stored one:
   * - UNAUTHENTICATED with reason TOKEN_REQUIRED, or PERMISSION_DENIED;
   * - FAILED_PRECONDITION when the service cannot decrypt the key or no longer has one for this hop (resolve again), when
   *   the agent is inactive, or when environment variables are set but none may be sent;
   * - UNAVAILABLE when no lease is held and none can be obtained;
   * - CANCELLED when the signal aborts, which ends only this wait, or when the client is closed.
   *
   * Without `hop` it also rejects with the errors of `resolve()`.
   */
  apiKey(hop?: KeyedHop, options?: ListenOptions): Promise<string | undefined>;
  /**
   * Reports an outcome of a subject or a run for the results of an experiment. Outcomes can be reported late, even
   * after the conclusion of the experiment. The service attributes an outcome to calls whose usage is recorded. The
   * client therefore sends its usage first, and repeats the report within `deadlineMs` while the service has no
   * recorded call. The promise resolves when the outcome is stored, and rejects with an AgentLLMError otherwise; the
   * client does not keep the outcome. After UNAVAILABLE or DEADLINE_EXCEEDED, report the outcome again with the same
   * `outcomeId`: it counts once.
   *
   * It rejects with a TypeError for a value that is neither a finite number nor a boolean.
   */
  recordOutcome(outcome: OutcomeInput, options?: CallOptions): Promise<RecordedOutcome>;
  /**
   * The agent and all its configurations, enabled or not, as the service sent them, frozen; undefined if the store has no
   * such agent. `chain_etag` is empty. Throws UNAVAILABLE while the client holds no state.
   */
  readonly held: HeldConfigs | undefined;
}

/** The stored agent and configurations from which an agent is resolved. */
export interface HeldConfigs {
  readonly agent: Frozen<Agent>;
  /** In the order of the chain. */
  readonly configs: readonly Frozen<AgentLLMConfig>[];
}

/** An agent of a resident client, with its changes. */
export interface WatchedResidentAgent extends ResidentAgent {
  /**
   * Adds a listener for each change that may alter the result of `resolve()`: of the agent, its configurations or the
   * catalogue. The returned function removes the listener, and so does the signal.
   */
  onChange(listener: (change: Change) => unknown, options?: ListenOptions): () => void;
  /** Iterates over the same changes, like `changes()` of the client. */
  changes(options?: ListenOptions): AsyncIterableIterator<Change>;
}

/** The owner of the state that agents are resolved from: a resident client or a run. */
export interface Holder {
  /** Throws while no state is held. */
  readonly view: View;
  readonly leases: LeaseManager;
  readonly budgets: BudgetLeases;
  readonly outcomes: OutcomeReporter;
  /** The id of the run; undefined outside a run. */
  readonly id?: string;
}

/** The cached resolutions of an agent's variants in one view. */
interface Assignable {
  readonly view: View;
  readonly experiment: HeldAgent['experiment'];
  readonly resolutions: HeldResolutions;
}

/** Resolves one agent from the state of its holder. */
export class AgentHandle implements ResidentAgent {
  private view: View | undefined;
  /** The version of the states of budgets that the resolution was made with. */
  private budgetVersion = 0;
  private resolution: Resolution | undefined;
  private assignable: Assignable | undefined;

  constructor(
    readonly name: string,
    private readonly holder: Holder,
  ) {}

  resolve(options?: ResolveOptions): Resolution {
    const { view, budgets } = this.holder;
    const { states } = budgets;
    if (options !== undefined) return this.knownFor(view, states, options) ?? this.resolveWith(view, states, options);
    if (view === this.view && states.version === this.budgetVersion) return this.resolution as Resolution;
    // If the agent and the catalogue are unchanged in the new view, this returns the same resolution.
    this.resolution = resolveFrom(view, this.name, states);
    this.view = view;
    this.budgetVersion = states.version;
    return this.resolution;
  }

  /**
   * The cached resolution of a variant. The method allocates no memory, because a program may resolve for each call.
   */
  private knownFor(view: View, states: BudgetStates, options: ResolveOptions): Resolution | undefined {
    const { subject, providerDown, budgetExhausted, overrides } = options;
    const cached = this.assignable;
    if (cached === undefined || cached.view !== view || cached.resolutions.budgetVersion !== states.version)
      return undefined;
    if (providerDown !== undefined || budgetExhausted !== undefined || overrides !== undefined) return undefined;
    if (typeof subject !== 'string' || subjectProblem(subject) !== undefined) return undefined;
    const position = cached.experiment === undefined ? 0 : cached.experiment.choose(subject).position;
    return cached.resolutions.byPosition[position];
  }

  private resolveWith(view: View, states: BudgetStates, options: ResolveOptions): Resolution {
    const resolution = resolveFrom(view, this.name, states, options);
    const held = view.agent(this.name) as HeldAgent;
    const { experiment } = held;
    this.assignable = { view, experiment, resolutions: held.resolved(view.catalogue, states.version) };
    return resolution;
  }

  async apiKey(hop?: KeyedHop, { signal }: ListenOptions = {}): Promise<string | undefined> {
    const { view, leases } = this.holder;
    return keyOfHop(leases, view, this.name, hop ?? this.resolve().hops[0], signal);
  }

  /** Whether the budgets permit an attempt. */
  admit(request: AttemptRequest): Admission | Promise<Admission> {
    return this.holder.budgets.admit(this.name, request);
  }

  recordOutcome(outcome: OutcomeInput, options?: CallOptions): Promise<RecordedOutcome> {
    const { outcomes, id = '' } = this.holder;
    return outcomes.record(this.name, id, outcome, options);
  }

  get held(): HeldConfigs | undefined {
    const { agent, configs } = this.holder.view.agent(this.name)?.message ?? {};
    return agent && freeze({ agent, configs: configs ?? [] });
  }
}
