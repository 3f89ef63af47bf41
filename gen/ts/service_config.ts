// Generated from proto/agentllm/v1/service_config.json. DO NOT EDIT.

export const serviceConfig = {
  "methodConfig": [
    {
      "name": [
        {
          "service": "agentllm.v1.AccessService"
        },
        {
          "service": "agentllm.v1.AgentService"
        },
        {
          "service": "agentllm.v1.AgentLLMConfigService"
        },
        {
          "service": "agentllm.v1.AgentLLMConfigWatchService"
        },
        {
          "service": "agentllm.v1.AuditService"
        },
        {
          "service": "agentllm.v1.BudgetService"
        },
        {
          "service": "agentllm.v1.ExperimentService"
        },
        {
          "service": "agentllm.v1.ProviderService"
        },
        {
          "service": "agentllm.v1.CredentialService"
        },
        {
          "service": "agentllm.v1.UsageService"
        }
      ],
      "retryPolicy": {
        "maxAttempts": 5,
        "initialBackoff": "0.1s",
        "maxBackoff": "3s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": [
          "UNAVAILABLE"
        ]
      }
    },
    {
      "name": [
        {
          "service": "agentllm.v1.AgentLLMConfigWatchService",
          "method": "WatchConfigs"
        },
        {
          "service": "agentllm.v1.CredentialService",
          "method": "RotateEncryptionKey"
        },
        {
          "service": "agentllm.v1.UsageService",
          "method": "StreamUsage"
        }
      ]
    }
  ],
  "retryThrottling": {
    "maxTokens": 1000,
    "tokenRatio": 10
  }
};
