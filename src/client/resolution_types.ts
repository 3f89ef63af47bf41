import type { SubstitutionPolicy } from '../../gen/ts/agentllm/v1/agent.js';
import type { ParameterValues } from '../domain/parameters.js';
import type { resolve } from '../domain/resolve.js';

type Resolved = ReturnType<typeof resolve>;

/** One model of the chain, with everything that a call needs except the API key. */
export type ResolutionHop = Resolved['hops'][number];

/** A model of the chain that is skipped, with the reason. */
export type ResolutionSkip = Resolved['skipped'][number];

/**
 * The effective hops and parameters of an agent: the response of ResolveConfig, computed in this process by the same
 * function. It is deeply frozen and shared: each `resolve()` returns the same object until the configuration or the
 * state of a budget changes. With an experiment, each variant has one object; `experiment` names the variant, but not
 * the subject.
 */
export interface Resolution extends Resolved {
  /** The agent that was resolved. */
  readonly agent: {
    /** The id of the agent in its store. */
    readonly id: number;
    readonly name: string;
    /** `analyst`, `trader`, … */
    readonly agent_type: string;
    readonly role: string;
    /** Which hops may replace the first one. `hops` contains only those that the policy permits. */
    readonly substitution_policy: SubstitutionPolicy;
  };
  /**
   * The store revision of the last change of the agent, its configurations or the catalogue. `state.revision` is the
   * revision of the whole held state.
   */
  readonly revision: bigint;
}

/** Assumptions for one resolution. */
export interface ResolveOptions {
  /**
   * Providers to treat as down, by name or alias, at most 100: their hops are skipped. A name that is not in the
   * catalogue fails with INVALID_ARGUMENT. Default: none.
   */
  readonly providerDown?: readonly string[] | undefined;
  /**
   * The names of budgets that are treated as exhausted, at most 100; a budget for runs covers every agent. An unknown
   * name fails with INVALID_ARGUMENT. Budgets that are exhausted now always apply. Default: none.
   */
  readonly budgetExhausted?: readonly string[] | undefined;
  /**
   * Parameters of one call, which replace the configured ones in every hop. They are adapted to each model like
   * configured values: a parameter that the model rejects is left out, and a finding states the reason. A value that is
   * not a finite number, text or list of texts fails with INVALID_ARGUMENT. Default: none.
   */
  readonly overrides?: ParameterValues | undefined;
  /**
   * The subject that a running experiment of the agent assigns to a variant, for example the id of a run or a user, 1
   * to 255 characters. The assignment is computed in this process. A subject keeps its variant until the weights
   * change. Default: none; the agent then has the settings of the control.
   */
  readonly subject?: string | undefined;
}
