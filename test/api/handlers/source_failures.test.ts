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

// The numbers are those of source-facts.md, section 5: where the source failed, and ours must not.
describe('failures of the source', () => {
  const service = useService('embedded');

  describe('1: three definitions of "primary", and rows doubled by upserts', () => {
    it('gives one primary, whichever method is asked', async () => {
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

    it('adds no row when the existing one is disabled', async () => {
      const { id, agent_id } = await newConfig(service(), { enabled: false });
      const { config, created } = await service().configs.upsertPrimaryConfig({
        agent: { id: agent_id },
        config: HAIKU,
      });
      expect([config?.id, created]).toEqual([id, false]);
      expect(await configsOf(service(), agent_id)).toHaveLength(1);
    });

    it('makes one row of upserts at once', async () => {
      const { id } = await newAgent(service());
      const upsert = () => service().configs.upsertPrimaryConfig({ agent: { id }, config: GPT4 });
      await Promise.all([upsert(), upsert(), upsert(), upsert()]);
      expect(await configsOf(service(), id)).toHaveLength(1);
    });
  });

  describe('2: null clears nothing, prices are lost, 0 means unset, updated_at stands still', () => {
    it('clears a field', async () => {
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

    it('takes a cost of exactly 0 for a price', async () => {
      const { id } = await newConfig(service());
      const costs = { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0 };
      const { config } = await service().configs.updateConfig({ config: { id, ...costs } });
      expect(config).toMatchObject({ ...costs, price_given: true });
    });

    it('moves updated_at', async () => {
      const before = await newConfig(service());
      await expect
        .poll(async () => {
          const { config } = await service().configs.updateConfig({ config: { id: before.id, temperature: 0.7 } });
          return present(config?.updated_at).getTime() - present(before.updated_at).getTime();
        })
        .toBeGreaterThan(0);
    });
  });

  describe('3: fallback pairs never validated', () => {
    const pairs: [string, ConfigFields, string][] = [
      ['half a pair', { fallback_provider: 'claude' }, 'config.fallback_model'],
      ['the other half', { fallback_model: 'gpt-4o' }, 'config.fallback_provider'],
      ['an unknown provider', { fallback_provider: 'x', fallback_model: 'y' }, 'config.fallback_provider'],
      ['an unknown model', { fallback_provider: 'claude', fallback_model: 'y' }, 'config.fallback_model'],
      ['the primary itself', { fallback_provider: 'OPENAI', fallback_model: 'gpt-4' }, 'config.fallback_model'],
    ];
    it.each(pairs)('refuses %s on every way in', async (_, pair, field) => {
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

  describe("4: zeros that become defaults, and models' limits that nobody holds", () => {
    it('stores and sends temperature 0 and top_p 0', async () => {
      const { id } = await newConfig(service(), { temperature: 0, top_p: 0 });
      expect(await getConfig(service(), id)).toMatchObject({ temperature: 0, top_p: 0 });
      const { hops } = await service().configs.validateConfig({ id });
      expect(hops[0]?.parameters.map(({ name, value_json }) => [name, value_json]).sort()).toEqual([
        ['temperature', '0'],
        ['top_p', '0'],
      ]);
    });

    it("holds Claude's maximum of 1.0 and the models' own limits", async () => {
      const { id } = await newConfig(service());
      const agent = { id: (await newAgent(service())).id };
      const bad = { ...HAIKU, temperature: 1.1, max_tokens: 4097 };
      const fields = ['config.temperature', 'config.max_tokens'];
      await invalid(service().configs.createConfig({ agent, config: bad }), ...fields);
      await invalid(service().configs.updateConfig({ config: { id, ...bad } }), ...fields);
      await invalid(service().configs.upsertPrimaryConfig({ agent, config: bad }), ...fields);
      await invalid(service().configs.bulkAssignConfig({ agents: [agent], config: bad }), ...fields);
    });
  });

  describe('5: bulk assignment that is not atomic and swallows errors', () => {
    it('stores nothing when one agent is missing', async () => {
      const agents = [await newAgent(service()), await newAgent(service())].map(({ id }) => ({ id }));
      const call = service().configs.bulkAssignConfig({ agents: [...agents, { name: unique('none') }], config: GPT4 });
      await notFound(call, 'AGENT_NOT_FOUND');
      for (const { id } of agents) expect(await configsOf(service(), id)).toEqual([]);
    });

    it('calls nothing a success that is all bad', async () => {
      const agents = [{ name: unique('none') }, { id: 2_147_483_647 }];
      await notFound(service().configs.bulkAssignConfig({ agents, config: GPT4 }), 'AGENT_NOT_FOUND');
      const { results } = await service().configs.bulkAssignConfig({ agents, config: GPT4, allow_partial: true });
      expect(results.map((result) => result.status?.code)).toEqual([5, 5]);
    });
  });

  describe('10: a planted base_url that receives the key', () => {
    it('keeps metadata to itself', async () => {
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

    it.each(['base_url', 'metadata_json.base_url', 'extra_params.base_url'])(
      'has no field %s to set it',
      async (path) => {
        const { id } = await newConfig(service());
        const error = await invalid(service().configs.updateConfig({ config: { id }, update_mask: [path] }));
        expect(JSON.stringify(error.violations)).toContain(path);
      },
    );
  });

  describe('11: a query per agent, and paging without an order', () => {
    it('gives the primaries of all agents in one call, each once and in a stable order, while agents are deleted', async () => {
      const made = [];
      for (let i = 0; i < 6; i += 1) made.push(await newAgent(service()));
      const [doomed, ...kept] = made.map((agent) => agent.id);
      const seen: number[] = [];
      let page_token = '';
      do {
        const page = await service().configs.batchGetPrimaryConfigs({ page_size: 5, page_token });
        seen.push(...page.results.map((result) => result.agent_id));
        if (seen.includes(present(doomed)) && seen.length < 1000) {
          await service()
            .agents.deleteAgent({ agent: { id: present(doomed) } })
            .catch(() => undefined);
        }
        page_token = page.next_page_token;
      } while (page_token !== '');
      expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
      expect(seen).toEqual(expect.arrayContaining(kept));
    });
  });
});
