import type { Role } from '../../gen/ts/agentllm/v1/access_service.js';
import type { SubstitutionPolicy } from '../../gen/ts/agentllm/v1/agent.js';
import type { Dialect, ParameterRule as RuleMessage } from '../../gen/ts/agentllm/v1/provider.js';

/*
 * The entities as the store, the snapshot and the log hold them. A field bears
 * the name of its column, of its proto field and of its path in an error: one
 * name for one thing. Rows are never changed, only replaced.
 */

/** What every entity has. */
interface Row {
  readonly id: number;
  readonly created_at: Date;
  readonly updated_at: Date;
  /** Store revision of the last change. */
  readonly revision: number;
}

/** A row of `agent_configs`. */
export interface Agent extends Row {
  readonly name: string;
  readonly agent_type: string;
  readonly role: string;
  readonly llm_provider: string;
  readonly llm_model: string;
  readonly llm_type: string;
  readonly temperature: number;
  readonly max_tokens: number | null;
  readonly prompt_template: string | null;
  readonly capabilities_json: string | null;
  readonly required_tools_json: string | null;
  readonly requires_memory: boolean;
  readonly memory_name: string | null;
  readonly is_reserved: boolean;
  readonly slot_name: string | null;
  readonly config_json: string | null;
  readonly is_active: boolean;
  readonly version: string;
  readonly description: string | null;
  readonly metadata_json: string | null;
  readonly substitution_policy: SubstitutionPolicy;
  /** Revision of the last change to order or membership of the agent's configs. */
  readonly chain_revision: number;
}

/** Parameters beyond the document's columns. */
export interface ExtraParams {
  readonly reasoning_effort?: string;
  readonly thinking_budget_tokens?: number;
  readonly stop_sequences?: readonly string[];
  readonly seed?: number;
  readonly request_timeout_ms?: number;
}

/** A row of `agent_llm_configs`, without its ciphertext: that never leaves the store (`key_id` tells that there is one). */
export interface Config extends Row {
  readonly agent_id: number;
  readonly provider: string;
  readonly model_name: string;
  /** null: not sent. */
  readonly temperature: number | null;
  readonly max_tokens: number | null;
  readonly top_p: number | null;
  readonly fallback_provider: string | null;
  readonly fallback_model: string | null;
  readonly cost_per_1k_input_tokens: number;
  readonly cost_per_1k_output_tokens: number;
  /** Whether the two costs are a price that somebody gave: 0 is one. */
  readonly price_given: boolean;
  readonly enabled: boolean;
  readonly metadata_json: string | null;
  readonly priority: number;
  readonly extra_params: ExtraParams | null;
  /** Which encryption key the config's own API key is under; null: it has none. */
  readonly key_id: string | null;
  /** Revision at which that key was stored. */
  readonly key_revision: number | null;
  readonly credential_id: number | null;
}

/** A row of `llm_credentials`, without its ciphertext. */
export interface Credential extends Row {
  readonly name: string;
  readonly provider: string;
  readonly description: string | null;
  readonly key_id: string | null;
  readonly key_revision: number | null;
}

/** How a model, or all models of a provider, treat one parameter. */
export type ParameterRule = Pick<RuleMessage, 'parameter' | 'support'> & Partial<RuleMessage>;

/** Who wrote a catalogue row last: the seeds may refresh only their own. */
export type Origin = 'seed' | 'operator';

/** A row of `llm_providers`. */
export interface Provider extends Row {
  readonly name: string;
  readonly display_name: string | null;
  readonly aliases: readonly string[];
  readonly dialect: Dialect;
  readonly base_url: string;
  readonly api_key_env_vars: readonly string[];
  readonly built_in: boolean;
  readonly enabled: boolean;
  readonly allow_unknown_models: boolean;
  readonly parameter_rules: readonly ParameterRule[];
  readonly origin: Origin;
}

/** A row of `llm_models`. What is not known is null. */
export interface Model extends Row {
  readonly provider: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly context_window_tokens: number | null;
  readonly max_output_tokens: number | null;
  readonly supports_functions: boolean | null;
  readonly supports_vision: boolean | null;
  readonly supports_reasoning: boolean | null;
  readonly parameter_rules: readonly ParameterRule[];
  readonly as_of: Date | null;
  readonly retires_at: Date | null;
  readonly replaced_by: string | null;
  readonly built_in: boolean;
  readonly origin: Origin;
}

/** The rates of a price in whole micro-USD per million tokens; null is unknown. */
export interface Rates {
  readonly input_micro_usd_per_million: number | null;
  readonly cached_input_micro_usd_per_million: number | null;
  readonly cache_write_micro_usd_per_million: number | null;
  readonly output_micro_usd_per_million: number | null;
  readonly reasoning_micro_usd_per_million: number | null;
}

/** A row of `llm_prices`: valid from its time until the model's next one, never changed. */
export interface Price extends Rates {
  readonly id: number;
  readonly model_id: number;
  readonly valid_from: Date;
  readonly source: string;
  readonly created_at: Date;
  readonly revision: number;
}

/** A row of `api_tokens`, without when it was used. */
export interface Token extends Row {
  /** Its name in the contract, `al_k3x9q2m7wd`. */
  readonly token_id: string;
  readonly name: string;
  readonly role: Role;
  /** Of the role of agents: the names of those that it is for; null: all. */
  readonly agents: readonly string[] | null;
  /** SHA-256 of its text, hexadecimal; null for a certificate. */
  readonly token_hash: string | null;
  readonly certificate_identity: string | null;
  readonly expires_at: Date | null;
  readonly revoked_at: Date | null;
}

/** The entities that take part in revisions, by the names that the log uses. */
export interface Entities {
  agent: Agent;
  credential: Credential;
  config: Config;
  provider: Provider;
  model: Model;
  price: Price;
  token: Token;
}
export type Entity = keyof Entities;

/** Who made a revision, and why. */
export interface Cause {
  readonly actor: string;
  readonly method: string;
  readonly reason: string;
  readonly created_at: Date;
}

/** One entity before and after; creation has no before, deletion no after. */
export type Change = {
  [E in Entity]: {
    readonly entity: E;
    readonly id: number;
    readonly before: Entities[E] | undefined;
    readonly after: Entities[E] | undefined;
  };
}[Entity];
