import { describe, expect, it } from 'vitest';
import { unique, useService } from '../../support/service.js';
import {
  type ConfigFields,
  configsOf,
  GPT4,
  getConfig,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  notFound,
  present,
} from './support.js';

// Failures of the original Python system, whose schema agentllm extends; agentllm must not repeat them. The numbers are
// those of section 5 of source-facts.md.
describe('the service, in contrast to the original system,', () => {
  const service = useService('embedded');

  describe('for failure 1 (several definitions of "primary" and duplicate rows by upserts)', () => {
    it('returns the same primary config from every method', async () => {
      const agent = await newAgent(service());
      await newConfig(service(), { priority: 0, enabled: false }, agent);
      await newConfig(service(), { priority: 9 }, agent);
      const primary = await newConfig(service(), { priority: 2 }, agent);
      await newConfig(service(), { priority: 2 }, agent);
      const ref = { id: agent.id };
      const { configs } = service();
      const single = await configs.getPrimaryConfig({ agent: ref });
      const batch = await configs.batchGetPrimaryConfigs({ agents: [ref] });
      const chain = await configs.validateConfig({ agent: ref });
      const upsert = await configs.upsertPrimaryConfig({ agent: ref, config: { top_p: 1 }, validate_only: true });
      const bulk = await configs.bulkAssignConfig({ agents: [ref], config: { top_p: 1 }, validate_only: true });
      expect([
        single.config?.id,
        batch.results[0]?.config?.id,
        chain.hops[0]?.config_id,
        upsert.config?.id,
        bulk.results[0]?.config?.id,
      ]).toEqual(Array(5).fill(primary.id));
    });

    it('adds no row by an upsert when the existing config is disabled', async () => {
      const { id, agent_id } = await newConfig(service(), { enabled: false });
      const { config, created } = await service().configs.upsertPrimaryConfig({
        agent: { id: agent_id },
        config: HAIKU,
      });
      expect([config?.id, created]).toEqual([id, false]);
      expect(await configsOf(service(), agent_id)).toHaveLength(1);
    });

    it('creates one row by concurrent upserts', async () => {
      const { id } = await newAgent(service());
      const upsert = () => service().configs.upsertPrimaryConfig({ agent: { id }, config: GPT4 });
      await Promise.all([upsert(), upsert(), upsert(), upsert()]);
      expect(await configsOf(service(), id)).toHaveLength(1);
    });
  });

  describe('for failure 2 (fields that cannot be cleared, lost prices, 0 as unset, constant updated_at)', () => {
    it('clears the fields in a mask', async () => {
      const { id } = await newConfig(service(), { max_tokens: 5, top_p: 0.5, metadata_json: '{}' });
      const update_mask = ['max_tokens', 'top_p', 'metadata_json', 'temperature'];
      await service().configs.updateConfig({ config: { id }, update_mask });
      const config = await getConfig(service(), id);
      expect([config.max_tokens, config.top_p, config.metadata_json, config.temperature]).toEqual(
        Array(4).fill(undefined),
      );
    });

    it('keeps custom prices when a config is saved again', async () => {
      const { id, agent_id } = await newConfig(service(), {
        cost_per_1k_input_tokens: 7,
        cost_per_1k_output_tokens: 8,
      });
      await service().configs.upsertPrimaryConfig({ agent: { id: agent_id }, config: { ...GPT4, temperature: 1 } });
      await service().configs.bulkAssignConfig({ agents: [{ id: agent_id }], config: HAIKU });
      expect(await getConfig(service(), id)).toMatchObject({
        cost_per_1k_input_tokens: 7,
        cost_per_1k_output_tokens: 8,
        price_given: true,
      });
    });

    it('stores a cost of exactly 0 as a price', async () => {
      const { id } = await newConfig(service());
      const costs = { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0 };
      const { config } = await service().configs.updateConfig({ config: { id, ...costs } });
      expect(config).toMatchObject({ ...costs, price_given: true });
    });

    it('changes updated_at in every write', async () => {
      const before = await newConfig(service());
      await expect
        .poll(async () => {
          const { config } = await service().configs.updateConfig({ config: { id: before.id, temperature: 0.7 } });
          return present(config?.updated_at).getTime() - present(before.updated_at).getTime();
        })
        .toBeGreaterThan(0);
    });
  });

  describe('for failure 3 (fallbacks that are never validated)', () => {
    const pairs: [string, ConfigFields, string][] = [
      ['a fallback without a model', { fallback_provider: 'claude' }, 'config.fallback_model'],
      ['a fallback without a provider', { fallback_model: 'gpt-4o' }, 'config.fallback_provider'],
      ['an unknown provider', { fallback_provider: 'x', fallback_model: 'y' }, 'config.fallback_provider'],
      ['an unknown model', { fallback_provider: 'claude', fallback_model: 'y' }, 'config.fallback_model'],
      ['the primary itself', { fallback_provider: 'OPENAI', fallback_model: 'gpt-4' }, 'config.fallback_model'],
    ];
    it.each(pairs)('rejects %s in every method', async (_, pair, field) => {
      const { id, agent_id } = await newConfig(service());
      const { configs } = service();
      const agent = { id: agent_id };
      for (const call of [
        () => configs.createConfig({ agent, config: { ...GPT4, ...pair } }),
        () => configs.updateConfig({ config: { id, ...pair } }),
        () => configs.upsertPrimaryConfig({ agent, config: pair }),
        () => configs.bulkAssignConfig({ agents: [agent], config: pair }),
      ]) {
        const error = await invalid(call());
        expect(error.fields.join()).toMatch(field === 'config.fallback_model' ? /fallback_(model|provider)/ : field);
      }
      expect(await configsOf(service(), agent_id)).toHaveLength(1);
      expect((await getConfig(service(), id)).fallback_model).toBeUndefined();
    });
  });

  describe('for failure 4 (zeros replaced by defaults and limits of models that are not enforced)', () => {
    it('stores and sends temperature 0 and top_p 0', async () => {
      const { id } = await newConfig(service(), { temperature: 0, top_p: 0 });
      expect(await getConfig(service(), id)).toMatchObject({ temperature: 0, top_p: 0 });
      const { hops } = await service().configs.validateConfig({ id });
      expect(hops[0]?.parameters.map(({ name, value_json }) => [name, value_json]).sort()).toEqual([
        ['temperature', '0'],
        ['top_p', '0'],
      ]);
    });

    it('enforces the maximum of 1.0 for Claude and the output limits', async () => {
      const { id } = await newConfig(service());
      const agent = { id: (await newAgent(service())).id };
      const invalidConfig = { ...HAIKU, temperature: 1.1, max_tokens: 4097 };
      const fields = ['config.temperature', 'config.max_tokens'];
      await invalid(service().configs.createConfig({ agent, config: invalidConfig }), ...fields);
      await invalid(service().configs.updateConfig({ config: { id, ...invalidConfig } }), ...fields);
      await invalid(service().configs.upsertPrimaryConfig({ agent, config: invalidConfig }), ...fields);
      await invalid(service().configs.bulkAssignConfig({ agents: [agent], config: invalidConfig }), ...fields);
    });
  });

  describe('for failure 5 (bulk assignment that is not atomic and hides errors)', () => {
    it('stores nothing when one agent is missing', async () => {
      const agents = [await newAgent(service()), await newAgent(service())].map(({ id }) => ({ id }));
      const call = service().configs.bulkAssignConfig({ agents: [...agents, { name: unique('none') }], config: GPT4 });
      await notFound(call, 'AGENT_NOT_FOUND');
      for (const { id } of agents) expect(await configsOf(service(), id)).toEqual([]);
    });

    it('returns the errors when every agent fails', async () => {
      const agents = [{ name: unique('none') }, { id: 2_147_483_647 }];
      await notFound(service().configs.bulkAssignConfig({ agents, config: GPT4 }), 'AGENT_NOT_FOUND');
      const { results } = await service().configs.bulkAssignConfig({ agents, config: GPT4, allow_partial: true });
      expect(results.map((result) => result.status?.code)).toEqual([5, 5]);
    });
  });

  describe('for failure 10 (a planted base_url that receives the key)', () => {
    it('does not use metadata in requests', async () => {
      const metadata_json = '{"base_url":"https://evil.example","api_key":"x","default_headers":{"a":"b"}}';
      const planted = await newConfig(service(), { metadata_json });
      const plain = await newConfig(service());
      const chain = async (id: number) =>
        (await service().configs.validateConfig({ id })).hops.map((hop) => hop.parameters);
      expect(await chain(planted.id)).toEqual(await chain(plain.id));
      expect(JSON.stringify(await chain(planted.id))).not.toContain('evil');
      const { provider } = await service().providers.getProvider({ name: 'openai' });
      expect(provider?.base_url).toBe('https://api.openai.com/v1');
    });

    it.each(['base_url', 'metadata_json.base_url', 'extra_params.base_url'])('has no field %s', async (path) => {
      const { id } = await newConfig(service());
      const error = await invalid(service().configs.updateConfig({ config: { id }, update_mask: [path] }));
      expect(JSON.stringify(error.violations)).toContain(path);
    });
  });

  describe('for failure 11 (one query per agent and paging without an order)', () => {
    it('returns each agent once in id order while agents are deleted', async () => {
      const created = [];
      for (let i = 0; i < 6; i += 1) created.push(await newAgent(service()));
      const [deleted, ...kept] = created.map((agent) => agent.id);
      const seen: number[] = [];
      let page_token = '';
      do {
        const page = await service().configs.batchGetPrimaryConfigs({ page_size: 5, page_token });
        seen.push(...page.results.map((result) => result.agent_id));
        if (seen.includes(present(deleted)) && seen.length < 1000) {
          await service()
            .agents.deleteAgent({ agent: { id: present(deleted) } })
            .catch(() => undefined);
        }
        page_token = page.next_page_token;
      } while (page_token !== '');
      expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
      expect(seen).toEqual(expect.arrayContaining(kept));
    });
  });
});
