import { createHash } from 'node:crypto';
import type { Agent as AgentMessage } from '../../../gen/ts/agentllm/v1/agent.js';
import type { AgentLLMConfig } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { RetiringModelUse } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { Budget as BudgetMessage } from '../../../gen/ts/agentllm/v1/budget.js';
import { CheckStatus, type ConfigHealth, HopCheck } from '../../../gen/ts/agentllm/v1/check.js';
import type { Credential as CredentialMessage } from '../../../gen/ts/agentllm/v1/credential.js';
import type {
  Model as ModelMessage,
  ModelPrice,
  PriceRates,
  Provider as ProviderMessage,
} from '../../../gen/ts/agentllm/v1/provider.js';
import { ParameterRule as RuleMessage } from '../../../gen/ts/agentllm/v1/provider.js';
import { canonicalBaseUrl } from '../../domain/base_url.js';
import { isActive } from '../../domain/experiments/experiment_index.js';
import { currentPrice } from '../../domain/price_book.js';
import type { RetiringUse } from '../../domain/retiring.js';
import type {
  Agent,
  Budget,
  Config,
  Credential,
  ExtraParams,
  Model,
  OtherRates,
  ParameterRule,
  Price,
  PriceTier,
  Provider,
} from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import type { Health } from '../../store/config_health.js';

/*
 * Converts rows to messages. The fields have the same names, so this file has only the differences: a null becomes an
 * absent field, and revisions have 64 bits.
 */

type Present<T> = { [K in keyof T]: null extends T[K] ? Exclude<T[K], null> | undefined : T[K] };

function present<T extends object>(row: T): Present<T> {
  const message: Record<string, unknown> = {};
  for (const [field, value] of Object.entries(row)) if (value !== null) message[field] = value;
  return message as Present<T>;
}

/**
 * The etag of a row: its store, its revision and its update time. A store that is restored from a backup assigns the
 * same revisions again, and the restore may not be detected; the time distinguishes the two rows.
 */
export const etagOf = (state: State, row: { revision: number; updated_at: Date }): string =>
  `${state.identity.slice(0, 8)}-${row.revision}-${row.updated_at.getTime().toString(36)}`;

/** The etag of an agent's chain: the revision of its last reordering and a hash of its configs. */
export function chainEtagOf(state: State, revision: number, configs: readonly Config[]): string {
  const parts = configs.map((config) => `${config.id}:${config.priority}:${config.enabled}`).join();
  const hash = createHash('sha256').update(parts).digest('base64url').slice(0, 8);
  return `${state.identity.slice(0, 8)}-${revision}-${hash}`;
}

const versions = (state: State, row: { revision: number; updated_at: Date }) => ({
  revision: BigInt(row.revision),
  etag: etagOf(state, row),
});

export function agentMessage(state: State, agent: Agent): AgentMessage {
  const { chain_revision, ...row } = present(agent);
  return {
    ...row,
    ...versions(state, agent),
    chain_etag: chainEtagOf(state, chain_revision, state.configsOf(agent.id)),
  };
}

export function configMessage(state: State, config: Config, agentName = nameOf(state, config)): AgentLLMConfig {
  const { key_id, key_revision: _, credential_id, ...row } = present(config);
  return {
    ...row,
    ...versions(state, config),
    agent_name: agentName,
    extra_params: config.extra_params ? extraParamsMessage(config.extra_params) : undefined,
    has_api_key_override: key_id !== undefined,
    api_key_state: state.encryption.stateOf('config', config),
    credential_name: credential_id === undefined ? undefined : state.credentials.get(credential_id)?.name,
  };
}

export function credentialMessage(state: State, credential: Credential): CredentialMessage {
  const { id, key_id: _, key_revision: __, ...row } = present(credential);
  return {
    ...row,
    ...versions(state, credential),
    api_key_state: state.encryption.stateOf('credential', credential),
    config_count: state.usesOf(id),
  };
}

export const budgetMessage = (state: State, budget: Budget): BudgetMessage => ({
  ...present(budget),
  ...versions(state, budget),
  agent_name: budget.agent_id === null ? '' : (state.agents.get(budget.agent_id)?.name ?? ''),
});

