import type { Finding, Hop } from '../../gen/ts/agentllm/v1/finding.js';
import type { Violation } from '../errors.js';
import { type Adaptation, adapt, type SentParameter } from './adapt.js';
import { chainOf, type PlannedHop } from './chain.js';
import type { Agent, Config, Model, Provider } from './rows.js';
import { fieldOf, type ParameterValues, parametersOf } from './rules.js';
import type { State } from './state.js';
import { nearest } from './text.js';

/** A chain with what would be sent for each hop, and everything there is to say about it. */
export interface Lint {
  readonly hops: readonly Hop[];
  readonly findings: readonly Finding[];
}

type Said = Pick<Finding, 'severity' | 'reason' | 'message'> & Partial<Finding>;
const finding = (said: Said): Finding => ({ field: '', configured: '', effective: '', hop: undefined, ...said });

/** Lints the chain that an agent has with these configs. */
export function lintChain(state: State, agent: Agent, configs: readonly Config[], now: Date): Lint {
  const chain = chainOf(agent, configs);
  const linted = chain.hops.map((hop, index) => lintHop(state, agent, hop, index, now));
  const findings = [
    ...aboutAgent(agent, configs),
    ...linted.flatMap((hop) => hop.findings),
    ...chain.duplicates.map(duplicate),
    ...chain.cut.map((hop) => cutByPolicy(agent, hop)),
    ...configs.flatMap((config) => [...halfPrice(config)]),
  ];
  return { hops: linted.map((hop) => hop.hop), findings: gravestFirst(findings) };
}

/** What the lint says about one stored config: what a write of it answers. */
export function lintConfig(state: State, agent: Agent, config: Config, now: Date): readonly Finding[] {
  return lintChain(state, { ...agent, is_active: true }, [{ ...config, enabled: true }], now).findings;
}

/** A refused field of a proposal as a finding. */
export const refusedField = (violation: Violation): Finding =>
  finding({
    severity: 'SEVERITY_ERROR',
    reason: 'FINDING_REASON_INVALID_FIELD',
    field: violation.field,
    message: violation.description,
  });

const RANK = ['SEVERITY_ERROR', 'SEVERITY_WARNING', 'SEVERITY_INFO'];
const gravestFirst = (findings: readonly Finding[]) =>
  [...findings].sort((a, b) => RANK.indexOf(a.severity) - RANK.indexOf(b.severity));

function* aboutAgent(agent: Agent, configs: readonly Config[]): Generator<Finding> {
  if (!agent.is_active)
    yield finding({
      severity: 'SEVERITY_WARNING',
      reason: 'FINDING_REASON_AGENT_INACTIVE',
      field: 'agent.is_active',
      message: `Agent "${agent.name}" is inactive; its chain is not used until is_active is true`,
    });
  if (!configs.some((config) => config.enabled))
    yield finding({
      severity: 'SEVERITY_WARNING',
      reason: 'FINDING_REASON_NO_ENABLED_CONFIG',
      message: `Agent "${agent.name}" has no enabled config; it uses ${agent.llm_provider}/${agent.llm_model}`,
    });
}

function lintHop(state: State, agent: Agent, planned: PlannedHop, index: number, now: Date) {
  const provider = state.provider(planned.provider);
  const model = provider && state.model(provider.name, planned.model_name);
  const { sent, adaptations } = adapt(provider, model, valuesOf(agent, planned));
  const findings = [
    ...aboutTarget(state, planned, provider, index, now),
    ...adaptations.map((adaptation) => adapted(planned, index, adaptation)),
  ];
  return { hop: hopMessage(planned, index, sent), findings };
}

/** A fallback inherits its config's parameters; the agent's own model uses the agent's. */
function valuesOf(agent: Agent, hop: PlannedHop): ParameterValues {
  if (hop.config) return parametersOf(hop.config);
  return parametersOf({
    temperature: agent.temperature,
    max_tokens: agent.max_tokens,
    top_p: null,
    extra_params: null,
  });
}

const hopMessage = (planned: PlannedHop, index: number, sent: readonly SentParameter[]): Hop => ({
  index,
  source: planned.source,
  config_id: planned.config?.id || undefined,
  provider: planned.provider,
  model_name: planned.model_name,
  parameters: sent.map((p) => ({ name: p.name, wire_name: p.wire_name, value_json: JSON.stringify(p.value) })),
});

const target = (hop: PlannedHop) => `${hop.provider}/${hop.model_name}`;

/** The field of the request that a hop's provider or model comes from. */
const FIELDS = {
  HOP_SOURCE_CONFIG: { provider: 'config.provider', model: 'config.model_name' },
  HOP_SOURCE_FALLBACK: { provider: 'config.fallback_provider', model: 'config.fallback_model' },
  HOP_SOURCE_AGENT: { provider: 'agent.llm_provider', model: 'agent.llm_model' },
} as const;

