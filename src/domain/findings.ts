import type { Finding } from '../../gen/ts/agentllm/v1/finding.js';
import type { Adaptation } from './adapt.js';
import type { AnalyzedHop } from './analyzed_hop.js';
import { canonicalBaseUrl } from './base_url.js';
import { type ChainHop, hasDefaultModel, type PlannedHop } from './chain.js';
import type { ChosenVariant } from './experiments/active_experiment.js';
import { isOverridden } from './experiments/variant_config.js';
import { fieldOf } from './parameters.js';
import type { Agent, Config, Model, Provider } from './rows.js';
import { isShutDown, replaceCommand, shutdownText, usableSuccessor } from './shutdown.js';
import { nearest } from './text.js';
import type { ResolveView } from './view.js';

/*
 * All findings of the lint, with their messages.
 */

type FindingInput = Pick<Finding, 'severity' | 'reason' | 'message'> & Partial<Finding>;
/** The hop and the field that a finding is about. */
type Location = Pick<Finding, 'hop' | 'field'>;

export const finding = (input: FindingInput): Finding => ({
  field: '',
  configured: '',
  effective: '',
  hop: undefined,
  ...input,
});

const RANK = ['SEVERITY_ERROR', 'SEVERITY_WARNING', 'SEVERITY_INFO'];
export const bySeverity = (findings: readonly Finding[]): Finding[] =>
  [...findings].sort((a, b) => RANK.indexOf(a.severity) - RANK.indexOf(b.severity));

/** @param hasVariant whether the chain begins with a variant of an experiment, whose base config may be disabled. */
export function* aboutAgent(agent: Agent, configs: readonly Config[], hasVariant: boolean): Generator<Finding> {
  if (!agent.is_active)
    yield finding({
      severity: 'SEVERITY_WARNING',
      reason: 'FINDING_REASON_AGENT_INACTIVE',
      field: 'agent.is_active',
      message: `Agent "${agent.name}" is inactive; its chain is not used until is_active is true`,
    });
  if (!hasVariant) yield* withoutConfig(agent, configs);
}

/** An agent without an enabled config uses its default model, which may be of another provider. */
export function* withoutConfig(agent: Agent, configs: readonly Config[]): Generator<Finding> {
  if (configs.some((config) => config.enabled)) return;
  const uses = hasDefaultModel(agent)
    ? `it uses its default model ${agent.llm_provider}/${agent.llm_model}; set llm_provider and llm_model to "" if it must not`
    : 'no default model, so it can call no model; create or enable a config';
  yield finding({
    severity: 'SEVERITY_WARNING',
    reason: 'FINDING_REASON_NO_ENABLED_CONFIG',
    message: `Agent "${agent.name}" has no enabled config${hasDefaultModel(agent) ? '; ' : ' and '}${uses}`,
  });
}

/** No hop of the chain is usable. */
export const noUsableHop = (agent: Agent): Finding =>
  finding({
    severity: 'SEVERITY_ERROR',
    reason: 'FINDING_REASON_NO_USABLE_HOP',
    message: `No hop of agent "${agent.name}" is usable; enable a provider of its chain, add another hop or raise an exhausted budget`,
  });

const target = (hop: PlannedHop) => `${hop.provider}/${hop.model_name}`;

/** The fields that determine a hop's provider and model. */
const FIELDS = {
  HOP_SOURCE_CONFIG: { provider: 'config.provider', model: 'config.model_name' },
  HOP_SOURCE_FALLBACK: { provider: 'config.fallback_provider', model: 'config.fallback_model' },
  HOP_SOURCE_AGENT: { provider: 'agent.llm_provider', model: 'agent.llm_model' },
} as const;

/** The field that determines a value of a hop. @param path of a hop of a config, below `config`. */
function fieldAt({ source, chosen }: PlannedHop, value: 'provider' | 'model', path: string): string {
  return chosen && isOverridden(chosen.variant, path) ? `overrides.${path}` : FIELDS[source][value];
}

const PLAIN_FORM = 'a plain URL such as https://llm.example.com/v1';

/** The inputs of the lint of a chain. */
export interface LintContext {
  readonly view: ResolveView;
  readonly agent: Agent;
  readonly now: Date;
  /** Whether findings name the commands that correct them. */
  readonly namesCommands: boolean;
}

/** The findings about a hop that was not dropped from the chain. */
export function* aboutHop(context: LintContext, hop: AnalyzedHop): Generator<Finding> {
  const { planned, provider } = hop;
  const at = { hop: planned.index, field: fieldAt(planned, 'provider', 'provider') };
  if (!provider) {
    const message = `No provider "${planned.provider}" is in the catalogue; add it or name another`;
    yield finding({ severity: 'SEVERITY_ERROR', reason: 'FINDING_REASON_UNKNOWN_PROVIDER', message, ...at });
  } else {
    if (!provider.enabled) {
      const message = `Provider "${provider.name}" is disabled; enable it or name another`;
      yield finding({ severity: 'SEVERITY_ERROR', reason: 'FINDING_REASON_PROVIDER_DISABLED', message, ...at });
    }
    if (canonicalBaseUrl(provider.base_url) === undefined) {
      const message = `The base URL of provider "${provider.name}" is ambiguous; set base_url to ${PLAIN_FORM}`;
      yield finding({ severity: 'SEVERITY_ERROR', reason: 'FINDING_REASON_BASE_URL_INVALID', message, ...at });
    }
    yield* aboutModel(context, hop, provider);
  }
  if (hop.keyState === 'API_KEY_STATE_UNREADABLE') yield unreadableKey(hop);
  for (const adaptation of hop.adaptations) yield adapted(planned, adaptation);
}

