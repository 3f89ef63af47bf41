import { describe, expect, it } from 'vitest';
import { generateKey } from '../../../src/domain/fernet.js';
import { failure, unique, useService } from '../../support/service.js';

const ENCRYPTION_KEY = generateKey();

describe.each(['embedded', 'postgres'] as const)('API keys on %s', (backend) => {
  const service = useService(backend, { ENCRYPTION_KEY });

  async function newConfig(api_key?: string) {
    const { agent } = await service().agents.createAgent({ agent: { name: unique('agent'), agent_type: 'analyst' } });
    const { config } = await service().configs.createConfig({
      agent: { id: agent?.id as number },
      config: { provider: 'openai', model_name: 'gpt-4' },
      ...(api_key !== undefined && { api_key }),
    });
    if (!config) throw new Error('no config');
    return config;
  }

  it('are kept when absent, set by a value and removed by clear_api_key', async () => {
    const { configs } = service();
    const { id, ...created } = await newConfig('sk-first');
    expect(created).toMatchObject({ has_api_key_override: true, api_key_state: 'API_KEY_STATE_SET' });
    const kept = await configs.updateConfig({ config: { id, temperature: 0 } });
    expect(kept.config?.has_api_key_override).toBe(true);
    const replaced = await configs.updateConfig({ config: { id }, api_key: 'sk-second' });
    expect(replaced.config?.api_key_state).toBe('API_KEY_STATE_SET');
    const cleared = await configs.updateConfig({ config: { id }, clear_api_key: true });
    expect(cleared.config).toMatchObject({ has_api_key_override: false, api_key_state: 'API_KEY_STATE_NONE' });
  });

  it('cannot move to another provider', async () => {
    const { configs } = service();
    const { id } = await newConfig('sk-openai');
    const to_claude = { id, provider: 'claude', model_name: 'claude-3-haiku-20240307' };
    const error = await failure(configs.updateConfig({ config: to_claude }));
    expect(error).toMatchObject({ code: 9, reason: 'KEY_PROVIDER_MISMATCH' });
    expect((await configs.getConfig({ id })).config?.provider).toBe('openai');
    const moved = await configs.updateConfig({ config: to_claude, api_key: 'sk-ant' });
    expect(moved.config).toMatchObject({ provider: 'claude', api_key_state: 'API_KEY_STATE_SET' });
  });

  it.each([
    ['k'.repeat(286), true],
    ['k'.repeat(287), false],
    ['', false],
    ['with space', false],
    ['ключ', false],
    ['line\nend', false],
  ])('are accepted only as visible ASCII of 1 to 286 characters: %j', async (api_key, accepted) => {
    if (accepted) {
      expect((await newConfig(api_key)).api_key_state).toBe('API_KEY_STATE_SET');
      return;
    }
    const error = await failure(newConfig(api_key));
    expect(error.fields).toEqual(['api_key']);
    if (api_key !== '') expect(JSON.stringify(error)).not.toContain(api_key);
  });

  it('are stored as a named credential that many configs can use', async () => {
    const { configs, credentials } = service();
    const name = unique('desk');
    const { credential } = await credentials.createCredential({
      credential: { name, provider: 'OpenAI', description: 'the desk' },
      api_key: 'sk-shared',
    });
    expect(credential).toMatchObject({ name, provider: 'openai', api_key_state: 'API_KEY_STATE_SET', config_count: 0 });
    const { id } = await newConfig();
    const used = await configs.updateConfig({ config: { id, credential_name: name } });
    expect(used.config).toMatchObject({ credential_name: name, has_api_key_override: false });
    expect((await credentials.getCredential({ name })).credential?.config_count).toBe(1);

    const both = await failure(configs.updateConfig({ config: { id }, api_key: 'sk-own' }));
    expect(both.fields).toEqual(['config.credential_name']);
    const foreign = { id, provider: 'deepseek', model_name: 'deepseek-chat' };
    expect((await failure(configs.updateConfig({ config: foreign }))).reason).toBe('KEY_PROVIDER_MISMATCH');
    expect((await failure(credentials.deleteCredential({ name }))).reason).toBe('CREDENTIAL_IN_USE');

    await credentials.updateCredential({ credential: { name }, api_key: 'sk-replaced' });
    await configs.updateConfig({ config: { id }, update_mask: ['credential_name'] });
    await credentials.deleteCredential({ name });
    expect((await failure(credentials.getCredential({ name }))).reason).toBe('CREDENTIAL_NOT_FOUND');
  });

  it('are stored by UpsertPrimaryConfig and BulkAssignConfig', async () => {
    const { configs } = service();
    const { agent_id } = await newConfig();
    const upserted = await configs.upsertPrimaryConfig({ agent: { id: agent_id }, config: {}, api_key: 'sk-up' });
    expect(upserted.config?.api_key_state).toBe('API_KEY_STATE_SET');
    const other = await newConfig();
    const agents = [{ id: agent_id }, { id: other.agent_id }];
    const { results } = await configs.bulkAssignConfig({ agents, config: { temperature: 1 }, api_key: 'sk-bulk' });
    expect(results.map((r) => r.config?.api_key_state)).toEqual(['API_KEY_STATE_SET', 'API_KEY_STATE_SET']);
  });
});

describe.each([
  ['missing', '', 'is not set'],
  ['malformed', 'not-a-key', 'is malformed (key 1 is not 32 bytes in base64)'],
  ['malformed after a valid one', `${generateKey()},short`, 'is malformed (key 2 is not 32 bytes in base64)'],
])('an ENCRYPTION_KEY that is %s', (_, value, problem) => {
  const service = useService('embedded', { ENCRYPTION_KEY: value });

  it('does not prevent calls without keys, and is the reported reason for rejected keys', async () => {
    const { configs, credentials } = service();
    const { config } = await configs.getPrimaryConfig({ agent: { name: 'trader' } });
    const id = config?.id as number;
    const refused = await failure(configs.updateConfig({ config: { id }, api_key: 'sk-x' }));
    expect(refused).toMatchObject({ code: 9, reason: 'ENCRYPTION_NOT_CONFIGURED', metadata: { problem } });
    const credential = { name: unique('desk'), provider: 'openai' };
    const rejectedCredential = await failure(credentials.createCredential({ credential, api_key: 'sk-x' }));
    expect(rejectedCredential.reason).toBe('ENCRYPTION_NOT_CONFIGURED');
    expect((await configs.updateConfig({ config: { id, temperature: 0 } })).config?.temperature).toBe(0);
    expect((await configs.updateConfig({ config: { id }, clear_api_key: true })).config?.has_api_key_override).toBe(
      false,
    );
  });
});
