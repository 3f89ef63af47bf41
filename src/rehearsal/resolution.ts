import type { ResolveConfigResponse } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { ResolvedConfig, ResolvedHop } from '../../gen/ts/agentllm/v1/resolution.js';
import type { Resolution, ResolutionHop } from '../client/resolution_types.js';

/**
 * The resolution of an agent as the client computes it, from the response of the service. Prices and the type of the agent
 * are left out: no call depends on them.
 */
export function resolutionOf({ resolved, revision }: ResolveConfigResponse): Resolution {
  const { agent_id, agent_name, hops, skipped, findings, substitution_policy, exhausted_budgets, experiment } =
    resolved as ResolvedConfig;
  return {
    agent: { id: agent_id, name: agent_name, agent_type: '', role: '', substitution_policy },
    hops: hops.map(hopOf),
    skipped: skipped as Resolution['skipped'],
    findings,
    exhausted_budgets,
    experiment,
    revision,
  };
}

function hopOf({ key_source, key_name, api_key_state, parameters, provenance, model, ...hop }: ResolvedHop) {
  const isVariable = key_source === 'KEY_SOURCE_ENVIRONMENT';
  return {
    ...hop,
    config_id: hop.config_id,
    request_timeout_ms: hop.request_timeout_ms,
    model: model ?? {},
    parameters: parameters.map(({ name, wire_name, value_json, configured_json }) => ({
      name,
      wire_name,
      value: JSON.parse(value_json),
      ...(configured_json !== '' && { configured: JSON.parse(configured_json) }),
    })),
    key: {
      source: key_source,
      name: isVariable ? '' : key_name,
      variables: isVariable ? key_name.split(',') : [],
      state: api_key_state,
    },
    price: undefined,
    provenance: provenance.map((one) => ({ ...one, revision: Number(one.revision) })),
  } as ResolutionHop;
}