/** The health of a config, with its current agent and revision. */
export function healthMessage(state: State, config: Config, health: Omit<Health, 'config_id'>): ConfigHealth {
  const { config_revision, hops, checked_at } = health;
  return {
    config_id: config.id,
    agent_id: config.agent_id,
    agent_name: nameOf(state, config),
    status: hops[0]?.status ?? CheckStatus.UNSPECIFIED,
    hops: hops.map((hop) => HopCheck.fromPartial(hop)),
    checked_at,
    config_revision: BigInt(config_revision),
    // Another replica may have checked a revision that this replica has not reached yet.
    outdated: config.revision > config_revision,
  };
}

export const retiringUseMessage = ({ agent, hop, chosen, model, state }: RetiringUse): RetiringModelUse => ({
  agent_id: agent.id,
  agent_name: agent.name,
  config_id: hop.config?.id,
  enabled: chosen ? isActive(chosen.experiment) : (hop.config?.enabled ?? agent.is_active),
  source: hop.source,
  provider: model.provider,
  model_name: model.name,
  state,
  retires_at: model.retires_at ?? undefined,
  replaced_by: model.replaced_by ?? '',
  experiment: chosen?.experiment.name ?? '',
  variant: chosen?.variant.name ?? '',
});

const nameOf = (state: State, config: Config) => state.agents.get(config.agent_id)?.name ?? '';

export const extraParamsMessage = ({ seed, stop_sequences = [], ...others }: ExtraParams) => ({
  ...others,
  stop_sequences: [...stop_sequences],
  seed: seed === undefined ? undefined : BigInt(seed),
});

const ruleMessage = (rule: ParameterRule) =>
  RuleMessage.fromPartial({
    ...rule,
    allowed_values: [...(rule.allowed_values ?? [])],
    not_with: [...(rule.not_with ?? [])],
    accepted_with_reasoning_effort: [...(rule.accepted_with_reasoning_effort ?? [])],
  });

export function providerMessage(state: State, provider: Provider): ProviderMessage {
  const { id: _id, origin: _origin, ...row } = present(provider);
  return {
    ...row,
    ...versions(state, provider),
    display_name: provider.display_name ?? provider.name,
    // A URL without a canonical form is returned as it is stored; the operator has to set it again.
    base_url: canonicalBaseUrl(provider.base_url) ?? provider.base_url,
    aliases: [...provider.aliases],
    api_key_env_vars: [...provider.api_key_env_vars],
    parameter_rules: provider.parameter_rules.map(ruleMessage),
  };
}

export function modelMessage(
  state: State,
  model: Model,
  price = currentPrice(state.pricesOf(model.id), new Date()),
): ModelMessage {
  const { id: _id, origin: _origin, ...row } = present(model);
  return {
    ...row,
    ...versions(state, model),
    parameter_rules: model.parameter_rules.map(ruleMessage),
    price: price && priceMessage(price),
  };
}

/** A price from the price book or from a config. */
export function priceMessage(
  price: Omit<Price, 'id' | 'model_id' | 'valid_from' | 'created_at'> & { valid_from: Date | undefined },
): ModelPrice {
  const rate = (value: number | null) => (value === null ? undefined : BigInt(value));
  return {
    input_micro_usd_per_million: rate(price.input_micro_usd_per_million),
    cached_input_micro_usd_per_million: rate(price.cached_input_micro_usd_per_million),
    cache_write_micro_usd_per_million: rate(price.cache_write_micro_usd_per_million),
    output_micro_usd_per_million: rate(price.output_micro_usd_per_million),
    reasoning_micro_usd_per_million: rate(price.reasoning_micro_usd_per_million),
    source: price.source,
    valid_from: price.valid_from,
    revision: BigInt(price.revision),
    cache_write_long_micro_usd_per_million: rate(price.cache_write_long_micro_usd_per_million),
    tiers: price.tiers.map(tierMessage),
    windows: price.windows.map((window) => ({
      ...window,
      rates: otherRates(window.rates),
      tiers: window.tiers.map(tierMessage),
      weekdays: [...(window.weekdays ?? [])],
    })),
  };
}

const tierMessage = ({ above_input_tokens, rates }: PriceTier) => ({ above_input_tokens, rates: otherRates(rates) });

const otherRates = (rates: OtherRates): PriceRates =>
  Object.fromEntries(Object.entries(rates).map(([rate, value]) => [rate, BigInt(value)]));
