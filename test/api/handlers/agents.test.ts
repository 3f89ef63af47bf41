import { describe, expect, it } from 'vitest';
import { failure, unique, useService } from '../../support/service.js';
import {
  alreadyExists,
  chars,
  configsOf,
  getAgent,
  invalid,
  newAgent,
  newConfig,
  notFound,
  precondition,
  present,
  refused,
  stale,
  status,
} from './support.js';

describe('AgentService', () => {
  const service = useService('embedded');

  describe('CreateAgent', () => {
    it('uses the documented defaults for absent fields', async () => {
      const name = unique('defaults');
      const agent = await newAgent(service(), { name, agent_type: 'trader' });
      expect(agent).toMatchObject({
        name,
        agent_type: 'trader',
        role: 'analyst',
        llm_provider: 'openai',
        llm_model: 'gpt-4o-mini',
        llm_type: 'quick',
        temperature: 0.7,
        requires_memory: false,
        is_reserved: false,
        is_active: true,
        version: '1.0.0',
        substitution_policy: 'SUBSTITUTION_POLICY_ANY',
      });
      expect(agent.id).toBeGreaterThan(0);
      expect(agent.max_tokens).toBeUndefined();
      expect(agent.prompt_template).toBeUndefined();
      expect(agent.description).toBeUndefined();
      expect(agent.metadata_json).toBeUndefined();
      expect(agent.created_at).toBeInstanceOf(Date);
      expect(agent.updated_at).toEqual(agent.created_at);
      expect(agent.etag).not.toBe('');
      expect(agent.chain_etag).not.toBe('');
    });

    it('stores every field and returns what GetAgent reads', async () => {
      const fields = {
        name: unique('full'),
        agent_type: 'researcher',
        role: 'bull',
        llm_provider: 'Anthropic',
        llm_model: 'claude-3-haiku-20240307',
        llm_type: 'deep',
        temperature: 0,
        max_tokens: 1,
        prompt_template: 'You are {{name}}.',
        capabilities_json: '["a", "b"]',
        required_tools_json: '[]',
        requires_memory: true,
        memory_name: 'bull_memory',
        is_reserved: true,
        slot_name: 'slot',
        config_json: '{"k": 1}',
        is_active: false,
        version: '2.0',
        description: 'what it does',
        metadata_json: '{"m": [1, 2]}',
        substitution_policy: 'SUBSTITUTION_POLICY_SAME_MODEL',
      } as const;
      const agent = await newAgent(service(), fields);
      expect(agent).toMatchObject({ ...fields, llm_provider: 'claude' });
      expect(await getAgent(service(), agent.id)).toEqual(agent);
    });

    it('ignores output-only fields', async () => {
      const agent = await newAgent(service(), {
        id: 2_000_000_000,
        revision: 5n,
        chain_etag: 'x',
        created_at: new Date(0),
      });
      expect(agent.id).not.toBe(2_000_000_000);
      expect(agent.chain_etag).not.toBe('x');
      expect(agent.created_at).not.toEqual(new Date(0));
    });

    it('returns a violation for every invalid field', async () => {
      await invalid(
        service().agents.createAgent({ agent: { temperature: 3, max_tokens: 0, llm_type: 'slow' } }),
        'agent.name',
        'agent.agent_type',
        'agent.temperature',
        'agent.max_tokens',
        'agent.llm_type',
      );
    });

    it('is rejected without an agent', async () => {
      const error = await invalid(service().agents.createAgent({}));
      expect(error.fields.length).toBeGreaterThan(0);
    });

    it('rejects a name that is taken', async () => {
      const { name } = await newAgent(service());
      const error = await alreadyExists(
        service().agents.createAgent({ agent: { name, agent_type: 'trader' } }),
        'AGENT_NAME_TAKEN',
      );
      expect(error.message).toContain(name);
    });

    it('succeeds for exactly one of many concurrent calls with the same name', async () => {
      const name = unique('race');
      const results = await Promise.allSettled(
        Array.from({ length: 8 }, () => service().agents.createAgent({ agent: { name, agent_type: 'trader' } })),
      );
      expect(results.filter((result) => result.status === 'fulfilled')).toHaveLength(1);
    });

    const lengths = [
      ['name', 255],
      ['agent_type', 50],
      ['role', 50],
      ['llm_model', 100],
      ['prompt_template', 65_536],
      ['memory_name', 100],
      ['slot_name', 50],
      ['version', 20],
      ['description', 1000],
    ] as const;
    it.each(lengths)('accepts %s of at most %i characters', async (field, limit) => {
      // The catalogue restricts llm_model only for providers without unknown models; a custom provider accepts any.
      const providerField = field === 'llm_model' ? { llm_provider: await openProvider() } : {};
      const longest = `${unique('é')}${chars(limit)}`.slice(0, limit);
      const agent = await newAgent(service(), { ...providerField, [field]: longest });
      expect(agent[field]).toBe(longest);
      await invalid(
        service().agents.createAgent({
          agent: { name: unique('long'), agent_type: 'x', ...providerField, [field]: `${longest}x` },
        }),
        `agent.${field}`,
      );
    });

    it.each(['name', 'agent_type', 'role', 'llm_model', 'llm_provider', 'llm_type'] as const)(
      'rejects an empty %s',
      async (field) => {
        await invalid(
          service().agents.createAgent({ agent: { name: unique('empty'), agent_type: 'x', [field]: '' } }),
          `agent.${field}`,
        );
      },
    );

    it.each(['prompt_template', 'memory_name', 'slot_name', 'description'] as const)(
      'stores an empty %s as a value',
      async (field) => {
        const agent = await newAgent(service(), { [field]: '' });
        expect((await getAgent(service(), agent.id))[field]).toBe('');
      },
    );

    const json = [
      ['capabilities_json', '{}'],
      ['capabilities_json', '["a"'],
      ['required_tools_json', '"text"'],
      ['config_json', '[]'],
      ['config_json', 'null'],
      ['metadata_json', '[]'],
      ['metadata_json', '{'],
      ['metadata_json', ''],
    ] as const;
    it.each(json)('rejects %s that is %s', async (field, text) => {
      await invalid(
        service().agents.createAgent({ agent: { name: unique('json'), agent_type: 'x', [field]: text } }),
        `agent.${field}`,
      );
    });

    it.each(['capabilities_json', 'required_tools_json', 'config_json', 'metadata_json'] as const)(
      'accepts %s of at most 16384 bytes',
      async (field) => {
        const list = field === 'capabilities_json' || field === 'required_tools_json';
        const of = (bytes: number) => (list ? `["${chars(bytes - 4)}"]` : `{"k":"${chars(bytes - 8)}"}`);
        expect(Buffer.byteLength(of(16_384))).toBe(16_384);
        const agent = await newAgent(service(), { [field]: of(16_384) });
        expect(agent[field]).toBe(of(16_384));
        await invalid(
          service().agents.createAgent({ agent: { name: unique('json'), agent_type: 'x', [field]: of(16_385) } }),
          `agent.${field}`,
        );
      },
    );

    it.each([-0.1, 2.000_000_1, Number.NaN, Number.POSITIVE_INFINITY])(
      'rejects temperature %s',
      async (temperature) => {
        await invalid(
          service().agents.createAgent({ agent: { name: unique('t'), agent_type: 'x', temperature } }),
          'agent.temperature',
        );
      },
    );

    it.each([0, -1, -2_147_483_648])('rejects max_tokens %i', async (max_tokens) => {
      await invalid(
        service().agents.createAgent({ agent: { name: unique('m'), agent_type: 'x', max_tokens } }),
        'agent.max_tokens',
      );
    });

    it('resolves aliases of llm_provider and rejects unknown providers', async () => {
      const agent = await newAgent(service(), { llm_provider: 'XAI', llm_model: 'grok-beta' });
      expect(agent.llm_provider).toBe('grok');
      const error = await invalid(
        service().agents.createAgent({ agent: { name: unique('p'), agent_type: 'x', llm_provider: 'opnai' } }),
        'agent.llm_provider',
      );
      expect(error.violations[0]?.description).toMatch(/^Invalid provider/);
      expect(error.violations[0]?.description).toContain('openai');
    });

    it('treats an unspecified substitution policy as ANY', async () => {
      const agent = await newAgent(service(), { substitution_policy: 'SUBSTITUTION_POLICY_UNSPECIFIED' });
      expect(agent.substitution_policy).toBe('SUBSTITUTION_POLICY_ANY');
    });
  });

  describe('GetAgent', () => {
    it('finds an agent by id and by name', async () => {
      const agent = await newAgent(service());
      expect((await service().agents.getAgent({ agent: { id: agent.id } })).agent).toEqual(agent);
      expect((await service().agents.getAgent({ agent: { name: agent.name } })).agent).toEqual(agent);
    });

    it('matches names exactly', async () => {
      const { name } = await newAgent(service(), { name: unique('Case') });
      await notFound(service().agents.getAgent({ agent: { name: name.toUpperCase() } }), 'AGENT_NOT_FOUND');
      await notFound(service().agents.getAgent({ agent: { name: `${name} ` } }), 'AGENT_NOT_FOUND');
    });

    it('suggests the nearest name', async () => {
      const error = await notFound(service().agents.getAgent({ agent: { name: 'markt_analyst' } }), 'AGENT_NOT_FOUND');
      expect(error.message).toContain('"markt_analyst"');
      expect(error.message).toContain('"market_analyst"');
    });

    it('rejects a reference without id and name', async () => {
      for (const agent of [undefined, {}]) await invalid(service().agents.getAgent({ agent }), 'agent');
    });

    it.each([0, -1])('rejects id %i', async (id) => {
      const error = await invalid(service().agents.getAgent({ agent: { id } }));
      expect(error.fields[0]).toMatch(/^agent(\.id)?$/);
    });

    it('rejects names that no agent can have', async () => {
      for (const name of ['', chars(256)]) {
        const error = await invalid(service().agents.getAgent({ agent: { name } }));
        expect(error.fields[0]).toMatch(/^agent(\.name)?$/);
      }
    });

    it('returns NOT_FOUND for the largest id', async () => {
      await notFound(service().agents.getAgent({ agent: { id: 2_147_483_647 } }), 'AGENT_NOT_FOUND');
    });

    it('returns an agent of the seeds', async () => {
      const { agent } = await service().agents.getAgent({ agent: { name: 'research_manager' } });
      expect(agent).toMatchObject({ agent_type: 'manager', role: 'research', llm_type: 'deep', is_reserved: true });
    });
  });

  describe('ListAgents', () => {
    it('returns the agents that match type, role and activity', async () => {
      const agent_type = unique('type');
      const all = [
        await newAgent(service(), { agent_type, role: 'a' }),
        await newAgent(service(), { agent_type, role: 'b' }),
        await newAgent(service(), { agent_type, role: 'a', is_active: false }),
      ];
      const ids = async (filter: object) =>
        (await service().agents.listAgents({ agent_type, ...filter })).agents.map((agent) => agent.id);
      const [a, b, c] = all.map((agent) => agent.id);
      expect(await ids({})).toEqual([a, b, c]);
      expect(await ids({ role: 'a' })).toEqual([a, c]);
      expect(await ids({ role: 'a', is_active: true })).toEqual([a]);
      expect(await ids({ is_active: false })).toEqual([c]);
      expect(await ids({ agent_type: unique('none') })).toEqual([]);
    });

    it('pages in id order without loss or repetition while agents change', async () => {
      const agent_type = unique('paged');
      const created = [];
      for (let i = 0; i < 7; i += 1) created.push(await newAgent(service(), { agent_type }));
      const [first, second] = created;
      const seen: number[] = [];
      let page_token = '';
      do {
        const page = await service().agents.listAgents({ agent_type, page_size: 2, page_token });
        expect(page.agents.length).toBeLessThanOrEqual(2);
        seen.push(...page.agents.map((agent) => agent.id));
        if (page_token === '') {
          await service().agents.deleteAgent({ agent: { id: present(second).id } });
          await service().agents.updateAgent({ agent: { id: present(first).id, description: 'moved?' } });
        }
        page_token = page.next_page_token;
      } while (page_token !== '');
      expect(seen).toEqual(created.map((agent) => agent.id));
    });

    it('returns no next page token when the last page is full', async () => {
      const agent_type = unique('full');
      for (let i = 0; i < 2; i += 1) await newAgent(service(), { agent_type });
      const page = await service().agents.listAgents({ agent_type, page_size: 2 });
      expect(page.agents).toHaveLength(2);
      expect(page.next_page_token).toBe('');
    });

    it('rejects a page token of another filter or list', async () => {
      const { next_page_token } = await service().agents.listAgents({ page_size: 1 });
      expect(next_page_token).not.toBe('');
      const page_token = next_page_token;
      const calls = [
        () => service().agents.listAgents({ page_size: 1, page_token, is_active: true }),
        () => service().agents.listAgents({ page_size: 1, page_token, role: 'trader' }),
        () => service().configs.listConfigs({ page_size: 1, page_token }),
        () => service().providers.listProviders({ page_size: 1, page_token }),
      ];
      for (const call of calls) await refused(call(), status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
      const page = await service().agents.listAgents({ page_size: 3, page_token: next_page_token });
      expect(page.agents).toHaveLength(3);
    });

    it.each(['x', 'AAAA', '🎈', `${chars(1000)}`, '../../etc/passwd', '{}', 'e30='])(
      'rejects the page token %s',
      async (page_token) => {
        await refused(service().agents.listAgents({ page_token }), status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
      },
    );

    it('rejects a page token of more than 1000 characters', async () => {
      const error = await failure(service().agents.listAgents({ page_token: chars(1001) }));
      expect(error.code).toBe(status.INVALID_ARGUMENT);
    });

    it('rejects a negative page size, and accepts 0 and 1001', async () => {
      await invalid(service().agents.listAgents({ page_size: -1 }), 'page_size');
      const agent_type = unique('sizes');
      await Promise.all(Array.from({ length: 101 }, () => newAgent(service(), { agent_type })));
      const byDefault = await service().agents.listAgents({ agent_type, page_size: 0 });
      expect(byDefault.agents).toHaveLength(100);
      expect(byDefault.next_page_token).not.toBe('');
      const large = await service().agents.listAgents({ agent_type, page_size: 1001 });
      expect(large.agents).toHaveLength(101);
    });
  });

  describe('UpdateAgent', () => {
    const values = [
      ['role', 'other', 'analyst'],
      ['llm_type', 'deep', 'quick'],
      ['temperature', 0, 0.7],
      ['max_tokens', 17, undefined],
      ['prompt_template', '', undefined],
      ['capabilities_json', '["x"]', undefined],
      ['required_tools_json', '["y"]', undefined],
      ['requires_memory', true, false],
      ['memory_name', '', undefined],
      ['slot_name', 's', undefined],
      ['config_json', '{"a":1}', undefined],
      ['is_active', false, true],
      ['version', '9.9.9', '1.0.0'],
      ['description', '', undefined],
      ['metadata_json', '{"b":2}', undefined],
      ['substitution_policy', 'SUBSTITUTION_POLICY_NEVER', 'SUBSTITUTION_POLICY_ANY'],
    ] as const;
    it.each(values)('sets %s, keeps it in other updates and clears it by mask', async (field, value, cleared) => {
      const { id } = await newAgent(service());
      const set = await service().agents.updateAgent({ agent: { id, [field]: value } });
      expect(present(set.agent)[field]).toEqual(value);
      await service().agents.updateAgent(
        field === 'description' ? { agent: { id, version: '7' } } : { agent: { id, description: 'another field' } },
      );
      expect((await getAgent(service(), id))[field]).toEqual(value);
      await service().agents.updateAgent({ agent: { id }, update_mask: [field] });
      expect((await getAgent(service(), id))[field]).toEqual(cleared);
    });

    it('sets and clears llm_provider and llm_model', async () => {
      const { id } = await newAgent(service());
      const agent = { id, llm_provider: 'ANTHROPIC', llm_model: 'claude-3-haiku-20240307' };
      const set = await service().agents.updateAgent({ agent });
      expect(set.agent).toMatchObject({ llm_provider: 'claude', llm_model: 'claude-3-haiku-20240307' });
      const cleared = await service().agents.updateAgent({ agent: { id }, update_mask: ['llm_provider', 'llm_model'] });
      expect(cleared.agent).toMatchObject({ llm_provider: 'openai', llm_model: 'gpt-4o-mini' });
    });

    it('changes only the fields in the mask', async () => {
      const { id } = await newAgent(service(), { description: 'old', role: 'old' });
      const { agent } = await service().agents.updateAgent({
        agent: { id, description: 'new', role: 'new', version: '5' },
        update_mask: ['description'],
      });
      expect(agent).toMatchObject({ description: 'new', role: 'old', version: '1.0.0' });
    });

    it('changes the name unless another agent has it', async () => {
      const { id, name } = await newAgent(service());
      const other = await newAgent(service());
      const renamed = unique('renamed');
      await service().agents.updateAgent({ agent: { id, name: renamed } });
      expect((await service().agents.getAgent({ agent: { name: renamed } })).agent?.id).toBe(id);
      await notFound(service().agents.getAgent({ agent: { name } }), 'AGENT_NOT_FOUND');
      await alreadyExists(service().agents.updateAgent({ agent: { id, name: other.name } }), 'AGENT_NAME_TAKEN');
      const config = await newConfig(service(), {}, other);
      await service().agents.updateAgent({ agent: { id: other.id, name: unique('moved') } });
      const { agent_name } = present((await service().configs.getConfig({ id: config.id })).config);
      expect(agent_name).toBe((await getAgent(service(), other.id)).name);
    });

    it('accepts the current name of the agent', async () => {
      const { id, name } = await newAgent(service());
      const { agent } = await service().agents.updateAgent({ agent: { id, name } });
      expect(agent?.name).toBe(name);
    });

    it('returns a violation for every unknown or output-only path in the mask', async () => {
      const { id } = await newAgent(service());
      const invalidPaths = ['nonsense', 'agent.name', 'created_at', 'revision', 'id', 'chain_etag'];
      const error = await invalid(
        service().agents.updateAgent({
          agent: { id, description: 'x' },
          update_mask: ['description', ...invalidPaths],
        }),
      );
      for (const path of invalidPaths) expect(JSON.stringify(error.violations)).toContain(path);
      expect(error.violations).toHaveLength(invalidPaths.length);
      expect((await getAgent(service(), id)).description).toBeUndefined();
    });

    it('rejects a mask that clears the name and the type', async () => {
      const { id } = await newAgent(service());
      await invalid(
        service().agents.updateAgent({ agent: { id }, update_mask: ['name', 'agent_type'] }),
        'agent.name',
        'agent.agent_type',
      );
    });

    it('rejects a change of is_reserved and accepts its current value', async () => {
      const { id } = await newAgent(service());
      await service().agents.updateAgent({ agent: { id, is_reserved: false, role: 'kept' } });
      const error = await invalid(
        service().agents.updateAgent({ agent: { id, is_reserved: true }, update_mask: ['is_reserved'] }),
      );
      expect(JSON.stringify(error.violations)).toContain('is_reserved');
      await invalid(service().agents.updateAgent({ agent: { id, is_reserved: true } }), 'agent.is_reserved');
    });

    it('rejects a stale etag and accepts the current one', async () => {
      const { id, etag } = await newAgent(service());
      const { agent } = await service().agents.updateAgent({ agent: { id, etag, description: 'one' } });
      expect(agent?.etag).not.toBe(etag);
      await stale(service().agents.updateAgent({ agent: { id, etag, description: 'two' } }));
      await stale(service().agents.updateAgent({ agent: { id, etag: 'garbage', description: 'two' } }));
      expect((await getAgent(service(), id)).description).toBe('one');
    });

    it('returns NOT_FOUND for an unknown agent', async () => {
      await notFound(service().agents.updateAgent({ agent: { id: 2_147_483_647, role: 'x' } }), 'AGENT_NOT_FOUND');
      await invalid(service().agents.updateAgent({ agent: { role: 'x' } }), 'agent.id');
    });

    it('returns a violation for every invalid field', async () => {
      const { id } = await newAgent(service());
      await invalid(
        service().agents.updateAgent({ agent: { id, temperature: -1, max_tokens: 0, role: '', metadata_json: '1' } }),
        'agent.temperature',
        'agent.max_tokens',
        'agent.role',
        'agent.metadata_json',
      );
    });

    it('updates updated_at and keeps created_at, even if no field changes', async () => {
      const before = await newAgent(service());
      const { agent, revision } = await service().agents.updateAgent({ agent: { id: before.id, role: before.role } });
      expect(agent?.created_at).toEqual(before.created_at);
      expect(present(agent?.updated_at).getTime()).toBeGreaterThanOrEqual(present(before.updated_at).getTime());
      expect(agent?.revision).toBe(revision);
    });
  });

  describe('DeleteAgent', () => {
    it('deletes by id and by name', async () => {
      const [a, b] = [await newAgent(service()), await newAgent(service())];
      await service().agents.deleteAgent({ agent: { id: a.id } });
      const response = await service().agents.deleteAgent({ agent: { name: b.name } });
      expect(response.deleted_configs).toBe(0);
      for (const { id } of [a, b]) {
        await notFound(service().agents.getAgent({ agent: { id } }), 'AGENT_NOT_FOUND');
        await notFound(service().agents.deleteAgent({ agent: { id } }), 'AGENT_NOT_FOUND');
      }
    });

    it('frees the name for another agent', async () => {
      const { id, name } = await newAgent(service());
      await service().agents.deleteAgent({ agent: { id } });
      expect((await newAgent(service(), { name })).id).not.toBe(id);
    });

    it('rejects a reserved agent, also with cascade', async () => {
      for (const cascade of [false, true]) {
        const call = service().agents.deleteAgent({ agent: { name: 'trader' }, cascade });
        const error = await precondition(call, 'AGENT_RESERVED');
        expect(error.message).toContain('"trader"');
      }
    });

    it('rejects an agent with configs, and deletes them with it when cascade is set', async () => {
      const agent = await newAgent(service());
      const [one, two] = [await newConfig(service(), {}, agent), await newConfig(service(), { enabled: false }, agent)];
      const error = await precondition(service().agents.deleteAgent({ agent: { id: agent.id } }), 'AGENT_HAS_CONFIGS');
      expect(error.message).toContain('2 configs');
      expect(await configsOf(service(), agent.id)).toHaveLength(2);
      const { deleted_configs } = await service().agents.deleteAgent({ agent: { id: agent.id }, cascade: true });
      expect(deleted_configs).toBe(2);
      for (const { id } of [one, two]) await notFound(service().configs.getConfig({ id }), 'CONFIG_NOT_FOUND');
    });

    it('rejects a stale etag and accepts the current one', async () => {
      const { id, etag } = await newAgent(service());
      const { agent } = await service().agents.updateAgent({ agent: { id, role: 'x' } });
      await stale(service().agents.deleteAgent({ agent: { id }, etag }));
      await service().agents.deleteAgent({ agent: { id }, etag: present(agent).etag });
    });
  });

  async function openProvider(): Promise<string> {
    const name = unique('open').toLowerCase();
    await service().providers.createProvider({
      provider: { name, dialect: 'DIALECT_OPENAI_COMPATIBLE', base_url: 'https://llm.example.com/v1' },
    });
    return name;
  }
});
