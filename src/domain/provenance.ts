import type { AnalyzedHop } from './analyzed_hop.js';
import type { ChainHop } from './chain.js';
import { isOverridden } from './experiments/variant_config.js';
import { fieldOf, type Parameter } from './parameters.js';
import type { Agent, Model, Provider } from './rows.js';
import { ruleFor } from './rules.js';

/** The row and field that one value of a resolved hop comes from. */
export interface Provenance {
  /** Path of the value in the hop, for example `parameters.temperature`. */
  readonly field: string;
  /** The kind of row. */
  readonly source:
    | 'VALUE_SOURCE_CONFIG'
    | 'VALUE_SOURCE_AGENT'
    | 'VALUE_SOURCE_PROVIDER'
    | 'VALUE_SOURCE_MODEL'
    | 'VALUE_SOURCE_CREDENTIAL'
    | 'VALUE_SOURCE_EXPERIMENT';
  /** The resource: a config by its id, a model as `provider/model`, a variant as `experiment/variant`, others by name. */
  readonly resource: string;
  /** The field of that row. */
  readonly path: string;
  /** Store revision of the row's last change. */
  readonly revision: number;
}

/** A row as the source of values. */
type Row = Pick<Provenance, 'source' | 'resource' | 'revision'>;

/** The provenance of every value of a hop, in the order of its fields. A value of the call itself comes from no row. */
export function provenanceOf(agent: Agent, hop: AnalyzedHop, provider: Provider): Provenance[] {
  const { planned } = hop;
  const owner = ownerOf(agent, planned);
  const catalogue = providerRow(provider);
  const paths = PATHS[planned.source];
  const entries: Provenance[] = [
    { field: 'provider', ...configured(planned, owner, paths.provider) },
    { field: 'dialect', ...catalogue, path: 'dialect' },
    { field: 'wire_api', ...catalogue, path: 'wire_api' },
    { field: 'base_url', ...catalogue, path: 'base_url' },
    { field: 'model_name', ...configured(planned, owner, paths.model) },
    ...(hop.model ? [{ field: 'model', ...modelRow(hop.model), path: '' }] : []),
    ...hop.sent
      .filter(({ name }) => hop.overrides[name] === undefined)
      .map(({ name }) => ({
        field: `parameters.${name}`,
        ...(ruleApplied(hop, provider, name) ?? configured(planned, owner, fieldOf(name))),
      })),
  ];
  if (planned.config?.extra_params?.request_timeout_ms !== undefined)
    entries.push({ field: 'request_timeout_ms', ...configured(planned, owner, 'extra_params.request_timeout_ms') });
  entries.push({ field: 'key_source', ...keyRow(owner, catalogue, hop) });
  const price = priceRow(owner, hop);
  if (price) entries.push({ field: 'price', ...price });
  return entries;
}

/** The columns that contain the provider and model of a hop. */
const PATHS = {
  HOP_SOURCE_CONFIG: { provider: 'provider', model: 'model_name' },
  HOP_SOURCE_FALLBACK: { provider: 'fallback_provider', model: 'fallback_model' },
  HOP_SOURCE_AGENT: { provider: 'llm_provider', model: 'llm_model' },
} as const;

const ownerOf = (agent: Agent, { config }: ChainHop): Row =>
  config
    ? { source: 'VALUE_SOURCE_CONFIG', resource: String(config.id), revision: config.revision }
    : { source: 'VALUE_SOURCE_AGENT', resource: agent.name, revision: agent.revision };

/** A value of the owner of a hop, or of the variant that replaces it. */
function configured({ chosen }: ChainHop, owner: Row, path: string): Row & { path: string } {
  if (!chosen || !isOverridden(chosen.variant, path)) return { ...owner, path };
  const { experiment, variant } = chosen;
  return {
    source: 'VALUE_SOURCE_EXPERIMENT',
    resource: `${experiment.name}/${variant.name}`,
    path: `overrides.${path}`,
    revision: experiment.revision,
  };
}

const providerRow = ({ name, revision }: Provider): Row => ({
  source: 'VALUE_SOURCE_PROVIDER',
  resource: name,
  revision,
});

const modelRow = ({ provider, name, revision }: Model): Row => ({
  source: 'VALUE_SOURCE_MODEL',
  resource: `${provider}/${name}`,
  revision,
});

/** The rule that changed a parameter; undefined where it is sent as configured. */
function ruleApplied(hop: AnalyzedHop, provider: Provider, parameter: Parameter): (Row & { path: string }) | undefined {
  const { model } = hop;
  const change = hop.adaptations.find((adaptation) => adaptation.parameter === parameter);
  if (!change) return undefined;
  // Without the output limit of the model, which ruleFor adds to the rule.
  const rule = ruleFor(provider, model && { ...model, max_output_tokens: null }, parameter);
  const capped =
    parameter === 'max_tokens' &&
    change.effective === model?.max_output_tokens &&
    change.effective !== rule?.maximum &&
    change.effective !== rule?.required_default;
  if (model && capped) return { ...modelRow(model), path: 'max_output_tokens' };
  if (model && rule?.layer === 'model') return { ...modelRow(model), path: 'parameter_rules' };
  return { ...providerRow(provider), path: rule?.layer === 'provider' ? 'parameter_rules' : 'dialect' };
}

function keyRow(owner: Row, provider: Row, { key }: AnalyzedHop): Row & { path: string } {
  if (!key) return { ...provider, path: 'api_key_env_vars' };
  if (key.source === 'KEY_SOURCE_CONFIG') return { ...owner, path: 'api_key' };
  const { name, revision } = key.row;
  return { source: 'VALUE_SOURCE_CREDENTIAL', resource: name, path: 'api_key', revision };
}

/** The provenance of the price. A price has its own revision, because a new price does not change its model. */
function priceRow(owner: Row, { model, price }: AnalyzedHop): (Row & { path: string }) | undefined {
  if (price?.source === 'VALUE_SOURCE_CONFIG') return { ...owner, path: 'cost_per_1k_input_tokens' };
  return price && model && { ...modelRow(model), path: 'price', revision: price.price.revision };
}
