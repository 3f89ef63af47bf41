import type * as access from '../../gen/ts/agentllm/v1/access_service.js';
import type * as configs from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type * as watch from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type * as agents from '../../gen/ts/agentllm/v1/agent_service.js';
import type * as audit from '../../gen/ts/agentllm/v1/audit_service.js';
import type * as budgets from '../../gen/ts/agentllm/v1/budget_service.js';
import type * as sharedKeys from '../../gen/ts/agentllm/v1/credential_service.js';
import type * as experiments from '../../gen/ts/agentllm/v1/experiment_service.js';
import type * as providers from '../../gen/ts/agentllm/v1/provider_service.js';
import type * as usage from '../../gen/ts/agentllm/v1/usage_service.js';
import type { WatchedResidentAgent } from './agent.js';
import type { Change } from './change.js';
import type { ClientEvents } from './client_events.js';
import type { ListenOptions } from './events.js';
import type { Methods } from './methods.js';
import type { Pin, Run } from './run.js';
import type { ClientState } from './state.js';
import type { UsageSpool } from './usage/usage_spool.js';
import type { ClientWarning } from './warning.js';

/**
 * A connection to the service, with the methods of each gRPC service. It can be shared by the whole process. An idle
 * connection does not keep the process alive.
 */
export interface AgentLLM extends AsyncDisposable {
  /** The agents of the store. */
  readonly agents: Methods<typeof agents.AgentServiceService>;
  /** The configurations of the agents. */
  readonly configs: Methods<typeof configs.AgentLLMConfigServiceService>;
  /** The catalogue: providers, models and their prices. */
  readonly providers: Methods<typeof providers.ProviderServiceService>;
  /** Named API keys that many configurations can use. */
  readonly credentials: Methods<typeof sharedKeys.CredentialServiceService>;
  /** The processes with an open watch, and the revision that each has applied. */
  readonly watchers: Pick<
    Methods<typeof watch.AgentLLMConfigWatchServiceService>,
    'listWatchers' | 'acknowledgeRevision'
  >;
  /** Budgets, their amounts, and reservations. */
  readonly budgets: Methods<typeof budgets.BudgetServiceService>;
  /** Experiments, their results, and outcomes. */
  readonly experiments: Methods<typeof experiments.ExperimentServiceService>;
  /** Access tokens, and the identity of this caller. */
  readonly access: Methods<typeof access.AccessServiceService>;
  /** The audit log: events with actor and time. */
  readonly audit: Methods<typeof audit.AuditServiceService>;
  /** The usage and the cost of the models that agents call. StreamUsage has no method here. */
  readonly usage: Omit<Methods<typeof usage.UsageServiceService>, 'streamUsage'>;
  /**
   * Resolves when the health check of the service reports that it serves. Calls need not wait for it.
   *
   * @param deadlineMs how long to wait, in ms. Default: `deadlineMs` of `connect`. Rejects with code UNAVAILABLE after
   * this time; `cause` is the last failure. Other failures, such as UNAUTHENTICATED, reject immediately.
   */
  ready(deadlineMs?: number): Promise<void>;
  /**
   * Closes the connection. Calls in progress finish first; later calls fail with code CANCELLED. `await using` and
   * `Symbol.asyncDispose` wait until the connection is closed.
   */
  close(): void;
}

/** Options of a run. */
export interface RunOptions {
  /** How long the run keeps its revision. Default: `run`. */
  readonly pin?: Pin | undefined;
  /** Identifies the run in receipts, at most 100 characters. Default: a generated UUID. */
  readonly id?: string | undefined;
}

/**
 * A connection that also holds the configuration of agents in memory. Its open watch does not keep the process alive;
 * pending calls, a pending `ready()` and a loop over `changes()` do.
 *
 * @typeParam Extension the further members of its agents; the entry points for AI SDKs add some.
 */
export interface ResidentAgentLLM<Extension = unknown> extends AgentLLM {
  /** Identifies this client in the list of watchers: a UUID that each `connect` generates. */
  readonly clientId: string;
  /** Whether the held state is current. */
  readonly state: ClientState;
  /** The attempts of model calls that the service has not yet acknowledged. */
  readonly spool: UsageSpool;
  /** The last 20 warnings, the oldest first. */
  readonly warnings: readonly ClientWarning[];
  /**
   * Returns the handle of an agent, the same object for the same name. Throws AgentLLMError with code INVALID_ARGUMENT if
   * the name is not in the option `agents`. Whether the store has the agent is checked when it is resolved.
   */
  agent(name: string): WatchedResidentAgent & Extension;
  /** Starts a unit of work that is pinned to one revision. Default: `{ pin: 'run' }`. */
  run(options?: RunOptions): Run<Extension>;
  /**
   * Adds a listener for `state` (the status has changed), `change` (the held state has changed; `resolve()` already uses
   * the new state), `warning`, or `receipt` (the call of a model has ended). The returned function removes the listener, and so does the signal. A listener that
   * throws or rejects causes a warning LISTENER_FAILED.
   */
  on<E extends keyof ClientEvents>(
    event: E,
    listener: (value: ClientEvents[E]) => unknown,
    options?: ListenOptions,
  ): () => void;
  /**
   * Iterates over the changes from now on, until the client is closed, the signal aborts or the loop ends. At most 64
   * changes are buffered for a slow reader; later ones are merged into the last, and `merged` is their number.
   */
  changes(options?: ListenOptions): AsyncIterableIterator<Change>;
  /**
   * Resolves as soon as the client holds a state to resolve from, received from the service or read from the cache file.
   *
   * @param deadlineMs how long to wait, in ms. Default: `deadlineMs` of `connect`. Rejects with code UNAVAILABLE after
   * this time, with CANCELLED when the signal aborts, and immediately with the error of the service when it rejects the
   * token or the request.
   */
  ready(deadlineMs?: number, options?: ListenOptions): Promise<void>;
  /**
   * Closes the connection and the watch. Calls in progress finish first. Then the client sends the last acknowledgement
   * and the unacknowledged usage, and writes the cache file. The held state can still be resolved. `await using` and
   * `Symbol.asyncDispose` wait until the client is closed.
   */
  close(): void;
}
