import type { ApiKeyState } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { ExperimentState } from '../../gen/ts/agentllm/v1/experiment.js';
import type { Finding } from '../../gen/ts/agentllm/v1/finding.js';
import type { Dialect, WireApi } from '../../gen/ts/agentllm/v1/provider.js';
import type { SentParameter } from './adapt.js';
import type { AnalyzedHop } from './analyzed_hop.js';
import { canonicalBaseUrl } from './base_url.js';
import { aboutBudgets, BudgetEffect, type BudgetSkip, type CoveringBudget } from './budget_effect.js';
import { baseConfigOf, type PlannedHop } from './chain.js';
import { analyzeChain } from './chain_analysis.js';
import type { ChosenVariant } from './experiments/active_experiment.js';
import { baseMissing, bySeverity, noUsableHop } from './findings.js';
import { variablesOf } from './key_choice.js';
import { factsOf, type ModelFacts } from './model_facts.js';
import type { ParameterValue, ParameterValues } from './parameters.js';
import type { HopPrice } from './price.js';
import { type Provenance, provenanceOf } from './provenance.js';
import type { Agent, Config, Provider } from './rows.js';
import { canonicalName, type ResolveView } from './view.js';

/** One parameter as it is to be sent. */
export interface ResolvedParameter extends SentParameter {
  /** The configured value, if adaptation changed it. */
  readonly configured?: ParameterValue;
}

/** The source of the API key of a hop. */
export interface HopKey {
  readonly source: 'KEY_SOURCE_CONFIG' | 'KEY_SOURCE_CREDENTIAL' | 'KEY_SOURCE_ENVIRONMENT' | 'KEY_SOURCE_NONE';
  /** Name of the credential; empty for other sources. */
  readonly name: string;
  /** The environment variables that may contain the key, in order of precedence; empty for other sources. */
  readonly variables: readonly string[];
  /** The state of the stored key; API_KEY_STATE_NONE for other sources. */
  readonly state: ApiKeyState;
}

/** One hop of a resolved chain, with everything that a call needs except the API key. */
export interface ResolvedHop {
  /** Position in the chain, counted from 0, including skipped hops. */
  readonly index: number;
  readonly source: PlannedHop['source'];
  /** The id of the config; undefined for the default model of the agent. */
  readonly config_id: number | undefined;
  /** Canonical name. */
  readonly provider: string;
  readonly dialect: Dialect;
  /** The API that requests use. */
  readonly wire_api: WireApi;
  readonly base_url: string;
  readonly model_name: string;
  /** What is known about the model; an undefined fact is unknown. */
  readonly model: ModelFacts;
  /** The parameters to send, adapted to the model, each at most once. */
  readonly parameters: readonly ResolvedParameter[];
  /** The timeout of one request in ms; undefined: the deadline of the caller applies. */
  readonly request_timeout_ms: number | undefined;
  readonly key: HopKey;
  /** undefined: the price is unknown. */
  readonly price: HopPrice | undefined;
  readonly provenance: readonly Provenance[];
}

/** Why a hop is skipped. */
export type SkipReason =
  | 'SKIP_REASON_PROVIDER_DOWN'
  | 'SKIP_REASON_PROVIDER_DISABLED'
  | 'SKIP_REASON_PROVIDER_UNKNOWN'
  | 'SKIP_REASON_DUPLICATE'
  | 'SKIP_REASON_POLICY'
  | 'SKIP_REASON_BASE_URL_INVALID'
  | BudgetSkip;

/** A hop of the chain that is skipped. */
export interface SkippedHop extends Pick<ResolvedHop, 'index' | 'source' | 'config_id' | 'provider' | 'model_name'> {
  readonly reason: SkipReason;
}

/** The variant of the agent's experiment that a resolution uses. It is the same for all subjects of the variant. */
export interface ResolvedExperiment {
  /** The name of the experiment. */
  readonly experiment: string;
  /** The name of the variant whose settings the first hop has. */
  readonly variant: string;
  /** The state of the experiment: running or paused. */
  readonly state: ExperimentState;
  /** Whether calls count: the experiment is running and a subject is given. */
  readonly counted: boolean;
}

/** The effective hops of an agent. */
export interface Resolution {
  /** The hops to try, in this order. */
  readonly hops: readonly ResolvedHop[];
  readonly skipped: readonly SkippedHop[];
  /** All findings, by decreasing severity; `hop` is the index of a hop, skipped or not. */
  readonly findings: readonly Finding[];
  /** The names of the exhausted budgets that cover the agent. */
  readonly exhausted_budgets: readonly string[];
  /** The names of the exhausted budgets that skip hops. */
  readonly limiting_budgets: readonly string[];
  /** undefined: the agent has no experiment that is running or paused, or its variant cannot be used. */
  readonly experiment: ResolvedExperiment | undefined;
}

