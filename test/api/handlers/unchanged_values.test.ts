import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { unique, useService } from '../../support/service.js';
import {
  findingOf,
  GPT4,
  getAgent,
  getConfig,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  newModel,
  newProvider,
  present,
  reasonsOf,
  refused,
  status,
} from './support.js';

/* What was read can be sent back: only what changes is checked, the rest is findings. */

describe('a resource that is sent back as it was read', () => {
  const service = useService('embedded');

  /** A config whose provider is disabled and whose fallback's model has left the catalogue. */
  async function staleConfig() {
    const provider = await newProvider(service(), { allow_unknown_models: false });
    const model = await newModel(service(), { provider: provider.name });
    const other = await newProvider(service(), { allow_unknown_models: false });
    const fallback = { fallback_provider: other.name, fallback_model: unique('model') };
    const config = { provider: provider.name, model_name: model.name, ...fallback };
    const { id } = await newConfig(service(), config, undefined, true);
    await service().providers.updateProvider({ provider: { name: provider.name, enabled: false } });
    return getConfig(service(), id);
  }

  it('is accepted for a config, with or without a mask, and what is stale is a finding', async () => {
    const read = await staleConfig();
    for (const update_mask of [[], ['*'], ['provider', 'model_name', 'fallback_provider', 'temperature']]) {
      const config = { ...(await getConfig(service(), read.id)), temperature: 0.25 };
      const validated = await service().configs.validateConfig({ config, update_mask });
      expect(validated.acceptable).toBe(true);
      const answer = await service().configs.updateConfig({ config, update_mask });
      expect(answer.config).toMatchObject({ provider: read.provider, temperature: 0.25, price_given: false });
      expect(findingOf(answer.findings, 'PROVIDER_DISABLED').severity).toBe('SEVERITY_ERROR');
      expect(reasonsOf(answer.findings)).toContain('UNKNOWN_MODEL');
    }
  });

  it('is refused for what does change', async () => {
    const read = await staleConfig();
    const config = { ...read, model_name: 'other', fallback_model: 'another' };
    await invalid(service().configs.updateConfig({ config }), 'config.model_name', 'config.fallback_model');
    const validated = await service().configs.validateConfig({ config });
    expect([validated.acceptable, validated.findings.map(({ field }) => field).sort()]).toEqual([
      false,
      ['config.fallback_model', 'config.model_name'],
    ]);
    const moved = { ...GPT4, fallback_provider: read.provider, fallback_model: read.model_name };
    await invalid(service().configs.updateConfig({ config: { id: read.id, ...moved } }), 'config.fallback_provider');
  });

  it('is accepted by an upsert and by a bulk change', async () => {
    const read = await staleConfig();
    const agent = { id: read.agent_id };
    const upserted = await service().configs.upsertPrimaryConfig({ agent, config: { ...read, max_tokens: 7 } });
    expect(present(upserted.config)).toMatchObject({ id: read.id, max_tokens: 7 });
    const { etag: _, ...config } = read;
    const bulk = await service().configs.bulkAssignConfig({ agents: [agent], config: { ...config, max_tokens: 8 } });
    expect(bulk.results[0]?.config).toMatchObject({ id: read.id, max_tokens: 8 });
    const agents = [agent, { id: (await newAgent(service())).id }];
    await invalid(service().configs.bulkAssignConfig({ agents, config }), 'config.provider', 'config.fallback_model');
  });

  it('keeps the meaning of a cost that is sent: 0 is a price', async () => {
    const read = await newConfig(service(), HAIKU);
    const whole = await service().configs.updateConfig({ config: read });
    expect(present(whole.config).price_given).toBe(false);
    const config = { id: read.id, cost_per_1k_input_tokens: 0 };
    expect(present((await service().configs.updateConfig({ config })).config).price_given).toBe(true);
  });

  it('is accepted for an agent whose default provider is disabled', async () => {
    const provider = await newProvider(service());
    const fields = { llm_provider: provider.name, llm_model: 'any' };
    const { id } = await newAgent(service(), fields);
    await service().providers.updateProvider({ provider: { name: provider.name, enabled: false } });
    const agent = { ...(await getAgent(service(), id)), description: 'x' };
    const answer = await service().agents.updateAgent({ agent });
    expect(answer.agent).toMatchObject({ ...fields, description: 'x' });
    expect(reasonsOf(answer.findings)).toEqual(expect.arrayContaining(['PROVIDER_DISABLED', 'NO_ENABLED_CONFIG']));
    const renamed = { ...agent, etag: '', llm_provider: 'nobody' };
    await invalid(service().agents.updateAgent({ agent: renamed }), 'agent.llm_provider');
  });

  it('is accepted for built-in and own providers, models and credentials', async () => {
    const { providers, credentials } = service();
    for (const name of ['openai', (await newProvider(service())).name]) {
      const provider = present((await providers.getProvider({ name })).provider);
      const updated = present((await providers.updateProvider({ provider: { ...provider, enabled: true } })).provider);
      expect(updated).toMatchObject({ base_url: provider.base_url, display_name: provider.display_name });
    }
    const moved = { name: 'openai', base_url: 'https://elsewhere.example.com/v1' };
    await refused(providers.updateProvider({ provider: moved }), status.FAILED_PRECONDITION, 'BUILT_IN_PROVIDER');
    const model = present((await providers.getModel({ provider: 'openai', name: 'gpt-4' })).model);
    const price = present((await providers.updateModel({ model })).model).price;
    expect(price).toEqual(model.price);
    expect((await credentials.listCredentials({})).credentials).toEqual([]);
  });
});

