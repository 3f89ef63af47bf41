import type {
  Experiment as ExperimentMessage,
  ExperimentVariant,
  Guardrail as GuardrailMessage,
} from '../../../gen/ts/agentllm/v1/experiment.js';
import type { Experiment, Guardrail, Variant } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { etagOf, extraParamsMessage } from './entities.js';

/** An experiment as a message. @param agentName the name of its agent, which may have been renamed since. */
export const experimentMessage = (
  state: State,
  experiment: Experiment,
  agentName = state.agents.get(experiment.agent_id)?.name ?? '',
): ExperimentMessage => ({
  id: experiment.id,
  agent_id: experiment.agent_id,
  agent_name: agentName,
  name: experiment.name,
  hypothesis: experiment.hypothesis ?? undefined,
  subject_kind: experiment.subject_kind,
  salt: experiment.salt,
  state: experiment.state,
  variants: experiment.variants.map(variantMessage),
  primary_metric: { ...experiment.primary_metric },
  guardrails: experiment.guardrails.map(guardrailMessage),
  alpha_basis_points: experiment.alpha_basis_points,
  smallest_effect_basis_points: experiment.smallest_effect_basis_points,
  state_reason: experiment.state_reason,
  winner: experiment.winner,
  started_at: experiment.started_at ?? undefined,
  ended_at: experiment.ended_at ?? undefined,
  allocation_revision: BigInt(experiment.allocation_revision),
  created_at: experiment.created_at,
  updated_at: experiment.updated_at,
  revision: BigInt(experiment.revision),
  etag: etagOf(state, experiment),
});

function variantMessage(variant: Variant): ExperimentVariant {
  const { extra_params, ...overrides } = variant.overrides;
  const hasOverrides = Object.keys(variant.overrides).length > 0;
  return {
    name: variant.name,
    description: variant.description ?? undefined,
    control: variant.control,
    config_id: variant.config_id ?? undefined,
    overrides: hasOverrides
      ? {
          provider: overrides.provider,
          model_name: overrides.model_name,
          temperature: overrides.temperature,
          max_tokens: overrides.max_tokens,
          top_p: overrides.top_p,
          extra_params: extra_params && extraParamsMessage(extra_params),
        }
      : undefined,
    weight_basis_points: variant.weight_basis_points,
    buckets: variant.buckets.map(({ start, end }) => ({ start, end })),
  };
}

export const guardrailMessage = (guardrail: Guardrail): GuardrailMessage => ({
  metric: { ...guardrail.metric },
  relative_margin_basis_points: guardrail.relative_margin_basis_points ?? undefined,
  absolute_margin: guardrail.absolute_margin ?? undefined,
});
