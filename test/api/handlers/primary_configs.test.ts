import { describe, expect, it } from 'vitest';
import { unique, useService } from '../../support/service.js';
import {
  configsOf,
  findingOf,
  GPT4,
  getAgent,
  getConfig,
  HAIKU,
  invalid,
  newAgent,
  newConfig,
  notFound,
  present,
  reasonsOf,
  refused,
  stale,
  status,
  statusOf,
} from './support.js';

describe.each(['embedded', 'postgres'] as const)('the primary config on %s', (backend) => {
  const service = useService(backend);

  const primaryOf = async (id: number) => {
    const { config } = await service().configs.getPrimaryConfig({ agent: { id } });
    return present(config);
  };

  describe('GetPrimaryConfig', () => {
    it('returns the first enabled config by priority and id', async () => {
      const agent = await newAgent(service());
      await newConfig(service(), { priority: -9, enabled: false }, agent);
      const tied = await newConfig(service(), { priority: 3 }, agent);
      await newConfig(service(), { priority: 3 }, agent);
      expect((await primaryOf(agent.id)).id).toBe(tied.id);
      const { config } = await service().configs.getPrimaryConfig({ agent: { name: agent.name } });
      expect(config).toEqual(tied);
      const first = await newConfig(service(), { priority: 2 }, agent);
      expect((await primaryOf(agent.id)).id).toBe(first.id);
      await service().configs.updateConfig({ config: { id: first.id, enabled: false } });
      expect((await primaryOf(agent.id)).id).toBe(tied.id);
      await service().configs.updateConfig({ config: { id: first.id, enabled: true, priority: 99 } });
      expect((await primaryOf(agent.id)).id).toBe(tied.id);
      await service().configs.deleteConfig({ id: tied.id });
      expect((await primaryOf(agent.id)).id).toBeGreaterThan(tied.id);
    });

    it('distinguishes an unknown agent from an agent without an enabled config', async () => {
      const absent = service().configs.getPrimaryConfig({ agent: { name: unique('none') } });
      await notFound(absent, 'AGENT_NOT_FOUND');
      const agent = await newAgent(service(), { llm_provider: 'claude', llm_model: 'claude-3-haiku-20240307' });
      const noConfig = await notFound(
        service().configs.getPrimaryConfig({ agent: { id: agent.id } }),
        'NO_ENABLED_CONFIG',
      );
      expect(noConfig.message).toContain(`"${agent.name}"`);
      expect(noConfig.message).toContain('claude/claude-3-haiku-20240307');
      await newConfig(service(), { enabled: false }, agent);
      await notFound(service().configs.getPrimaryConfig({ agent: { id: agent.id } }), 'NO_ENABLED_CONFIG');
    });

    it('requires an agent', async () => {
      await invalid(service().configs.getPrimaryConfig({}), 'agent');
      await invalid(service().configs.getPrimaryConfig({ agent: {} }), 'agent');
    });

    it('returns the default config of a seeded agent', async () => {
      const { config } = await service().configs.getPrimaryConfig({ agent: { name: 'neutral_analyst' } });
      expect(config).toMatchObject({ ...GPT4, temperature: 0.7, max_tokens: 2000, enabled: true });
    });
  });

  describe('BatchGetPrimaryConfigs', () => {
    it('returns results in request order, with a status for each agent without a config', async () => {
      const config = await newConfig(service());
      const bare = await newAgent(service());
      const name = unique('none');
      const { results, revision } = await service().configs.batchGetPrimaryConfigs({
        agents: [
          { name },
          { id: bare.id },
          { name: config.agent_name },
          { id: 2_147_483_647 },
          { id: config.agent_id },
        ],
      });
      expect(results.map((result) => [result.agent_id, result.agent_name])).toEqual([
        [0, name],
        [bare.id, bare.name],
        [config.agent_id, config.agent_name],
        [2_147_483_647, ''],
        [config.agent_id, config.agent_name],
      ]);
      expect(results.map((result) => result.config)).toEqual([undefined, undefined, config, undefined, config]);
      const notFoundStatus = { code: status.NOT_FOUND, domain: 'agentllm' };
      expect(statusOf(results[0]?.status)).toMatchObject({ ...notFoundStatus, reason: 'AGENT_NOT_FOUND' });
      expect(statusOf(results[1]?.status)).toMatchObject({ ...notFoundStatus, reason: 'NO_ENABLED_CONFIG' });
      expect(statusOf(results[3]?.status)).toMatchObject({ ...notFoundStatus, reason: 'AGENT_NOT_FOUND' });
      expect(revision).toBeGreaterThanOrEqual(config.revision);
    });

    it('returns for each agent the result of GetPrimaryConfig', async () => {
      const { agents } = await service().agents.listAgents({ page_size: 30 });
      const { results } = await service().configs.batchGetPrimaryConfigs({ agents: agents.map(({ id }) => ({ id })) });
      for (const [i, { id }] of agents.entries()) {
        const single = await service()
          .configs.getPrimaryConfig({ agent: { id } })
          .catch(() => undefined);
        expect(results[i]?.config).toEqual(single?.config);
      }
    });

    it('returns all agents in pages by id', async () => {
      for (let i = 0; i < 3; i += 1) await newAgent(service());
      const seen: number[] = [];
      let page_token = '';
      do {
        const page = await service().configs.batchGetPrimaryConfigs({ page_size: 7, page_token });
        expect(page.results.length).toBeLessThanOrEqual(7);
        seen.push(...page.results.map((result) => result.agent_id));
        page_token = page.next_page_token;
      } while (page_token !== '');
      const { agents } = await service().agents.listAgents({ page_size: 1000 });
      expect(seen).toEqual(agents.map((agent) => agent.id));
      const garbage = service().configs.batchGetPrimaryConfigs({ page_token: 'garbage' });
      await refused(garbage, status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
      await invalid(service().configs.batchGetPrimaryConfigs({ page_size: -1 }), 'page_size');
    });

    it('accepts at most 1000 agents, and returns a violation for every invalid reference', async () => {
      const agents = Array.from({ length: 1000 }, () => ({ name: 'trader' }));
      const { results } = await service().configs.batchGetPrimaryConfigs({ agents });
      expect(results).toHaveLength(1000);
      await invalid(service().configs.batchGetPrimaryConfigs({ agents: [...agents, { name: 'trader' }] }), 'agents');
      const error = await invalid(service().configs.batchGetPrimaryConfigs({ agents: [{ id: 1 }, {}, { id: 0 }] }));
      expect(error.fields.join()).toMatch(/agents\[1\]/);
      expect(error.fields.join()).toMatch(/agents\[2\]/);
    });
  });

  describe('UpsertPrimaryConfig', () => {
    it('changes only the given fields of the primary config', async () => {
      const agent = await newAgent(service());
      await newConfig(service(), { enabled: false, priority: -1 }, agent);
      const primary = await newConfig(service(), { max_tokens: 50, metadata_json: '{}' }, agent);
      const other = await newConfig(service(), {}, agent);
      const { config, created, revision } = await service().configs.upsertPrimaryConfig({
        agent: { name: agent.name },
        config: { temperature: 0 },
      });
      expect(created).toBe(false);
      expect(config).toMatchObject({ id: primary.id, temperature: 0, max_tokens: 50, metadata_json: '{}', revision });
      expect(await configsOf(service(), agent.id)).toHaveLength(3);
      expect(await getConfig(service(), other.id)).toEqual(other);
      expect(await primaryOf(agent.id)).toEqual(config);
    });

    it('enables the first disabled config by priority when none is enabled', async () => {
      const agent = await newAgent(service());
      await newConfig(service(), { enabled: false, priority: 5 }, agent);
      const first = await newConfig(service(), { enabled: false, priority: 4 }, agent);
      const { config, created } = await service().configs.upsertPrimaryConfig({
        agent: { id: agent.id },
        config: { max_tokens: 9 },
      });
      expect(created).toBe(false);
      expect(config).toMatchObject({ id: first.id, enabled: true, max_tokens: 9 });
      expect(await configsOf(service(), agent.id)).toHaveLength(2);
      expect((await primaryOf(agent.id)).id).toBe(first.id);
    });

    it('enables the config even when the mask contains only other fields', async () => {
      const { id, agent_id } = await newConfig(service(), { enabled: false });
      const { config } = await service().configs.upsertPrimaryConfig({
        agent: { id: agent_id },
        config: { max_tokens: 9, temperature: 2 },
        update_mask: ['max_tokens'],
      });
      expect(config).toMatchObject({ id, enabled: true, max_tokens: 9, temperature: 0.7 });
    });

    it('creates a config with the defaults of CreateConfig when the agent has none', async () => {
      const { id } = await newAgent(service());
      const { config, created, findings } = await service().configs.upsertPrimaryConfig({
        agent: { id },
        config: HAIKU,
      });
      expect(created).toBe(true);
      expect(config).toMatchObject({ ...HAIKU, agent_id: id, temperature: 0.7, enabled: true });
      expect(findingOf(findings, 'PARAMETER_REQUIRED').field).toBe('config.max_tokens');
      await invalid(
        service().configs.upsertPrimaryConfig({ agent: { id: (await newAgent(service())).id }, config: { top_p: 1 } }),
        'config.provider',
        'config.model_name',
      );
    });

    it('rejects enabled = false', async () => {
      const { id, agent_id } = await newConfig(service());
      const call = service().configs.upsertPrimaryConfig({ agent: { id: agent_id }, config: { enabled: false } });
      await invalid(call, 'config.enabled');
      expect((await getConfig(service(), id)).enabled).toBe(true);
    });

    it('ignores the id', async () => {
      const config = await newConfig(service());
      const other = await newConfig(service());
      const { config: changed } = await service().configs.upsertPrimaryConfig({
        agent: { id: config.agent_id },
        config: { id: other.id, temperature: 2 },
      });
      expect(changed?.id).toBe(config.id);
      expect(await getConfig(service(), other.id)).toEqual(other);
    });

    it('clears the fields in the mask, and returns a violation for every invalid path', async () => {
      const config = await newConfig(service(), { max_tokens: 9 });
      const agent = { id: config.agent_id };
      const { config: cleared } = await service().configs.upsertPrimaryConfig({
        agent,
        config: {},
        update_mask: ['temperature', 'max_tokens'],
      });
      expect([cleared?.temperature, cleared?.max_tokens]).toEqual([undefined, undefined]);
      const error = await invalid(
        service().configs.upsertPrimaryConfig({ agent, config: {}, update_mask: ['nonsense', 'agent_id'] }),
      );
      for (const path of ['nonsense', 'agent_id']) expect(JSON.stringify(error.violations)).toContain(path);
    });

    it('rejects a stale etag of the primary config', async () => {
      const { etag, agent_id } = await newConfig(service());
      const agent = { id: agent_id };
      const { config } = await service().configs.upsertPrimaryConfig({ agent, config: { etag, temperature: 1 } });
      await stale(service().configs.upsertPrimaryConfig({ agent, config: { etag, temperature: 2 } }));
      expect((await primaryOf(agent_id)).temperature).toBe(1);
      await service().configs.upsertPrimaryConfig({ agent, config: { etag: present(config).etag, temperature: 2 } });
    });

    it('returns NOT_FOUND for an unknown agent, and requires an agent', async () => {
      const call = service().configs.upsertPrimaryConfig({ agent: { name: unique('none') }, config: GPT4 });
      await notFound(call, 'AGENT_NOT_FOUND');
      await invalid(service().configs.upsertPrimaryConfig({ config: GPT4 }), 'agent');
    });

    it('accepts an unknown model when the request allows it', async () => {
      const { id } = await newAgent(service());
      const config = { provider: 'openai', model_name: 'gpt-97' };
      await invalid(service().configs.upsertPrimaryConfig({ agent: { id }, config }), 'config.model_name');
      const { findings } = await service().configs.upsertPrimaryConfig({
        agent: { id },
        config,
        allow_unknown_model: true,
      });
      expect(reasonsOf(findings)).toContain('UNKNOWN_MODEL');
    });

    it('creates one row for 20 concurrent calls', async () => {
      const { id } = await newAgent(service());
      const responses = await Promise.all(
        Array.from({ length: 20 }, (_, i) =>
          service().configs.upsertPrimaryConfig({ agent: { id }, config: { ...GPT4, max_tokens: i + 1 } }),
        ),
      );
      expect(responses.filter((response) => response.created)).toHaveLength(1);
      const [only, ...others] = await configsOf(service(), id);
      expect(others).toEqual([]);
      const last = responses.reduce((a, b) => (b.revision > a.revision ? b : a));
      expect(only).toEqual(last.config);
    });
  });

  describe('ReorderConfigs', () => {
    const agentWithThreeConfigs = async () => {
      const agent = await newAgent(service());
      const ids: number[] = [];
      for (const enabled of [true, false, true]) ids.push((await newConfig(service(), { enabled }, agent)).id);
      return { agent, a: present(ids[0]), b: present(ids[1]), c: present(ids[2]) };
    };

    it('assigns the priorities 0, 1 and 2, which changes the primary config', async () => {
      const { agent, a, b, c } = await agentWithThreeConfigs();
      const { configs, chain_etag, revision } = await service().configs.reorderConfigs({
        agent: { name: agent.name },
        config_ids: [c, b, a],
      });
      expect(configs.map(({ id, priority }) => [id, priority])).toEqual([
        [c, 0],
        [b, 1],
        [a, 2],
      ]);
      expect((await primaryOf(agent.id)).id).toBe(c);
      expect((await getAgent(service(), agent.id)).chain_etag).toBe(chain_etag);
      expect(revision).toBe((await getConfig(service(), a)).revision);
    });

    it('returns violations for missing, foreign and repeated ids', async () => {
      const { agent, a, b, c } = await agentWithThreeConfigs();
      const foreign = await newConfig(service());
      const error = await invalid(
        service().configs.reorderConfigs({ agent: { id: agent.id }, config_ids: [a, foreign.id, a, 2_147_483_647] }),
      );
      expect(error.fields.every((field) => field.startsWith('config_ids'))).toBe(true);
      const text = error.violations.map((violation) => `${violation.field} ${violation.description}`).join('\n');
      for (const id of [a, b, c, foreign.id, 2_147_483_647]) expect(text).toContain(String(id));
      await invalid(service().configs.reorderConfigs({ agent: { id: agent.id }, config_ids: [] }), 'config_ids');
    });

    it('rejects a stale chain_etag and accepts the current one', async () => {
      const { agent, a, b, c } = await agentWithThreeConfigs();
      const { chain_etag } = await getAgent(service(), agent.id);
      const reorder = (config_ids: number[], etag: string) =>
        service().configs.reorderConfigs({ agent: { id: agent.id }, config_ids, chain_etag: etag });
      const response = await reorder([b, a, c], chain_etag);
      expect(response.chain_etag).not.toBe(chain_etag);
      await stale(reorder([a, b, c], chain_etag));
      await reorder([a, b, c], response.chain_etag);
      await stale(reorder([a, b, c], 'garbage'));
    });

    it('accepts an agent without configs, and returns NOT_FOUND for an unknown agent', async () => {
      const { id } = await newAgent(service());
      const { configs } = await service().configs.reorderConfigs({ agent: { id } });
      expect(configs).toEqual([]);
      await notFound(service().configs.reorderConfigs({ agent: { name: unique('none') } }), 'AGENT_NOT_FOUND');
      await invalid(service().configs.reorderConfigs({}), 'agent');
    });
  });
});
