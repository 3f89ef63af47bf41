import type { AgentLLMConfigServiceService } from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { ServiceError } from '../errors.js';
import type { Handlers } from './method.js';
import type { Backend } from './service.js';

type HistoryMethods = 'listConfigRevisions' | 'getConfigRevision' | 'rollbackConfig';

/** The methods of AgentLLMConfigService that look back, and go back. */
export function historyHandlers(
  _backend: Backend,
): Pick<Handlers<typeof AgentLLMConfigServiceService>, HistoryMethods> {
  const later = () => {
    throw ServiceError.of('FEATURE_NOT_AVAILABLE', { feature: 'history' });
  };
  return { listConfigRevisions: later, getConfigRevision: later, rollbackConfig: later };
}
