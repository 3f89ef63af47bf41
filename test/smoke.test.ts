import { describe, expect, it } from 'vitest';
import { failure, useService } from './support/service.js';

describe.each(['embedded', 'postgres'] as const)('the service with the %s backend', (backend) => {
  const service = useService(backend);

  it('creates a config with a fallback and returns CONFIG_NOT_FOUND for an unknown id', async () => {
    const { configs } = service();
    const created = await configs.createConfig({
      agent: { name: 'trader' },
      config: {
        provider: 'openai',
        model_name: 'gpt-4',
        temperature: 0.7,
        max_tokens: 2000,
        fallback_provider: 'claude',
        fallback_model: 'claude-3-haiku-20240307',
      },
    });
    expect(created.config?.fallback_provider).toBe('claude');
    const error = await failure(configs.getConfig({ id: 999_999 }));
    expect(error.reason).toBe('CONFIG_NOT_FOUND');
  });
});