function* aboutModel(context: LintContext, hop: AnalyzedHop, provider: Provider): Generator<Finding> {
  const { planned, model } = hop;
  const at = { hop: planned.index, field: fieldAt(planned, 'model', 'model_name') };
  if (!model) {
    const names = context.view.modelsOf(provider.name).map(({ name }) => name);
    const suggestion = nearest(planned.model_name, names);
    const hint = suggestion ? `: did you mean "${suggestion}"? It` : '; it';
    const message = `${target(planned)} is not in the catalogue${hint} is sent unchanged, its limits and price are unknown`;
    yield finding({ severity: 'SEVERITY_WARNING', reason: 'FINDING_REASON_UNKNOWN_MODEL', message, ...at });
    return;
  }
  yield* aboutShutdown(context, planned, model, at);
  if (hop.price?.price.input_micro_usd_per_million == null) {
    const message = `No price of ${target(planned)} is known; its cost is counted as unknown`;
    yield finding({ severity: 'SEVERITY_INFO', reason: 'FINDING_REASON_PRICE_UNKNOWN', message, ...at });
  }
}

function* aboutShutdown(context: LintContext, hop: PlannedHop, model: Model, at: Location) {
  const { view, agent, now, namesCommands } = context;
  const { retires_at, replaced_by } = model;
  if (retires_at) {
    const successor = usableSuccessor(view, model, now);
    const command = successor && namesCommands ? replaceCommand(agent, hop, successor) : undefined;
    const remedy = replaced_by ? `use ${replaced_by}${command ? `: ${command}` : ''}` : 'choose another';
    const message = `${target(hop)} ${shutdownText(retires_at, now)}; ${remedy}`;
    const severity = isShutDown(model, now) ? 'SEVERITY_ERROR' : 'SEVERITY_WARNING';
    yield finding({ severity, reason: 'FINDING_REASON_MODEL_RETIRING', message, ...at });
  } else if (replaced_by) {
    const message = `${target(hop)} is deprecated: its provider names ${replaced_by} as successor`;
    yield finding({ severity: 'SEVERITY_WARNING', reason: 'FINDING_REASON_MODEL_DEPRECATED', message, ...at });
  }
}

function unreadableKey({ planned, key }: AnalyzedHop): Finding {
  const ofCredential = key?.source === 'KEY_SOURCE_CREDENTIAL';
  const owner = ofCredential ? `credential "${key.row.name}"` : `config ${planned.config?.id || 'proposed'}`;
  return finding({
    severity: 'SEVERITY_ERROR',
    reason: 'FINDING_REASON_KEY_UNREADABLE',
    hop: planned.index,
    field: ofCredential ? 'config.credential_name' : 'config.api_key_state',
    message: `The stored key of ${owner} cannot be decrypted, and no other key replaces it; set the key again or clear it`,
  });
}

function adapted(hop: ChainHop, a: Adaptation): Finding {
  const shown = (value: unknown) => (value === undefined ? '' : JSON.stringify(value));
  const isOfVariant = hop.chosen !== undefined && isOverridden(hop.chosen.variant, fieldOf(a.parameter));
  const owner = isOfVariant ? 'overrides' : hop.source === 'HOP_SOURCE_AGENT' ? 'agent' : 'config';
  const outcome = a.effective === undefined ? 'is left out' : `becomes ${shown(a.effective)}`;
  return finding({
    severity: a.reason === 'FINDING_REASON_PARAMETER_REQUIRED' ? 'SEVERITY_INFO' : 'SEVERITY_WARNING',
    hop: hop.index,
    field: `${owner}.${fieldOf(a.parameter)}`,
    reason: a.reason,
    message: `${a.parameter} ${outcome} for ${target(hop)}: ${a.because}`,
    configured: shown(a.configured),
    effective: shown(a.effective),
  });
}

/** The base config of a variant no longer exists. */
export const baseMissing = (agent: Agent, { experiment, variant }: ChosenVariant): Finding =>
  finding({
    severity: 'SEVERITY_WARNING',
    reason: 'FINDING_REASON_VARIANT_UNUSABLE',
    message:
      `Variant "${variant.name}" of experiment "${experiment.name}" has no base config: ` +
      `${variant.config_id === null ? `agent "${agent.name}" has no primary config` : `config ${variant.config_id} no longer exists`}; ` +
      'its calls use the settings without the experiment and are not counted',
  });

export const duplicate = (hop: PlannedHop): Finding =>
  finding({
    severity: 'SEVERITY_INFO',
    reason: 'FINDING_REASON_DUPLICATE_HOP',
    field: FIELDS[hop.source].model,
    message: `${target(hop)} of config ${hop.config?.id || 'proposed'} is a duplicate of an earlier hop and is dropped`,
  });

export const cutByPolicy = (agent: Agent, hop: PlannedHop): Finding =>
  finding({
    severity: 'SEVERITY_WARNING',
    reason: 'FINDING_REASON_HOP_CUT_BY_POLICY',
    field: FIELDS[hop.source].model,
    message: `${target(hop)} is never used: agent "${agent.name}" has ${agent.substitution_policy}`,
  });

export function* halfPrice(config: Config): Generator<Finding> {
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
