import type * as access from '../../gen/ts/agentllm/v1/access_service.js';
import type * as configs from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type * as watch from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type * as agents from '../../gen/ts/agentllm/v1/agent_service.js';
import type * as audit from '../../gen/ts/agentllm/v1/audit_service.js';
import type * as sharedKeys from '../../gen/ts/agentllm/v1/credential_service.js';
import type * as providers from '../../gen/ts/agentllm/v1/provider_service.js';
import type { WatchedResidentAgent } from './agent.js';
import type { Change } from './change.js';
import type { ListenOptions } from './events.js';
import type { Methods } from './methods.js';
import type { ClientEvents } from './resident.js';
import type { Pin, Run } from './run.js';
import type { ClientState } from './state.js';
import type { ClientWarning } from './warning.js';

/**
 * A connection to the service: the methods of each of its services. Safe to share; one is enough for a process, and an
 * idle one keeps no process alive.
 */
export interface AgentLLM extends AsyncDisposable {
  /** The registry of agents. */
  readonly agents: Methods<typeof agents.AgentServiceService>;
  /** The configurations of the agents. */
  readonly configs: Methods<typeof configs.AgentLLMConfigServiceService>;
  /** Providers and models as data, and their prices. */
  readonly providers: Methods<typeof providers.ProviderServiceService>;
  /** API keys under a name, which many configurations share. */
  readonly credentials: Methods<typeof sharedKeys.CredentialServiceService>;
  /** The agent processes that watch, and what they have applied. */
  readonly watchers: Pick<
    Methods<typeof watch.AgentLLMConfigWatchServiceService>,
    'listWatchers' | 'acknowledgeRevision'
  >;
  /** Who may do what: tokens, and whom the service takes this side for. */
  readonly access: Methods<typeof access.AccessServiceService>;
  /** What happened, who did it and when. */
  readonly audit: Methods<typeof audit.AuditServiceService>;
  /**
   * Resolves once the service says that it serves; rejects with the last failure when it does not within the time.
   * Default: `deadlineMs`. Calls need not wait for it.
   */
  ready(deadlineMs?: number): Promise<void>;
  /**
   * Ends the connection: calls that run are finished first, later ones fail with code CANCELLED. `await using` and
   * `Symbol.asyncDispose` wait until it has ended.
   */
  close(): void;
}

/**
 * A connection that also holds the configuration of agents in memory. It keeps no process alive by itself, however long
 * its stream stands: who waits for it does, with `ready()` or in a loop over `changes()`, and so do its calls.
 */
export interface ResidentAgentLLM extends AgentLLM {
  /** Names this process to the service, as in the list of watchers: a UUID, made anew by each `connect`. */
  readonly clientId: string;
  /** How far what is held can be trusted, now. */
  readonly state: ClientState;
  /** The last 20 warnings, the oldest first. */
  readonly warnings: readonly ClientWarning[];
  /**
   * One agent out of what is held; the same object for the same name. Throws AgentLLMError, code INVALID_ARGUMENT, for
   * one that is not among `agents`. Whether the store has it shows when it is resolved.
   */
  agent(name: string): WatchedResidentAgent;
  /** Begins a piece of work that keeps one revision. Default: `{ pin: 'run' }`. */
  run(options?: { readonly pin?: Pin | undefined }): Run;
  /**
   * Calls back on `state` (the status has changed), `change` (something that is held is different; by then it can be
   * resolved) and `warning`. What it returns ends it, and so does the signal. A listener that fails becomes a warning.
   */
  on<E extends keyof ClientEvents>(
    event: E,
    listener: (value: ClientEvents[E]) => unknown,
    options?: ListenOptions,
  ): () => void;
  /**
   * The changes from now on, to iterate over, until the client is closed, the signal aborts or the loop is left. A reader
   * who is more than 64 changes behind gets the later ones put together in one, so that being slow costs no memory;
   * `merged` tells how many they are.
   */
  changes(options?: ListenOptions): AsyncIterableIterator<Change>;
  /**
   * Resolves as soon as there is something to resolve from: from the service, or from the file while it is away.
   * Rejects with UNAVAILABLE when there is nothing within the time, and at once with what the service says when it
   * refuses the token or the request. Default: `deadlineMs`.
   */
  ready(deadlineMs?: number, options?: ListenOptions): Promise<void>;
  /**
   * Ends the connection and the stream: calls that run are finished first, the last acknowledgement is sent and the file
   * is written. What was held can still be resolved. `await using` and `Symbol.asyncDispose` wait until it has ended.
   */
  close(): void;
}