export interface ResolveOptions {
  /** Providers to treat as down, by name or alias. The findings about their hops are still reported. */
  readonly down?: Iterable<string>;
  /** Values that replace the configured ones in every hop, for one call. They are adapted like configured values. */
  readonly overrides?: ParameterValues;
  /** The enabled budgets that cover the agent, with their states. */
  readonly budgets?: readonly CoveringBudget[];
  /** The variant of the agent's experiment. */
  readonly chosen?: ChosenVariant | undefined;
}

/**
 * Resolves an agent with these configs, which must be in chain order. The service and the resident client both use this
 * function. An inactive agent resolves like any other; the callers of this function reject it.
 */
export function resolve(
  view: ResolveView,
  agent: Agent,
  configs: readonly Config[],
  now: Date,
  { down = [], overrides = {}, budgets = [], chosen }: ResolveOptions = {},
): Resolution {
  const used = chosen && baseConfigOf(configs, chosen.variant) ? chosen : undefined;
  const analysis = analyzeChain(view, agent, configs, now, { overrides, chosen: used });
  const isDown = new Set(Array.from(down, (name) => canonicalName(view, name)));
  const planned = analysis.hops.map((hop) => hop.planned);
  const effect = new BudgetEffect(budgets, planned);
  const hops: ResolvedHop[] = [];
  const skipped: SkippedHop[] = [];
  for (const hop of analysis.hops) {
    const { planned, provider } = hop;
    const reason = planned.dropped ?? providerProblem(provider, isDown) ?? effect.skip(planned, hop.price);
    if (reason !== undefined) skipped.push({ reason, ...hopFields(planned) });
    else hops.push(resolvedHop(agent, hop, provider as Provider));
  }
  const findings = [...analysis.findings, ...aboutBudgets(budgets, planned)];
  if (chosen && !used) findings.push(baseMissing(agent, chosen));
  if (hops.length === 0) findings.push(noUsableHop(agent));
  // A budget that skips a later hop also skips the first hop.
  const first = skipped.find(({ reason }) => reason === 'SKIP_REASON_BUDGET_EXHAUSTED');
  const limiting_budgets = first ? effect.skipping(first) : [];
  const experiment = used && resolvedExperiment(used);
  const sorted = bySeverity(findings);
  return { hops, skipped, findings: sorted, exhausted_budgets: effect.exhausted, limiting_budgets, experiment };
}

const resolvedExperiment = ({ experiment, variant, counted }: ChosenVariant): ResolvedExperiment => ({
  experiment: experiment.name,
  variant: variant.name,
  state: experiment.state,
  counted,
});

function providerProblem(provider: Provider | undefined, down: ReadonlySet<string>): SkipReason | undefined {
  if (!provider) return 'SKIP_REASON_PROVIDER_UNKNOWN';
  if (!provider.enabled) return 'SKIP_REASON_PROVIDER_DISABLED';
  if (canonicalBaseUrl(provider.base_url) === undefined) return 'SKIP_REASON_BASE_URL_INVALID';
  return down.has(provider.name) ? 'SKIP_REASON_PROVIDER_DOWN' : undefined;
}

const hopFields = ({ index, source, config, provider, model_name }: AnalyzedHop['planned']) => ({
  index,
  source,
  config_id: config?.id,
  provider,
  model_name,
});

function resolvedHop(agent: Agent, hop: AnalyzedHop, provider: Provider): ResolvedHop {
  return {
    ...hopFields(hop.planned),
    dialect: provider.dialect,
    wire_api: provider.wire_api,
    // Earlier releases may have stored a form that is not canonical.
    base_url: canonicalBaseUrl(provider.base_url) ?? provider.base_url,
    model: factsOf(hop.model),
    parameters: parametersOf(hop),
    request_timeout_ms: hop.planned.config?.extra_params?.request_timeout_ms,
    key: keyOf(hop, provider),
    price: hop.price,
    provenance: provenanceOf(agent, hop, provider),
  };
}

function parametersOf({ sent, adaptations }: AnalyzedHop): ResolvedParameter[] {
  const configured = new Map(adaptations.map((adaptation) => [adaptation.parameter, adaptation.configured]));
  return sent.map((parameter) => {
    const before = configured.get(parameter.name);
    return before === undefined ? parameter : { ...parameter, configured: before };
  });
}

function keyOf({ key, keyState: state }: AnalyzedHop, provider: Provider): HopKey {
  if (key?.source === 'KEY_SOURCE_CREDENTIAL') return { source: key.source, name: key.row.name, variables: [], state };
  if (key) return { source: key.source, name: '', variables: [], state };
  const variables = variablesOf(provider);
  return { source: variables.length > 0 ? 'KEY_SOURCE_ENVIRONMENT' : 'KEY_SOURCE_NONE', name: '', variables, state };
}
