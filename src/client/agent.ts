import type { Agent } from '../../gen/ts/agentllm/v1/agent.js';
import type { AgentLLMConfig } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { Change } from './change.js';
import type { ListenOptions } from './events.js';
import { type Frozen, freeze } from './freeze.js';
import { type Resolution, type ResolveOptions, resolveFrom } from './resolution.js';
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

/** Resolves one agent from whatever its holder holds. */
export class AgentHandle implements ResidentAgent {
  private view: View | undefined;
  private resolution: Resolution | undefined;

  constructor(
    readonly name: string,
    /** What to resolve from; throws when there is nothing. */
    private readonly holder: { readonly view: View },
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

  get held(): HeldConfigs | undefined {
    const { agent, configs } = this.holder.view.agent(this.name)?.message ?? {};
    return agent && freeze({ agent, configs: configs ?? [] });
  }
}
