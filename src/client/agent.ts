import type { Agent } from '../../gen/ts/agentllm/v1/agent.js';
import type { AgentLLMConfig } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import { type KeyedHop, keyOfHop } from './api_key.js';
import type { Change } from './change.js';
import type { ListenOptions } from './events.js';
import { type Frozen, freeze } from './freeze.js';
import type { LeaseManager } from './lease_manager.js';
import { resolveFrom } from './resolution.js';
import type { Resolution, ResolveOptions } from './resolution_types.js';
import type { View } from './view.js';

/** An agent that a resident client holds. */
export interface ResidentAgent {
  readonly name: string;
  /**
   * What is in effect for the agent, out of what this process holds: no network, no promise, well over a million times
   * a second. The same frozen object until something changes.
   *
   * Throws AgentLLMError as ResolveConfig does: NOT_FOUND, reason AGENT_NOT_FOUND, when the store has no such agent;
   * FAILED_PRECONDITION, reason AGENT_INACTIVE; INVALID_ARGUMENT, reason INVALID_FIELDS, for an unknown provider in
   * `providerDown`; and UNAVAILABLE without a reason while nothing is held yet, which `ready()` waits for.
   */
  resolve(options?: ResolveOptions): Resolution;
  /**
   * The API key to use for a hop of `resolve()`, its first one by default: the one that is stored for its configuration
   * or credential, else the first environment variable of the provider that is set in this process and may be sent;
   * undefined when none is set. Ask for it before each call and do not keep it: it is read from memory as long as it has
   * not changed. Send it to the hop's `base_url` and nowhere else.
   *
   * The variables of the built-in providers may be sent to those providers at their own addresses. The variables of
   * operator-defined providers may be sent only if PROVIDER_ALLOW_KEY_VARS in the environment of this process lists them.
   *
   * A stored key is leased from the service when it is asked for first, which needs a token, and again before its time
   * is over (`leaseMs`) while it is asked for. It is dropped the moment that it is replaced or taken away. While the
   * service is away, what is leased goes on until its time is over.
   *
   * Rejects with AgentLLMError, and never with another key in the place of a stored one: UNAUTHENTICATED, reason
   * TOKEN_REQUIRED; PERMISSION_DENIED; FAILED_PRECONDITION when the service cannot read the key, or has none for this hop
   * any more (resolve again), or the agent is inactive, or variables of the environment are set and none may be sent; UNAVAILABLE when none is held and none can be had; CANCELLED by
   * the signal, which ends the wait alone, or when the client was closed. Without a hop it fails as `resolve()` does,
   * too.
   */
  apiKey(hop?: KeyedHop, options?: ListenOptions): Promise<string | undefined>;
  /**
   * The agent and all its configurations, enabled or not, as the service sent them and frozen; undefined when the store
   * has no such agent. `chain_etag` is empty.
   */
  readonly held: HeldConfigs | undefined;
}

/** The stored things behind a resolution. */
export interface HeldConfigs {
  readonly agent: Frozen<Agent>;
  /** In the order of the chain. */
  readonly configs: readonly Frozen<AgentLLMConfig>[];
}

/** An agent as the client has it, with its changes. */
export interface WatchedResidentAgent extends ResidentAgent {
  /**
   * Calls back after each change that may alter what `resolve()` gives: of the agent, its configurations or the
   * catalogue. What it returns ends it, and so does the signal.
   */
  onChange(listener: (change: Change) => unknown, options?: ListenOptions): () => void;
  /** The same changes to iterate over; like those of the client. */
  changes(options?: ListenOptions): AsyncIterableIterator<Change>;
}

/** Who holds what agents are resolved from. */
export interface Holder {
  readonly view: View;
  readonly leases: LeaseManager;
}

/** Resolves one agent from whatever its holder holds. */
export class AgentHandle implements ResidentAgent {
  private view: View | undefined;
  private resolution: Resolution | undefined;

  constructor(
    readonly name: string,
    /** What to resolve from; throws when there is nothing. */
    private readonly holder: Holder,
  ) {}

  resolve(options?: ResolveOptions): Resolution {
    const { view } = this.holder;
    if (options !== undefined) return resolveFrom(view, this.name, options);
    if (view === this.view) return this.resolution as Resolution;
    // Of a view with this agent and its catalogue unchanged it is still the same one.
    this.resolution = resolveFrom(view, this.name);
    this.view = view;
    return this.resolution;
  }

  async apiKey(hop?: KeyedHop, { signal }: ListenOptions = {}): Promise<string | undefined> {
    const { view, leases } = this.holder;
    return keyOfHop(leases, view, this.name, hop ?? this.resolve().hops[0], signal);
  }

  get held(): HeldConfigs | undefined {
    const { agent, configs } = this.holder.view.agent(this.name)?.message ?? {};
    return agent && freeze({ agent, configs: configs ?? [] });
  }
}
