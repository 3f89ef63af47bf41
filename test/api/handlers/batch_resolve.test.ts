import { describe, expect, it } from 'vitest';
import { unique, useService } from '../../support/service.js';
import { GPT4, HAIKU, invalid, newAgent, newConfig, present, statusOf } from './support.js';

describe('BatchResolveConfigs', () => {
  const service = useService('embedded');

  it('returns the result of ResolveConfig for each agent, in request order and at one revision', async () => {
    const [one, two] = [await newConfig(service(), HAIKU), await newConfig(service(), GPT4)];
    const agents = [{ id: two.agent_id }, { name: one.agent_name }, { id: two.agent_id }];
    for (const provider_down of [[], ['claude']]) {
      const { results, revision } = await service().configs.batchResolveConfigs({ agents, provider_down });
      expect(results.map(({ agent_id }) => agent_id)).toEqual([two.agent_id, one.agent_id, two.agent_id]);
      for (const [at, agent] of agents.entries()) {
        const single = await service().configs.resolveConfig({ agent, provider_down });
        expect(results[at]?.resolved).toEqual(single.resolved);
        expect(results[at]?.agent_name).toBe(present(single.resolved).agent_name);
        expect(revision).toBe(single.revision);
      }
    }
  });

  it('returns a status for an agent that has no resolution', async () => {
    const idle = await newAgent(service(), { is_active: false });
    const empty = await newAgent(service(), { llm_provider: '', llm_model: '' });
    const agents = [{ name: unique('nobody') }, { id: idle.id }, { id: empty.id }, { name: 'trader' }];
    const { results } = await service().configs.batchResolveConfigs({ agents });
    const reasons = results.map(({ status, resolved }) => (resolved ? 'OK' : statusOf(status).reason));
    expect(reasons).toEqual(['AGENT_NOT_FOUND', 'AGENT_INACTIVE', 'NO_ENABLED_CONFIG', 'OK']);
    expect(results.map(({ agent_name }) => agent_name)).toEqual([agents[0]?.name, idle.name, empty.name, 'trader']);
  });

  it('returns all agents in pages of at most 200', async () => {
    const { agents } = await service().agents.listAgents({ page_size: 1000 });
    const names: string[] = [];
    let page_token = '';
    do {
      const page = await service().configs.batchResolveConfigs({ page_size: 5, page_token });
      expect(page.results.length).toBeLessThanOrEqual(5);
      names.push(...page.results.map(({ agent_name }) => agent_name));
      page_token = page.next_page_token;
    } while (page_token !== '');
    expect(names).toEqual(agents.map(({ name }) => name));
    for (let more = agents.length; more < 205; more++) await newAgent(service());
    const most = await service().configs.batchResolveConfigs({ page_size: 1000 });
    expect(most.results).toHaveLength(200);
    expect(most.next_page_token).not.toBe('');
  });

  it('returns a violation for every invalid field', async () => {
    const call = service().configs.batchResolveConfigs({
      agents: [{ id: 0 }, { name: '' }],
      provider_down: ['opnai'],
      page_size: -1,
    });
    await invalid(call, 'agents[0].id', 'agents[1].name', 'provider_down[0]', 'page_size');
    const many = Array.from({ length: 201 }, () => ({ name: 'trader' }));
    await invalid(service().configs.batchResolveConfigs({ agents: many }), 'agents');
    const down = Array.from({ length: 101 }, () => 'openai');
    await invalid(service().configs.batchResolveConfigs({ provider_down: down }), 'provider_down');
  });
});

describe('ListConfigs with include_fallbacks', () => {
  const service = useService('embedded');

  it('returns configs whose fallback has the provider and model', async () => {
    const agent = await newAgent(service());
    const fallback = { fallback_provider: 'claude', fallback_model: HAIKU.model_name };
    const first = await newConfig(service(), { ...GPT4, ...fallback }, agent);
    const second = await newConfig(service(), HAIKU, agent);
    await newConfig(service(), GPT4, agent);
    const list = async (more: object) =>
      (await service().configs.listConfigs({ agent: { id: agent.id }, ...more })).configs.map(({ id }) => id);
    expect(await list({ provider: 'anthropic' })).toEqual([second.id]);
    expect(await list({ provider: 'anthropic', include_fallbacks: true })).toEqual([first.id, second.id]);
    const filter = { provider: 'claude', model_name: HAIKU.model_name, include_fallbacks: true };
    expect(await list(filter)).toEqual([first.id, second.id]);
    // Provider and model must match the same hop.
    expect(await list({ ...filter, model_name: 'gpt-4' })).toEqual([]);
    expect(await list({ model_name: HAIKU.model_name, include_fallbacks: true })).toEqual([first.id, second.id]);
  });
});
