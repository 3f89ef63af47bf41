import type { ResolveConfigRequest, ResolveConfigResponse } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { ServiceError } from '../errors.js';
import type { Call, Reply } from './method.js';
import type { Backend } from './service.js';

/** What is in effect for an agent, now or at a past revision. */
export function resolveConfig(
  _backend: Backend,
  _call: Call<ResolveConfigRequest, ResolveConfigResponse>,
): Reply<ResolveConfigResponse> | Promise<Reply<ResolveConfigResponse>> {
  throw ServiceError.of('FEATURE_NOT_AVAILABLE', { feature: 'ResolveConfig' });
}
