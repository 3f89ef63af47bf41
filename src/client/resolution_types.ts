import type { SubstitutionPolicy } from '../../gen/ts/agentllm/v1/agent.js';
import type { resolve } from '../domain/resolve.js';

type Resolved = ReturnType<typeof resolve>;

/** One model to try, with everything that a call of it needs but the key. */
export type ResolutionHop = Resolved['hops'][number];

/** A model of the chain that is not tried, and why. */
export type ResolutionSkip = Resolved['skipped'][number];

/**
 * What is in effect for an agent: what ResolveConfig answers, worked out in this process by the same function. It is
 * frozen to its leaves and shared; as long as nothing changes, each `resolve()` gives the very same object.
 */
export interface Resolution extends Resolved {
  /** Whose it is. */
  readonly agent: {
    /** The agent's id in its store. */
    readonly id: number;
    readonly name: string;
    /** `analyst`, `trader`, … */
    readonly agent_type: string;
    readonly role: string;
    /** Which hops may stand in for the first one; the chain is cut already. */
    readonly substitution_policy: SubstitutionPolicy;
  };
  /**
   * The store revision from which on it has been so: of the last change of the agent, its configurations or the
   * catalogue. That of everything held is `state.revision`.
   */
  readonly revision: bigint;
}

/** What a resolution takes for given. */
export interface ResolveOptions {
  /**
   * Providers to take for down, by name or alias, at most 100: their hops are skipped. One that is not in the catalogue
   * is INVALID_ARGUMENT. Default: none.
   */
  readonly providerDown?: readonly string[] | undefined;
}
