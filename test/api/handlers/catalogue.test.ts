import { describe, expect, it } from 'vitest';
import { unique, useService } from '../../support/service.js';
import {
  alreadyExists,
  chars,
  endpoint,
  GPT4,
  getConfig,
  invalid,
  type ModelFields,
  newAgent,
  newConfig,
  newModel,
  newProvider,
  notFound,
  type ProviderFields,
  precondition,
  present,
  refused,
  revision,
  stale,
  status,
} from './support.js';

describe('ProviderService', () => {
  const service = useService('embedded');
  const create = (fields: ProviderFields = {}) =>
    service().providers.createProvider({ provider: { ...endpoint(), ...fields } });
  const update = (provider: ProviderFields, update_mask?: string[]) =>
    service().providers.updateProvider({ provider, update_mask });
  const createModel = (fields: ModelFields = {}) =>
    service().providers.createModel({ model: { provider: 'openai', name: unique('model'), ...fields } });
  const updateModel = (model: ModelFields, update_mask?: string[]) =>
    service().providers.updateModel({ model, update_mask });

  describe('providers', () => {
    it('include the four built-in ones with their documented key variables', async () => {
      const { providers } = await service().providers.listProviders({ page_size: 1000 });
      const builtIn = providers.filter((provider) => provider.built_in);
      expect(
        builtIn.map(({ name, api_key_env_vars, allow_unknown_models }) => [
          name,
          api_key_env_vars,
          allow_unknown_models,
        ]),
      ).toEqual([
        ['claude', ['ANTHROPIC_API_KEY'], false],
        ['deepseek', ['DEEPSEEK_API_KEY'], false],
        ['grok', ['GROK_API_KEY', 'XAI_API_KEY'], false],
        ['openai', ['OPENAI_API_KEY'], false],
      ]);
      const names = providers.map((provider) => provider.name);
      expect(names).toEqual([...names].sort());
    });

    it('are found by name or alias in any case', async () => {
      for (const name of ['claude', 'CLAUDE', 'anthropic', 'Anthropic']) {
        expect((await service().providers.getProvider({ name })).provider?.name).toBe('claude');
      }
      const error = await notFound(service().providers.getProvider({ name: 'opnai' }), 'PROVIDER_NOT_FOUND');
      expect(error.message).toContain('"openai"');
      await invalid(service().providers.getProvider({}), 'name');
    });

    it('are created with the documented defaults', async () => {
      const fields = endpoint();
      const { provider, revision: at } = await service().providers.createProvider({ provider: fields });
      expect(provider).toMatchObject({
        ...fields,
        wire_api: 'WIRE_API_CHAT_COMPLETIONS',
        display_name: fields.name,
        aliases: [],
        api_key_env_vars: [],
        built_in: false,
        enabled: true,
        allow_unknown_models: true,
        parameter_rules: [],
        revision: at,
      });
      expect((await service().providers.getProvider({ name: present(provider).name })).provider).toEqual(provider);
    });

    it('store every field', async () => {
      const fields: ProviderFields = {
        ...endpoint(),
        display_name: '',
        aliases: [unique('al').toLowerCase()],
        dialect: 'DIALECT_OPENAI',
        wire_api: 'WIRE_API_RESPONSES',
        base_url: 'https://llm.example.com:8443/a/b',
        api_key_env_vars: ['MY_1_API_KEY', 'OTHER_API_KEY'],
        enabled: false,
        allow_unknown_models: false,
        parameter_rules: [
          {
            parameter: 'temperature',
            support: 'PARAMETER_SUPPORT_REJECTED',
            minimum: 0,
            maximum: 1,
            accepted_with_reasoning_effort: ['none'],
            not_with: ['top_p'],
            wire_name: 't',
          },
        ],
      };
      const { provider } = await service().providers.createProvider({ provider: fields });
      expect(provider).toMatchObject(fields);
      expect((await service().providers.getProvider({ name: present(provider).name })).provider).toEqual(provider);
    });

    it('are rejected with a violation for every invalid field', async () => {
      await invalid(
        service().providers.createProvider({ provider: {} }),
        'provider.name',
        'provider.dialect',
        'provider.base_url',
      );
      await invalid(service().providers.createProvider({}));
    });

    it.each(['-a', '.a', '_a', 'a b', 'a/b', 'ä', '', chars(51)])(
      'are rejected with the name or alias %j',
      async (name) => {
        await invalid(create({ name }), 'provider.name');
        if (name !== '') {
          const { name: existing } = await newProvider(service());
          const error = await invalid(update({ name: existing, aliases: [name] }));
          expect(error.fields[0]).toMatch(/^provider\.aliases/);
        }
      },
    );

    it('accept a name of 50 characters', async () => {
      const name = `${unique('0')}.${chars(50)}`.slice(0, 50);
      expect((await create({ name })).provider?.name).toBe(name);
    });

    const urls = [
      'http://llm.example.com/v1',
      'ftp://llm.example.com',
      'llm.example.com',
      '',
      'https://',
      'https://user@llm.example.com',
      'https://user:pw@llm.example.com',
      'https://llm.example.com/v1?x=1',
      'https://llm.example.com/v1#f',
      'https://localhost/v1',
      'https://a.localhost/v1',
      'https://127.0.0.1/v1',
      'https://127.1/v1',
      'https://2130706433/v1',
      'https://0x7f000001/v1',
      'https://0177.0.0.1/v1',
      'https://0.0.0.0/v1',
      'https://10.0.0.1/v1',
      'https://172.16.0.1/v1',
      'https://172.31.255.255/v1',
      'https://192.168.1.1/v1',
      'https://169.254.169.254/latest',
      'https://[::1]/v1',
      'https://[::]/v1',
      'https://[fe80::1]/v1',
      'https://[fd00::1]/v1',
      'https://[::ffff:127.0.0.1]/v1',
      'https://[::ffff:10.0.0.1]/v1',
      'javascript:alert(1)',
      `https://llm.example.com/${chars(477)}`,
    ];
    it.each(urls)('are rejected with the base_url %s', async (base_url) => {
      await invalid(create({ base_url }), 'provider.base_url');
    });

    it('store and return a base_url in its canonical form', async () => {
      const { provider } = await create({ base_url: 'HTTPS://LLM.Example.com:443/V1/' });
      expect(provider?.base_url).toBe('https://llm.example.com/V1');
      const { name } = present(provider);
      const moved = await update({ name, base_url: 'https://llm.example.com:8443/' });
      expect(moved.provider?.base_url).toBe('https://llm.example.com:8443');
      const again = await service().providers.getProvider({ name });
      expect(again.provider).toEqual(moved.provider);
    });

    it.each([
      ['https://example.com\\@10.0.0.1/v1', 'must not contain a backslash'],
      ['https:\\\\example.com\\v1', 'must not contain a backslash'],
      ['https:example.com', 'must be a URL such as https://llm.example.com/v1'],
      ['https://exam\u202eple.com', 'must consist of visible ASCII characters, and contains U+202E'],
      ['https://\u0435xample.com', 'must consist of visible ASCII characters, and contains U+0435'],
      ['https://example.com/%2e%2e/v1', 'must have a path of letters, digits and - . _ ~ : + = , only'],
      ['https://example.com:0443', 'must have a port from 1 to 65535, without leading zeros, or none'],
      ['http://localhost:11434/v1', 'must be https: http needs an address that PROVIDER_ALLOW_CIDRS allows'],
    ])('are rejected with the base_url %j, which %s', async (base_url, description) => {
      const error = await invalid(create({ base_url }), 'provider.base_url');
      expect(error.message).toBe(`provider.base_url: ${description}`);
    });

    it('accept a base_url of 500 characters', async () => {
      const base_url = `https://llm.example.com/${chars(500)}`.slice(0, 500);
      expect((await create({ base_url })).provider?.base_url).toBe(base_url);
    });

    it.each([
      'OPENAI_API_KEY',
      'ANTHROPIC_API_KEY',
      'XAI_API_KEY',
      'GROK_API_KEY',
      'PATH',
      'my_API_KEY',
      'API_KEY',
      '_API_KEY ',
      'DATABASE_URL',
    ])('are rejected with the key variable %s', async (variable) => {
      const error = await invalid(create({ api_key_env_vars: [variable] }));
      expect(error.fields[0]).toMatch(/^provider\.api_key_env_vars/);
    });

    it('are rejected with a description of the valid names of a key variable', async () => {
      const error = await invalid(create({ api_key_env_vars: ['HF_TOKEN'] }));
      expect(error.message).toBe(
        'provider.api_key_env_vars[0]: must consist of capital letters, digits and underscores and end in _API_KEY, such as LOCAL_LLM_API_KEY',
      );
    });

    it('accept lists up to their limits', async () => {
      const names = (count: number) => Array.from({ length: count }, (_, i) => `${unique('a').toLowerCase()}.${i}`);
      const vars = (count: number) => Array.from({ length: count }, (_, i) => `K${i}_API_KEY`);
      await create({ aliases: names(20), api_key_env_vars: vars(5) });
      // Too many elements are rejected before the request is decoded, at the first such field.
      await invalid(create({ aliases: names(21), api_key_env_vars: vars(6) }), 'provider.aliases');
      await invalid(create({ api_key_env_vars: vars(6) }), 'provider.api_key_env_vars');
      await create({ display_name: chars(100, '🎈') });
      await invalid(create({ display_name: chars(101) }), 'provider.display_name');
    });

    const invalidRules: NonNullable<ProviderFields['parameter_rules']>[] = [
      [{ parameter: 'temperature' }],
      [{ parameter: 'nonsense', support: 'PARAMETER_SUPPORT_ACCEPTED' }],
      [{ parameter: '', support: 'PARAMETER_SUPPORT_ACCEPTED' }],
      [
        { parameter: 'seed', support: 'PARAMETER_SUPPORT_ACCEPTED' },
        { parameter: 'seed', support: 'PARAMETER_SUPPORT_REJECTED' },
      ],
      [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_ACCEPTED', minimum: 2, maximum: 1 }],
      [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_ACCEPTED', maximum: Number.NaN }],
      [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_ACCEPTED', not_with: ['nonsense'] }],
      [
        {
          parameter: 'reasoning_effort',
          support: 'PARAMETER_SUPPORT_ACCEPTED',
          allowed_values: Array.from({ length: 51 }, (_, i) => `v${i}`),
        },
      ],
    ];
    it.each(invalidRules.map((rules) => [rules]))(
      'are rejected, like models, with the rules %j',
      async (parameter_rules) => {
        const error = await invalid(create({ parameter_rules }));
        expect(error.fields.every((field) => field.startsWith('provider.parameter_rules'))).toBe(true);
        const model = await invalid(createModel({ parameter_rules }));
        expect(model.fields.every((field) => field.startsWith('model.parameter_rules'))).toBe(true);
      },
    );

    it('cannot share a name or an alias', async () => {
      const alias = unique('al').toLowerCase();
      const { name } = await newProvider(service(), { aliases: [alias] });
      for (const fields of [
        { name },
        { name: alias },
        { name: 'xai' },
        { name: 'openai' },
        { aliases: [alias] },
        { aliases: [name] },
        { aliases: ['anthropic'] },
      ]) {
        await alreadyExists(create(fields), 'PROVIDER_NAME_TAKEN');
      }
      const other = await newProvider(service());
      await alreadyExists(update({ name: other.name, aliases: [alias] }), 'PROVIDER_NAME_TAKEN');
      expect((await service().providers.getProvider({ name: alias.toUpperCase() })).provider?.name).toBe(name);
      expect((await update({ name, aliases: [alias] })).provider?.aliases).toEqual([alias]);
    });

    it('set, keep and clear fields', async () => {
      const { name } = await newProvider(service(), {
        aliases: [unique('al').toLowerCase()],
        api_key_env_vars: ['A_API_KEY'],
      });
      const set = await update({ name, display_name: 'D', enabled: false, allow_unknown_models: false });
      expect(set.provider).toMatchObject({
        display_name: 'D',
        enabled: false,
        allow_unknown_models: false,
        api_key_env_vars: ['A_API_KEY'],
      });
      expect(set.provider?.aliases).toHaveLength(1);
      const cleared = await update({ name }, [
        'display_name',
        'enabled',
        'allow_unknown_models',
        'aliases',
        'api_key_env_vars',
      ]);
      expect(cleared.provider).toMatchObject({
        display_name: name,
        enabled: true,
        allow_unknown_models: true,
        aliases: [],
        api_key_env_vars: [],
      });
      const moved = await update({ name, base_url: 'https://other.example.com' });
      expect(moved.provider?.base_url).toBe('https://other.example.com');
      await invalid(update({ name }, ['base_url', 'dialect']), 'provider.base_url', 'provider.dialect');
      const error = await invalid(update({ name }, ['nonsense', 'built_in', 'revision']));
      for (const path of ['nonsense', 'built_in', 'revision']) expect(JSON.stringify(error.violations)).toContain(path);
    });

    it('have the wire API of their dialect unless another one is named', async () => {
      const { name } = await newProvider(service(), { wire_api: 'WIRE_API_RESPONSES' });
      const wireApi = async (fields: ProviderFields, mask: string[] = []) =>
        (await update({ name, ...fields }, mask)).provider?.wire_api;
      expect(await wireApi({ display_name: 'x' })).toBe('WIRE_API_RESPONSES');
      expect(await wireApi({ dialect: 'DIALECT_ANTHROPIC' })).toBe('WIRE_API_MESSAGES');
      expect(await wireApi({ dialect: 'DIALECT_OPENAI_RESPONSES' })).toBe('WIRE_API_RESPONSES');
      expect(await wireApi({ dialect: 'DIALECT_OPENAI' })).toBe('WIRE_API_CHAT_COMPLETIONS');
      const both = { dialect: 'DIALECT_OPENAI_COMPATIBLE', wire_api: 'WIRE_API_RESPONSES' } as const;
      expect(await wireApi(both)).toBe('WIRE_API_RESPONSES');
      expect(await wireApi({}, ['wire_api'])).toBe('WIRE_API_CHAT_COMPLETIONS');
      const error = await invalid(update({ name, wire_api: 'WIRE_API_MESSAGES' }), 'provider.wire_api');
      expect(error.violations[0]?.description).toBe(
        'must be WIRE_API_CHAT_COMPLETIONS or WIRE_API_RESPONSES for DIALECT_OPENAI_COMPATIBLE, not WIRE_API_MESSAGES',
      );
      await invalid(create({ dialect: 'DIALECT_ANTHROPIC', wire_api: 'WIRE_API_RESPONSES' }), 'provider.wire_api');
      const { entries } = await service().configs.listConfigRevisions({
        kinds: ['RESOURCE_KIND_PROVIDER'],
        page_size: 1,
      });
      expect(entries[0]?.changes).toContainEqual({
        field: 'wire_api',
        before_json: '"WIRE_API_RESPONSES"',
        after_json: '"WIRE_API_CHAT_COMPLETIONS"',
      });
    });

    it('change only the permitted fields when they are built in', async () => {
      const { provider } = await service().providers.getProvider({ name: 'deepseek' });
      const before = present(provider);
      for (const fields of [
        { base_url: 'https://evil.example.com' },
        { dialect: 'DIALECT_ANTHROPIC' } as const,
        { wire_api: 'WIRE_API_RESPONSES' } as const,
        { api_key_env_vars: ['EVIL_API_KEY'] },
        { parameter_rules: [{ parameter: 'seed', support: 'PARAMETER_SUPPORT_REJECTED' as const }] },
      ]) {
        const error = await precondition(update({ name: 'deepseek', ...fields }), 'BUILT_IN_PROVIDER');
        expect(error.message).toContain(present(Object.keys(fields)[0]));
      }
      const alias = unique('ds').toLowerCase();
      const changed = await update({
        name: 'deepseek',
        display_name: 'x',
        enabled: true,
        allow_unknown_models: true,
        aliases: [alias],
        // A caller may send back what it has read.
        wire_api: before.wire_api,
      });
      expect(changed.provider).toMatchObject({
        display_name: 'x',
        allow_unknown_models: true,
        aliases: [alias],
        base_url: before.base_url,
      });
      await update({ name: 'deepseek', display_name: before.display_name, allow_unknown_models: false }, [
        'display_name',
        'allow_unknown_models',
        'aliases',
      ]);
    });

    it('are not changed or deleted with a stale etag', async () => {
      const { name, etag } = await newProvider(service());
      const { provider } = await update({ name, etag, display_name: 'a' });
      await stale(update({ name, etag, display_name: 'b' }));
      await stale(service().providers.deleteProvider({ name, etag }));
      await service().providers.deleteProvider({ name, etag: present(provider).etag });
      await notFound(service().providers.getProvider({ name }), 'PROVIDER_NOT_FOUND');
      await notFound(update({ name, display_name: 'c' }), 'PROVIDER_NOT_FOUND');
      await notFound(service().providers.deleteProvider({ name }), 'PROVIDER_NOT_FOUND');
    });

    it('are deleted with their models unless they are in use or built in', async () => {
      await precondition(service().providers.deleteProvider({ name: 'openai' }), 'BUILT_IN_PROVIDER');
      const { name } = await newProvider(service());
      const model = await newModel(service(), { provider: name });
      const first = await newConfig(service(), { provider: name, model_name: 'm', enabled: false });
      const fallback = await newConfig(service(), { fallback_provider: name, fallback_model: 'm' });
      const agent = await newAgent(service(), { llm_provider: name, llm_model: 'm' });
      const error = await precondition(service().providers.deleteProvider({ name }), 'PROVIDER_IN_USE');
      expect(error.message).toContain('3');
      await service().configs.deleteConfig({ id: first.id });
      await precondition(service().providers.deleteProvider({ name }), 'PROVIDER_IN_USE');
      await service().configs.deleteConfig({ id: fallback.id });
      await precondition(service().providers.deleteProvider({ name }), 'PROVIDER_IN_USE');
      await service().agents.deleteAgent({ agent: { id: agent.id } });
      const { deleted_models } = await service().providers.deleteProvider({ name });
      expect(deleted_models).toBe(1);
      await notFound(service().providers.getModel({ provider: name, name: model.name }), 'PROVIDER_NOT_FOUND');
    });

    it('are paged by name', async () => {
      for (let i = 0; i < 3; i += 1) await newProvider(service());
      const names: string[] = [];
      let page_token = '';
      do {
        const page = await service().providers.listProviders({ page_size: 2, page_token });
        names.push(...page.providers.map((provider) => provider.name));
        page_token = page.next_page_token;
      } while (page_token !== '');
      expect(names).toEqual([...new Set(names)].sort());
      await invalid(service().providers.listProviders({ page_size: -1 }), 'page_size');
      await refused(
        service().providers.listProviders({ page_token: 'x' }),
        status.INVALID_ARGUMENT,
        'INVALID_PAGE_TOKEN',
      );
    });
  });

  describe('models', () => {
    it('include the built-in ones with their capabilities and prices', async () => {
      const { model } = await service().providers.getModel({ provider: 'OpenAI', name: 'gpt-4' });
      expect(model).toMatchObject({
        provider: 'openai',
        context_window_tokens: 8192,
        max_output_tokens: 4096,
        supports_functions: true,
        supports_vision: false,
        built_in: true,
        price: { input_micro_usd_per_million: 30_000_000n, output_micro_usd_per_million: 60_000_000n },
      });
      expect(model?.price?.cached_input_micro_usd_per_million).toBeUndefined();
      const haiku = await service().providers.getModel({ provider: 'anthropic', name: 'claude-3-haiku-20240307' });
      expect(haiku.model?.price?.input_micro_usd_per_million).toBe(250_000n);
    });

    it('distinguish a missing provider from a missing model, and match names exactly', async () => {
      const { providers } = service();
      await notFound(providers.getModel({ provider: 'nobody', name: 'gpt-4' }), 'PROVIDER_NOT_FOUND');
      await notFound(providers.getModel({ provider: 'openai', name: 'GPT-4' }), 'MODEL_NOT_FOUND');
      await invalid(providers.getModel({}), 'provider', 'name');
      await notFound(providers.listModels({ provider: 'nobody' }), 'PROVIDER_NOT_FOUND');
      await notFound(updateModel({ provider: 'openai', name: 'none', display_name: 'x' }), 'MODEL_NOT_FOUND');
      await notFound(providers.deleteModel({ provider: 'openai', name: 'none' }), 'MODEL_NOT_FOUND');
    });

    it('leave unknown fields absent', async () => {
      const { model } = await createModel();
      for (const field of [
        'display_name',
        'context_window_tokens',
        'max_output_tokens',
        'supports_functions',
        'supports_vision',
        'supports_reasoning',
        'supports_forced_tool_choice',
        'supports_prefill',
        'supports_structured_output',
        'price',
        'as_of',
        'retires_at',
        'replaced_by',
      ] as const) {
        expect(model?.[field], field).toBeUndefined();
      }
      expect(model).toMatchObject({ provider: 'openai', built_in: false });
    });

    it('store every field except the price', async () => {
      const fields: ModelFields = {
        provider: 'XAI',
        name: `org/${unique('model')}:free`,
        display_name: '',
        context_window_tokens: 1,
        max_output_tokens: 2_147_483_647,
        supports_functions: false,
        supports_vision: true,
        supports_reasoning: false,
        supports_forced_tool_choice: false,
        supports_prefill: true,
        supports_structured_output: false,
        as_of: new Date('2026-01-02T03:04:05.678Z'),
        retires_at: new Date('2030-01-01T00:00:00Z'),
        replaced_by: chars(100),
        parameter_rules: [
          { parameter: 'max_tokens', support: 'PARAMETER_SUPPORT_ACCEPTED', required_default: 5, wire_name: 'w' },
        ],
      };
      const { model } = await createModel(fields);
      expect(model).toMatchObject({ ...fields, provider: 'grok' });
      const { model: read } = await service().providers.getModel({ provider: 'grok', name: present(model).name });
      expect(read).toEqual(model);
    });

    it('store a price and leave unknown rates absent', async () => {
      const price = {
        input_micro_usd_per_million: 0n,
        output_micro_usd_per_million: 1_000_000_000_000n,
        source: chars(200),
      };
      const { model } = await createModel({ price });
      expect(model?.price).toMatchObject(price);
      expect(model?.price?.reasoning_micro_usd_per_million).toBeUndefined();
      expect(model?.price?.valid_from).toBeInstanceOf(Date);
      const { model: read } = await service().providers.getModel({ provider: 'openai', name: present(model).name });
      expect(read).toEqual(model);
    });

    it('get a new price on update, and keep the price in updates of other fields', async () => {
      const { model } = await createModel();
      const { provider, name } = present(model);
      const first = await updateModel({ provider, name, price: { input_micro_usd_per_million: 5n, source: 'a' } });
      const old = present(first.model?.price);
      const other = await updateModel({ provider, name, display_name: 'x' });
      expect(other.model?.price).toEqual(old);
      const second = await updateModel({ provider, name, price: { input_micro_usd_per_million: 6n, source: 'b' } });
      const next = present(second.model?.price);
      expect(next).toMatchObject({ input_micro_usd_per_million: 6n, source: 'b' });
      expect(next.output_micro_usd_per_million).toBeUndefined();
      expect(present(next.valid_from).getTime()).toBeGreaterThanOrEqual(present(old.valid_from).getTime());
    });

    const invalidModels: [ModelFields, string][] = [
      [{ name: '' }, 'model.name'],
      [{ name: chars(101) }, 'model.name'],
      [{ provider: '' }, 'model.provider'],
      [{ display_name: chars(101) }, 'model.display_name'],
      [{ replaced_by: chars(101) }, 'model.replaced_by'],
      [{ context_window_tokens: 0 }, 'model.context_window_tokens'],
      [{ max_output_tokens: 0 }, 'model.max_output_tokens'],
      [{ max_output_tokens: -1 }, 'model.max_output_tokens'],
      [{ price: { input_micro_usd_per_million: -1n, source: 's' } }, 'model.price.input_micro_usd_per_million'],
      [
        { price: { output_micro_usd_per_million: 1_000_000_000_001n, source: 's' } },
        'model.price.output_micro_usd_per_million',
      ],
      [
        { price: { reasoning_micro_usd_per_million: 2n ** 63n - 1n, source: 's' } },
        'model.price.reasoning_micro_usd_per_million',
      ],
      [{ price: { input_micro_usd_per_million: 1n, source: chars(201) } }, 'model.price.source'],
    ];
    it.each(invalidModels)('are rejected with %o', async (fields, field) => {
      await invalid(createModel(fields), field);
    });

    it('set, keep and clear fields', async () => {
      const { provider, name } = await newModel(service(), {
        provider: 'openai',
        display_name: 'd',
        supports_vision: true,
        max_output_tokens: 5,
      });
      const { model } = await updateModel({ provider: 'OPENAI', name, supports_vision: false, replaced_by: 'gpt-4o' });
      expect(model).toMatchObject({
        display_name: 'd',
        supports_vision: false,
        max_output_tokens: 5,
        replaced_by: 'gpt-4o',
      });
      const { model: cleared } = await updateModel({ provider, name }, [
        'display_name',
        'supports_vision',
        'max_output_tokens',
        'replaced_by',
      ]);
      for (const field of ['display_name', 'supports_vision', 'max_output_tokens', 'replaced_by'] as const) {
        expect(cleared?.[field]).toBeUndefined();
      }
      const error = await invalid(updateModel({ provider, name }, ['nonsense', 'built_in', 'created_at']));
      for (const path of ['nonsense', 'built_in', 'created_at'])
        expect(JSON.stringify(error.violations)).toContain(path);
      await invalid(service().providers.updateModel({ model: {} }), 'model.provider', 'model.name');
    });

    it('have unique names within a provider', async () => {
      const { name } = await newModel(service(), { provider: 'openai' });
      await alreadyExists(createModel({ name, provider: 'OpenAI' }), 'MODEL_NAME_TAKEN');
      await createModel({ name, provider: 'claude' });
    });

    it('are rejected for an unknown provider', async () => {
      const before = await revision(service());
      await notFound(createModel({ provider: 'nobody' }), 'PROVIDER_NOT_FOUND');
      expect(await revision(service())).toBe(before);
    });

    it('are not changed or deleted with a stale etag', async () => {
      const { provider, name, etag } = await newModel(service(), { provider: 'openai' });
      const { model } = await updateModel({ provider, name, etag, display_name: 'a' });
      await stale(updateModel({ provider, name, etag, display_name: 'b' }));
      await stale(service().providers.deleteModel({ provider, name, etag }));
      await service().providers.deleteModel({ provider, name, etag: present(model).etag });
      await notFound(service().providers.getModel({ provider, name }), 'MODEL_NOT_FOUND');
    });

    it('are not deleted while they are in use or built in', async () => {
      await precondition(
        service().providers.deleteModel({ provider: 'openai', name: 'gpt-4-turbo' }),
        'BUILT_IN_MODEL',
      );
      const { provider, name } = await newModel(service(), { provider: 'openai' });
      const remove = () => service().providers.deleteModel({ provider: 'OpenAI', name });
      const first = await newConfig(service(), { provider, model_name: name, enabled: false });
      const fallback = await newConfig(service(), { ...GPT4, fallback_provider: provider, fallback_model: name });
      const agent = await newAgent(service(), { llm_provider: provider, llm_model: name });
      const error = await precondition(remove(), 'MODEL_IN_USE');
      expect(error.message).toContain('3');
      await service().configs.deleteConfig({ id: first.id });
      await precondition(remove(), 'MODEL_IN_USE');
      await service().configs.deleteConfig({ id: fallback.id });
      await precondition(remove(), 'MODEL_IN_USE');
      await service().agents.deleteAgent({ agent: { id: agent.id } });
      await remove();
    });

    it('are paged by provider and name, with a page token bound to the filter', async () => {
      const keys: string[] = [];
      let page_token = '';
      let first = '';
      do {
        const page = await service().providers.listModels({ page_size: 7, page_token });
        keys.push(...page.models.map((model) => `${model.provider} ${model.name}`));
        page_token = page.next_page_token;
        first ||= page_token;
      } while (page_token !== '');
      expect(new Set(keys).size).toBe(keys.length);
      const providers = keys.map((key) => key.split(' ')[0]);
      expect(providers).toEqual([...providers].sort());
      const other = service().providers.listModels({ provider: 'openai', page_token: first });
      await refused(other, status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
      const { models } = await service().providers.listModels({ provider: 'ANTHROPIC', page_size: 1000 });
      expect(models.every((model) => model.provider === 'claude')).toBe(true);
      const names = models.map((model) => model.name);
      expect(names).toEqual([...names].sort());
      expect(names).toContain('claude-3-haiku-20240307');
    });

    it('do not change configs when their limits change, and limit the resolved parameters', async () => {
      const { provider, name } = await newModel(service(), { provider: 'openai' });
      const config = await newConfig(service(), { provider, model_name: name, max_tokens: 100 });
      await updateModel({ provider, name, max_output_tokens: 50 });
      expect(await getConfig(service(), config.id)).toEqual(config);
      const { hops } = await service().configs.validateConfig({ id: config.id });
      expect(hops[0]?.parameters.find((each) => each.name === 'max_tokens')?.value_json).toBe('50');
    });
  });
});