function* aboutTarget(
  state: State,
  hop: PlannedHop,
  provider: Provider | undefined,
  index: number,
  now: Date,
): Generator<Finding> {
  const at = { hop: index, field: FIELDS[hop.source].provider };
  if (!provider) {
    const message = `No provider "${hop.provider}" is in the catalogue; add it or name another`;
    yield finding({ severity: 'SEVERITY_ERROR', reason: 'FINDING_REASON_UNKNOWN_PROVIDER', message, ...at });
    return;
  }
  if (!provider.enabled) {
    const message = `Provider "${provider.name}" is switched off; enable it or name another`;
    yield finding({ severity: 'SEVERITY_ERROR', reason: 'FINDING_REASON_PROVIDER_DISABLED', message, ...at });
  }
  yield* aboutModel(state, hop, provider, { hop: index, field: FIELDS[hop.source].model }, now);
}

function* aboutModel(
  state: State,
  hop: PlannedHop,
  provider: Provider,
  at: Pick<Finding, 'hop' | 'field'>,
  now: Date,
): Generator<Finding> {
  const model = state.model(provider.name, hop.model_name);
  if (!model) {
    const meant = nearest(
      hop.model_name,
      state.modelsOf(provider.name).map(({ name }) => name),
    );
    const hint = meant ? `: did you mean "${meant}"? It` : '; it';
    const message = `${target(hop)} is not in the catalogue${hint} is sent as it is, its limits and price are unknown`;
    yield finding({ severity: 'SEVERITY_WARNING', reason: 'FINDING_REASON_UNKNOWN_MODEL', message, ...at });
    return;
  }
  yield* aboutRetirement(model, target(hop), at, now);
  const newest = state.pricesOf(model.id).at(-1);
  if (!hop.config?.price_given && newest?.input_micro_usd_per_million == null) {
    const message = `No price of ${target(hop)} is known; what it costs will be counted as unknown`;
    yield finding({ severity: 'SEVERITY_INFO', reason: 'FINDING_REASON_PRICE_UNKNOWN', message, ...at });
  }
}

function* aboutRetirement(model: Model, name: string, at: Pick<Finding, 'hop' | 'field'>, now: Date) {
  if (model.retires_at) {
    const retired = model.retires_at <= now;
    const instead = model.replaced_by ? `; use ${model.replaced_by}` : '; choose another';
    const day = model.retires_at.toISOString().slice(0, 10);
    const message = `${name} ${retired ? 'was' : 'will be'} retired on ${day}${instead}`;
    const severity = retired ? 'SEVERITY_ERROR' : 'SEVERITY_WARNING';
    yield finding({ severity, reason: 'FINDING_REASON_MODEL_RETIRING', message, ...at });
  } else if (model.replaced_by) {
    const message = `${name} is deprecated: its provider names ${model.replaced_by} as successor`;
    yield finding({ severity: 'SEVERITY_WARNING', reason: 'FINDING_REASON_MODEL_DEPRECATED', message, ...at });
  }
}

function adapted(hop: PlannedHop, index: number, a: Adaptation): Finding {
  const shown = (value: unknown) => (value === undefined ? '' : JSON.stringify(value));
  const owner = hop.source === 'HOP_SOURCE_AGENT' ? 'agent' : 'config';
  const outcome = a.effective === undefined ? 'is left out' : `becomes ${shown(a.effective)}`;
  return finding({
    severity: a.reason === 'FINDING_REASON_PARAMETER_REQUIRED' ? 'SEVERITY_INFO' : 'SEVERITY_WARNING',
    hop: index,
    field: `${owner}.${fieldOf(a.parameter)}`,
    reason: a.reason,
    message: `${a.parameter} ${outcome} for ${target(hop)}: ${a.because}`,
    configured: shown(a.configured),
    effective: shown(a.effective),
  });
}

const duplicate = (hop: PlannedHop): Finding =>
  finding({
    severity: 'SEVERITY_INFO',
    reason: 'FINDING_REASON_DUPLICATE_HOP',
    field: FIELDS[hop.source].model,
    message: `${target(hop)} of config ${hop.config?.id ?? 'proposed'} stands in the chain already and is dropped`,
  });

const cutByPolicy = (agent: Agent, hop: PlannedHop): Finding =>
  finding({
    severity: 'SEVERITY_WARNING',
    reason: 'FINDING_REASON_HOP_CUT_BY_POLICY',
    field: FIELDS[hop.source].model,
    message: `${target(hop)} is never used: agent "${agent.name}" has ${agent.substitution_policy}`,
  });

function* halfPrice(config: Config): Generator<Finding> {
  const input = config.cost_per_1k_input_tokens;
  const output = config.cost_per_1k_output_tokens;
  if (!config.enabled || !config.price_given || (input === 0) === (output === 0)) return;
  const zero = input === 0 ? 'cost_per_1k_input_tokens' : 'cost_per_1k_output_tokens';
  yield finding({
    severity: 'SEVERITY_WARNING',
    reason: 'FINDING_REASON_PRICE_HALF_GIVEN',
    field: `config.${zero}`,
    message: `${zero} counts as 0 because the other cost is given; set it too if it is not free`,
  });
}
