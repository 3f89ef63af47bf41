import type { Finding } from '../../gen/ts/agentllm/v1/finding.js';
import { adapt } from './adapt.js';
import type { AnalyzedHop } from './analyzed_hop.js';
import { type ChainHop, chainOf, type PlannedHop } from './chain.js';
import type { ChosenVariant } from './experiments/active_experiment.js';
import { aboutAgent, aboutHop, cutByPolicy, duplicate, halfPrice } from './findings.js';
import { storedKeyOf } from './key_choice.js';
import { type ParameterValues, parametersOf } from './parameters.js';
import { priceOf } from './price.js';
import type { Agent, Config } from './rows.js';
import type { ResolveView } from './view.js';

/** A whole chain in order, with all its findings in no particular order. */
export interface ChainAnalysis {
  readonly hops: readonly AnalyzedHop[];
  readonly findings: readonly Finding[];
}

export interface AnalysisOptions {
  /** Whether findings name the commands that correct them. Default true. */
  readonly namesCommands?: boolean;
  /** Values that replace the configured ones in every hop. */
  readonly overrides?: ParameterValues;
  /** The variant of an experiment that determines the first hop; its base config must exist. */
  readonly chosen?: ChosenVariant | undefined;
}

/** Analyzes a chain. Lint and resolution both present the result. */
export function analyzeChain(
  view: ResolveView,
  agent: Agent,
  configs: readonly Config[],
  now: Date,
  { namesCommands = true, overrides = {}, chosen }: AnalysisOptions = {},
): ChainAnalysis {
  const hops = chainOf(view, agent, configs, chosen).map((hop) => analyzeHop(view, agent, hop, now, overrides));
  const hopsDropped = (reason: ChainHop['dropped']) => hops.filter(({ planned }) => planned.dropped === reason);
  const findings = [
    ...aboutAgent(agent, configs, chosen !== undefined),
    ...hopsDropped(undefined).flatMap((hop) => [...aboutHop({ view, agent, now, namesCommands }, hop)]),
    ...hopsDropped('SKIP_REASON_DUPLICATE').map(({ planned }) => duplicate(planned)),
    ...hopsDropped('SKIP_REASON_POLICY').map(({ planned }) => cutByPolicy(agent, planned)),
    ...configs.flatMap((config) => [...halfPrice(config)]),
  ];
  return { hops, findings };
}

function analyzeHop(
  view: ResolveView,
  agent: Agent,
  planned: ChainHop,
  now: Date,
  overrides: ParameterValues,
): AnalyzedHop {
  const provider = view.provider(planned.provider);
  const model = provider && view.model(provider.name, planned.model_name);
  const key = planned.config && storedKeyOf(view, planned.config, planned.provider);
  return {
    planned,
    provider,
    model,
    ...adapt(provider, model, { ...valuesOf(agent, planned), ...overrides }),
    overrides,
    key,
    keyState: key
      ? view.encryption.stateOf(key.source === 'KEY_SOURCE_CONFIG' ? 'config' : 'credential', key.row)
      : NO_KEY,
    price: priceOf(view, planned, model, now),
  };
}
const NO_KEY = 'API_KEY_STATE_NONE';

/** A fallback inherits the parameters of its config; the default model of an agent uses those of the agent. */
function valuesOf(agent: Agent, hop: PlannedHop): ParameterValues {
  if (hop.config) return parametersOf(hop.config);
  return parametersOf({
    temperature: agent.temperature,
    max_tokens: agent.max_tokens,
    top_p: null,
    extra_params: null,
  });
}
