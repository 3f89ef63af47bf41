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

/* A resource can be sent as it was read: only changed values are validated, the others cause findings. */

describe('a resource that is sent as it was read', () => {
  const service = useService('embedded');

  /** A config with a disabled provider and a fallback model that is not in the catalogue. */
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

  it('is accepted for a config with or without a mask, with findings for values that are no longer valid', async () => {
    const read = await staleConfig();
    for (const update_mask of [[], ['*'], ['provider', 'model_name', 'fallback_provider', 'temperature']]) {
      const config = { ...(await getConfig(service(), read.id)), temperature: 0.25 };
      const validated = await service().configs.validateConfig({ config, update_mask });
      expect(validated.acceptable).toBe(true);
      const response = await service().configs.updateConfig({ config, update_mask });
      expect(response.config).toMatchObject({ provider: read.provider, temperature: 0.25, price_given: false });
      expect(findingOf(response.findings, 'PROVIDER_DISABLED').severity).toBe('SEVERITY_ERROR');
      expect(reasonsOf(response.findings)).toContain('UNKNOWN_MODEL');
    }
  });

  it('is rejected for values that change to invalid ones', async () => {
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

  it('is accepted by UpsertPrimaryConfig and BulkAssignConfig', async () => {
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

  it('keeps price_given, while a cost of 0 that is sent alone is a price', async () => {
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
    const response = await service().agents.updateAgent({ agent });
    expect(response.agent).toMatchObject({ ...fields, description: 'x' });
    expect(reasonsOf(response.findings)).toEqual(expect.arrayContaining(['PROVIDER_DISABLED', 'NO_ENABLED_CONFIG']));
    const renamed = { ...agent, etag: '', llm_provider: 'nobody' };
    await invalid(service().agents.updateAgent({ agent: renamed }), 'agent.llm_provider');
  });

  it('is accepted for built-in and custom providers and for models', async () => {
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

  it('does not accept a stale etag, like the write', async () => {
    const { id, etag } = await newConfig(service(), GPT4);
    await service().configs.updateConfig({ config: { id, temperature: 0.1 } });
    const config = { id, etag, temperature: 0.2 };
    const response = await service().configs.validateConfig({ config });
    expect(response.acceptable).toBe(false);
    expect(findingOf(response.findings, 'INVALID_FIELD')).toMatchObject({
      field: 'config.etag',
      message: expect.stringContaining('has changed since this etag was read'),
    });
    await refused(service().configs.updateConfig({ config }), status.ABORTED, 'STALE_ETAG');
    const { etag: current } = await getConfig(service(), id);
    expect((await service().configs.validateConfig({ config: { ...config, etag: current } })).acceptable).toBe(true);
  });
});

describe('a call with validate_only and a used request_id', () => {
  const service = useService('embedded');

  it('is rejected for another request, and returns the stored response for the same one', async () => {
    const request_id = randomUUID();
    const { id } = await newConfig(service(), GPT4);
    const config = { id, temperature: 0.1 };
    const first = await service().configs.updateConfig({ config, request_id });
    expect(await service().configs.updateConfig({ config, request_id, validate_only: true })).toEqual(first);
    const other = { config: { id, temperature: 0.2 }, request_id, validate_only: true };
    await refused(service().configs.updateConfig(other), status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
    const agent = { name: unique('agent'), agent_type: 'x' };
    const created = await service().agents.createAgent({ agent, request_id });
    expect(await service().agents.createAgent({ agent, request_id, validate_only: true })).toEqual(created);
    const renamed = { agent: { ...agent, name: unique('agent') }, request_id, validate_only: true };
    await refused(service().agents.createAgent(renamed), status.INVALID_ARGUMENT, 'REQUEST_ID_REUSED');
    // A call with validate_only does not use up the request_id.
    const unused = { config: { id, temperature: 0.3 }, request_id: randomUUID() };
    await service().configs.updateConfig({ ...unused, validate_only: true });
    await service().configs.updateConfig({ ...unused, config: { id, temperature: 0.4 } });
    expect((await getConfig(service(), id)).temperature).toBe(0.4);
  });
});
