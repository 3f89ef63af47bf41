// The messages and services of the contract, as ts-proto generates them: for those who want only the stubs.
export * from '../../gen/ts/agentllm/v1/agent.js';
export * from '../../gen/ts/agentllm/v1/agent_llm_config.js';
export * from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
export * from '../../gen/ts/agentllm/v1/agent_service.js';
export * from '../../gen/ts/agentllm/v1/check.js';
export * from '../../gen/ts/agentllm/v1/credential.js';
export * from '../../gen/ts/agentllm/v1/credential_service.js';
export * from '../../gen/ts/agentllm/v1/error_reason.js';
export * from '../../gen/ts/agentllm/v1/finding.js';
export * from '../../gen/ts/agentllm/v1/options.js';
export * from '../../gen/ts/agentllm/v1/provider.js';
export * from '../../gen/ts/agentllm/v1/provider_service.js';
export * from '../../gen/ts/agentllm/v1/write.js';
export * from '../../gen/ts/google/rpc/code.js';
export * from '../../gen/ts/google/rpc/error_details.js';
export * from '../../gen/ts/google/rpc/status.js';