describe('ValidateConfig', () => {
  const service = useService('embedded');

  it('does not accept a stale etag, as the write does not', async () => {
    const { id, etag } = await newConfig(service(), GPT4);
    await service().configs.updateConfig({ config: { id, temperature: 0.1 } });
    const config = { id, etag, temperature: 0.2 };
    const answer = await service().configs.validateConfig({ config });
    expect(answer.acceptable).toBe(false);
    expect(findingOf(answer.findings, 'INVALID_FIELD')).toMatchObject({
      field: 'config.etag',
      message: expect.stringContaining('has changed since this etag was read'),
    });
    await refused(service().configs.updateConfig({ config }), status.ABORTED, 'STALE_ETAG');
    const { etag: current } = await getConfig(service(), id);
    expect((await service().configs.validateConfig({ config: { ...config, etag: current } })).acceptable).toBe(true);
  });
});

describe('validate_only with a request_id that was used', () => {
  const service = useService('embedded');

  it('is refused for another request, and answered for the same one', async () => {
    const request_id = randomUUID();
    const { id } = await newConfig(service(), GPT4);
    const config = { id, temperature: 0.1 };
    const first = await service().configs.updateConfig({ config, request_id });
    expect(await service().configs.updateConfig({ config, request_id, validate_only: true })).toEqual(first);
    const other = { config: { id, temperature: 0.2 }, request_id, validate_only: true };
    await refused(service().configs.updateConfig(other), status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
    const agent = { name: unique('agent'), agent_type: 'x' };
    const made = await service().agents.createAgent({ agent, request_id });
    expect(await service().agents.createAgent({ agent, request_id, validate_only: true })).toEqual(made);
    const renamed = { agent: { ...agent, name: unique('agent') }, request_id, validate_only: true };
    await refused(service().agents.createAgent(renamed), status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
    // A rehearsal uses up no id.
    const unused = { config: { id, temperature: 0.3 }, request_id: randomUUID() };
    await service().configs.updateConfig({ ...unused, validate_only: true });
    await service().configs.updateConfig({ ...unused, config: { id, temperature: 0.4 } });
    expect((await getConfig(service(), id)).temperature).toBe(0.4);
  });
});
