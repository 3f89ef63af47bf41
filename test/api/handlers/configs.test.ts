import { beforeAll, describe, expect, it } from 'vitest';
import { unique, useService } from '../../support/service.js';
import {
  type ConfigFields,
  chars,
  configsOf,
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
  notFound,
  precondition,
  present,
  reasonsOf,
  refused,
  stale,
  status,
  withoutShutdowns,
} from './support.js';

describe('configs', () => {
  const service = useService('embedded');

  const create = async (config: ConfigFields, more: { allow_unknown_model?: boolean } = {}) => {
    const { id } = await newAgent(service());
    return service().configs.createConfig({ agent: { id }, config, ...more });
  };
  const update = (config: ConfigFields & { id: number }, update_mask?: string[]) =>
    service().configs.updateConfig({ config, update_mask });

  describe('CreateConfig', () => {
    it('uses the documented defaults for absent fields', async () => {
      const agent = await newAgent(service());
      const { config, revision, findings } = await service().configs.createConfig({
        agent: { name: agent.name },
        config: GPT4,
      });
      expect(config).toMatchObject({
        agent_id: agent.id,
        agent_name: agent.name,
        provider: 'openai',
        model_name: 'gpt-4',
        temperature: 0.7,
        cost_per_1k_input_tokens: 0,
        cost_per_1k_output_tokens: 0,
        price_given: false,
        enabled: true,
        has_api_key_override: false,
        revision,
      });
      for (const field of ['max_tokens', 'top_p', 'fallback_provider', 'fallback_model', 'metadata_json'] as const) {
        expect(config?.[field]).toBeUndefined();
      }
      expect(config?.updated_at).toEqual(config?.created_at);
      expect(config?.etag).not.toBe('');
      expect(withoutShutdowns(findings)).toEqual([]);
      expect(await getConfig(service(), present(config).id)).toEqual(config);
    });

    it('stores every field and returns what GetConfig reads', async () => {
      const fields = {
        provider: 'openai',
        model_name: 'gpt-5.1',
        temperature: 0,
        max_tokens: 1,
        top_p: 0,
        fallback_provider: 'claude',
        fallback_model: 'claude-opus-4-5',
        cost_per_1k_input_tokens: 0.25,
        cost_per_1k_output_tokens: 1_000_000,
        price_given: true,
        enabled: false,
        metadata_json: '{"team": "a"}',
        priority: -5,
        extra_params: {
          reasoning_effort: 'none',
          stop_sequences: ['a', '\n'],
          seed: 0n,
          request_timeout_ms: 1,
        },
      };
      const { config } = await create(fields);
      expect(config).toMatchObject(fields);
      expect(await getConfig(service(), present(config).id)).toEqual(config);
    });

    it('ignores output-only fields', async () => {
      const agent = await newAgent(service());
      const other = await newAgent(service());
      const config = await newConfig(
        service(),
        { id: 2_000_000_000, agent_id: other.id, agent_name: 'x', has_api_key_override: true, revision: 3n },
        agent,
      );
      expect(config).toMatchObject({ agent_id: agent.id, agent_name: agent.name, has_api_key_override: false });
      expect(config.id).not.toBe(2_000_000_000);
    });

    it('places each config after the last one of its agent', async () => {
      const agent = await newAgent(service());
      const first = await newConfig(service(), { priority: 10 }, agent);
      const second = await newConfig(service(), { enabled: false }, agent);
      const third = await newConfig(service(), {}, agent);
      const orderOf = ({ priority, id }: typeof first) => [present(priority), id] as const;
      for (const [before, after] of [
        [first, second],
        [second, third],
      ] as const) {
        const [p, i] = orderOf(before);
        const [q, j] = orderOf(after);
        expect(q > p || (q === p && j > i)).toBe(true);
      }
    });

    it('succeeds when the last config has the greatest priority', async () => {
      const agent = await newAgent(service());
      await newConfig(service(), { priority: 1_000_000 }, agent);
      const last = await newConfig(service(), {}, agent);
      expect(last.priority).toBe(1_000_000);
    });

    it('returns a violation for every invalid field', async () => {
      await invalid(
        create({
          temperature: 3,
          max_tokens: 0,
          top_p: 1.1,
          fallback_provider: 'claude',
          cost_per_1k_input_tokens: -1,
          cost_per_1k_output_tokens: Number.NaN,
          metadata_json: '[]',
          priority: 1_000_001,
          extra_params: { request_timeout_ms: 0, thinking_budget_tokens: -1, reasoning_effort: '', seed: 2n ** 60n },
        }),
        'config.provider',
        'config.model_name',
        'config.temperature',
        'config.max_tokens',
        'config.top_p',
        'config.fallback_model',
        'config.cost_per_1k_input_tokens',
        'config.cost_per_1k_output_tokens',
        'config.metadata_json',
        'config.priority',
        'config.extra_params.request_timeout_ms',
        'config.extra_params.thinking_budget_tokens',
        'config.extra_params.reasoning_effort',
        'config.extra_params.seed',
      );
    });

    it('formats its error message as documented', async () => {
      const error = await invalid(create({ provider: 'openai', temperature: 3 }));
      expect(error.message).toContain('2 problems');
      expect(error.message).toMatch(/config\.temperature: must be .*between 0 and 2, not 3/);
      expect(error.message).toContain('config.model_name: is required');
    });

    it('requires an agent and a config', async () => {
      await invalid(service().configs.createConfig({ config: GPT4 }), 'agent');
      const { id } = await newAgent(service());
      const error = await invalid(service().configs.createConfig({ agent: { id } }));
      expect(error.fields.every((field) => field.startsWith('config'))).toBe(true);
    });

    it('returns NOT_FOUND with a suggestion for an unknown agent', async () => {
      await notFound(service().configs.createConfig({ agent: { id: 2_147_483_647 }, config: GPT4 }), 'AGENT_NOT_FOUND');
      const call = service().configs.createConfig({ agent: { name: 'tradr' }, config: GPT4 });
      expect((await notFound(call, 'AGENT_NOT_FOUND')).message).toContain('"trader"');
    });

    const ranges: [string, ConfigFields, ConfigFields][] = [
      ['config.temperature', { temperature: 2 }, { temperature: 2.000_000_1 }],
      ['config.temperature', { temperature: 0 }, { temperature: -0.000_1 }],
      ['config.top_p', { top_p: 1 }, { top_p: 1.000_000_1 }],
      ['config.top_p', { top_p: 0 }, { top_p: -0.1 }],
      ['config.max_tokens', { max_tokens: 1 }, { max_tokens: 0 }],
      ['config.max_tokens', { max_tokens: 4096 }, { max_tokens: 4097 }],
      ['config.cost_per_1k_input_tokens', { cost_per_1k_input_tokens: 1e6 }, { cost_per_1k_input_tokens: 1_000_000.1 }],
      ['config.cost_per_1k_output_tokens', { cost_per_1k_output_tokens: 0 }, { cost_per_1k_output_tokens: -0.1 }],
      ['config.priority', { priority: 1_000_000 }, { priority: 1_000_001 }],
      ['config.priority', { priority: -1_000_000 }, { priority: -1_000_001 }],
      ['config.metadata_json', { metadata_json: '{}' }, { metadata_json: '' }],
    ];
    it.each(ranges)('accepts %s at its limit %o and rejects %o', async (field, valid, invalidFields) => {
      const { config } = await create({ ...GPT4, ...valid });
      expect(config).toMatchObject(valid);
      await invalid(create({ ...GPT4, ...invalidFields }), field);
    });

    // This provider accepts any reasoning effort, and as many stop sequences as the field allows.
    const COMPATIBLE = { provider: 'compatible', model_name: 'm' };
    beforeAll(() => newProvider(service(), { name: COMPATIBLE.provider }));
    const extras: [string, ConfigFields, NonNullable<ConfigFields['extra_params']>, object][] = [
      ['seed', GPT4, { seed: 9_007_199_254_740_991n }, { seed: 9_007_199_254_740_992n }],
      ['seed', GPT4, { seed: -9_007_199_254_740_991n }, { seed: -9_007_199_254_740_992n }],
      ['request_timeout_ms', GPT4, { request_timeout_ms: 3_600_000 }, { request_timeout_ms: 3_600_001 }],
      ['request_timeout_ms', GPT4, { request_timeout_ms: 1 }, { request_timeout_ms: 0 }],
      [
        'thinking_budget_tokens',
        { provider: 'claude', model_name: 'claude-opus-4-5' },
        { thinking_budget_tokens: 0 },
        { thinking_budget_tokens: -1 },
      ],
      [
        'thinking_budget_tokens',
        { provider: 'claude', model_name: 'claude-opus-4-5' },
        { thinking_budget_tokens: 1_000_000 },
        { thinking_budget_tokens: 1_000_001 },
      ],
      ['reasoning_effort', COMPATIBLE, { reasoning_effort: chars(20) }, { reasoning_effort: chars(21) }],
      [
        'stop_sequences',
        COMPATIBLE,
        { stop_sequences: Array.from({ length: 16 }, (_, i) => `${'🎈'.repeat(254)}${i + 10}`) },
        { stop_sequences: Array.from({ length: 17 }, (_, i) => `s${i}`) },
      ],
      ['stop_sequences', GPT4, { stop_sequences: ['s'] }, { stop_sequences: [chars(257)] }],
      ['stop_sequences', GPT4, { stop_sequences: [chars(256)] }, { stop_sequences: [''] }],
    ];
    it.each(extras)('accepts extra_params.%s of %o up to its limit', async (field, model, valid, invalidParams) => {
      const { config } = await create({ ...model, extra_params: valid });
      expect(config?.extra_params).toMatchObject(valid);
      const error = await invalid(create({ ...model, extra_params: invalidParams }));
      expect(error.fields).toHaveLength(1);
      expect(error.fields[0]).toMatch(new RegExp(`^config\\.extra_params\\.${field}(\\[\\d+\\])?$`));
    });

    describe('providers and models', () => {
      const aliases = [
        ['OpenAI', 'openai', 'gpt-4'],
        ['OPENAI', 'openai', 'gpt-4o'],
        ['anthropic', 'claude', 'claude-3-opus-20240229'],
        ['Anthropic', 'claude', 'claude-3-5-sonnet'],
        ['CLAUDE', 'claude', 'claude-3-haiku-20240307'],
        ['xai', 'grok', 'grok-beta'],
        ['X-AI', 'grok', 'grok-vision-beta'],
        ['DeepSeek', 'deepseek', 'deepseek-chat'],
      ] as const;
      it.each(aliases)('stores %s as %s', async (alias, canonical, model_name) => {
        const fallback = canonical === 'openai' ? HAIKU : GPT4;
        const { config } = await create({ provider: alias, model_name });
        expect(config?.provider).toBe(canonical);
        const { config: other } = await create({
          ...fallback,
          temperature: 0.5,
          fallback_provider: alias,
          fallback_model: model_name,
        });
        expect(other?.fallback_provider).toBe(canonical);
        const listed = await service().configs.listConfigs({
          agent: { id: present(config).agent_id },
          provider: alias,
        });
        expect(listed.configs.map((each) => each.id)).toEqual([present(config).id]);
      });

      it('rejects an unknown provider with a list of the known ones', async () => {
        const error = await invalid(create({ provider: 'opnai', model_name: 'gpt-4' }), 'config.provider');
        const text = present(error.violations[0]).description;
        expect(text).toMatch(/^Invalid provider/);
        for (const known of ['openai', 'deepseek', 'grok', 'claude']) expect(text).toContain(known);
      });

      it('rejects an unknown model with a suggestion', async () => {
        const error = await invalid(create({ provider: 'openai', model_name: 'gpt-4oo' }), 'config.model_name');
        const text = present(error.violations[0]).description;
        expect(text).toMatch(/^Invalid model/);
        expect(text).toContain('gpt-4o');
      });

      it('matches model names exactly', async () => {
        await invalid(create({ provider: 'openai', model_name: 'GPT-4' }), 'config.model_name');
      });

      it('rejects a model of another provider', async () => {
        await invalid(create({ provider: 'claude', model_name: 'gpt-4' }), 'config.model_name');
      });

      it('accepts unknown models with a finding when the request allows them', async () => {
        const fields = {
          provider: 'openai',
          model_name: 'gpt-99',
          fallback_provider: 'claude',
          fallback_model: 'claude-99',
        };
        await invalid(create(fields), 'config.model_name', 'config.fallback_model');
        const { config, findings } = await create(fields, { allow_unknown_model: true });
        expect(config).toMatchObject(fields);
        expect(reasonsOf(findings)).toContain('UNKNOWN_MODEL');
      });

      it('rejects an unknown provider even with allow_unknown_model', async () => {
        await invalid(
          create({ provider: 'nobody', model_name: 'm' }, { allow_unknown_model: true }),
          'config.provider',
        );
      });

      it('accepts later changes of other fields of a config with an allowed unknown model', async () => {
        const config = await newConfig(service(), { provider: 'openai', model_name: 'gpt-98' }, undefined, true);
        const { config: changed } = await update({ id: config.id, metadata_json: '{}' });
        expect(changed).toMatchObject({ model_name: 'gpt-98', metadata_json: '{}' });
      });

      it('accepts any model name of up to 100 characters when the provider allows unknown models', async () => {
        const { name } = await newProvider(service());
        const model_name = '🎈'.repeat(100);
        const { config } = await create({ provider: name, model_name, max_tokens: 2_147_483_647 });
        expect(config).toMatchObject({ provider: name, model_name });
        await invalid(create({ provider: name, model_name: `${model_name}x` }), 'config.model_name');
        await invalid(create({ provider: name, model_name: '' }), 'config.model_name');
      });

      it('rejects unknown models when the provider does not allow them', async () => {
        const { name } = await newProvider(service(), { allow_unknown_models: false });
        await invalid(create({ provider: name, model_name: 'm' }), 'config.model_name');
        const model = await newModel(service(), { provider: name });
        await create({ provider: name, model_name: model.name });
      });

      it('rejects a disabled provider', async () => {
        const { name } = await newProvider(service(), { enabled: false });
        await invalid(create({ provider: name, model_name: 'm' }), 'config.provider');
        await invalid(create({ ...GPT4, fallback_provider: name, fallback_model: 'm' }), 'config.fallback_provider');
      });
    });

    describe('rules of models', () => {
      it.each(['claude-3-haiku-20240307', 'claude-3-5-sonnet-20241022', 'claude-opus-4-5'])(
        'limits the temperature of %s to 1.0',
        async (model_name) => {
          const { config } = await create({ provider: 'claude', model_name, temperature: 1 });
          expect(config?.temperature).toBe(1);
          const error = await invalid(
            create({ provider: 'claude', model_name, temperature: 1.01 }),
            'config.temperature',
          );
          expect(error.message).toContain('1');
        },
      );

      const limits = [
        ['openai', 'gpt-4', 4096],
        ['openai', 'gpt-4o-mini', 16_384],
        ['openai', 'o4-mini', 100_000],
        ['deepseek', 'deepseek-chat', 4096],
        ['claude', 'claude-3-5-sonnet-20241022', 8192],
        ['claude', 'claude-opus-4-5', 64_000],
      ] as const;
      it.each(limits)(
        'limits max_tokens of %s/%s to the %i output tokens of the model',
        async (provider, model_name, limit) => {
          const { config } = await create({ provider, model_name, max_tokens: limit });
          expect(config?.max_tokens).toBe(limit);
          await invalid(create({ provider, model_name, max_tokens: limit + 1 }), 'config.max_tokens');
        },
      );

      it('validates stored parameters against a new model', async () => {
        const { id } = await newConfig(service(), { temperature: 1.5, max_tokens: 4096 });
        await invalid(update({ id, ...HAIKU }), 'config.temperature');
        expect((await getConfig(service(), id)).provider).toBe('openai');
        const { config } = await update({ id, ...HAIKU, temperature: 1 });
        expect(config).toMatchObject({ ...HAIKU, temperature: 1, max_tokens: 4096 });
        const large = await newConfig(service(), { model_name: 'gpt-4o', max_tokens: 16_384 });
        await invalid(update({ id: large.id, model_name: 'gpt-4' }), 'config.max_tokens');
      });

      const finds: [string, ConfigFields, string, string, string, string][] = [
        [
          'o4-mini rejects temperature',
          { provider: 'openai', model_name: 'o4-mini' },
          'PARAMETER_REJECTED',
          'config.temperature',
          '0.7',
          '',
        ],
        [
          'claude-opus-5 rejects temperature',
          { provider: 'claude', model_name: 'claude-opus-5', temperature: 0, max_tokens: 5 },
          'PARAMETER_REJECTED',
          'config.temperature',
          '0',
          '',
        ],
        [
          'deepseek-reasoner ignores temperature',
          { provider: 'deepseek', model_name: 'deepseek-reasoner' },
          'PARAMETER_IGNORED',
          'config.temperature',
          '0.7',
          '',
        ],
        [
          'gpt-5 rejects top_p',
          { provider: 'openai', model_name: 'gpt-5', top_p: 0.5 },
          'PARAMETER_REJECTED',
          'config.temperature',
          '0.7',
          '',
        ],
        [
          'claude does not accept top_p with temperature',
          { ...HAIKU, top_p: 0.5, max_tokens: 5 },
          'PARAMETER_CONFLICT',
          'config.top_p',
          '0.5',
          '',
        ],
        ['claude requires max_tokens', HAIKU, 'PARAMETER_REQUIRED', 'config.max_tokens', '', '4096'],
      ];
      it.each(finds)(
        'stores the config with a finding although %s',
        async (_, fields, reason, field, configured, effective) => {
          const { config, findings } = await create(fields);
          const finding = findingOf(findings, reason);
          expect(finding).toMatchObject({ field, configured, effective, hop: 0 });
          expect(finding.message).not.toBe('');
          expect(finding.severity).not.toBe('SEVERITY_UNSPECIFIED');
          expect(config).toMatchObject(fields);
        },
      );

      it('returns no finding for a rejected parameter that is not set', async () => {
        const { config } = await create({ provider: 'openai', model_name: 'o4-mini' });
        const { findings, config: cleared } = await update({ id: present(config).id }, ['temperature']);
        expect(cleared?.temperature).toBeUndefined();
        expect(reasonsOf(findings)).not.toContain('PARAMETER_REJECTED');
      });

      it('accepts a temperature for gpt-5.1 without reasoning effort', async () => {
        const fields = { provider: 'openai', model_name: 'gpt-5.1', temperature: 1.5 };
        const none = await create({ ...fields, extra_params: { reasoning_effort: 'none' } });
        expect(reasonsOf(none.findings)).not.toContain('PARAMETER_REJECTED');
        const high = await create({ ...fields, extra_params: { reasoning_effort: 'high' } });
        expect(reasonsOf(high.findings)).toContain('PARAMETER_REJECTED');
      });

      const refusals: [ConfigFields, string][] = [
        [{ ...GPT4, extra_params: { reasoning_effort: 'low' } }, 'config.extra_params.reasoning_effort'],
        [{ ...GPT4, extra_params: { thinking_budget_tokens: 100 } }, 'config.extra_params.thinking_budget_tokens'],
        [{ ...HAIKU, extra_params: { seed: 1n } }, 'config.extra_params.seed'],
        [{ ...HAIKU, extra_params: { thinking_budget_tokens: 100 } }, 'config.extra_params.thinking_budget_tokens'],
        [
          { provider: 'grok', model_name: 'grok-beta', extra_params: { stop_sequences: ['x'] } },
          'config.extra_params.stop_sequences',
        ],
        [
          { provider: 'grok', model_name: 'grok-4.20-reasoning', extra_params: { reasoning_effort: 'low' } },
          'config.extra_params.reasoning_effort',
        ],
      ];
      it.each(refusals)('rejects %o as the model does', async (fields, field) => {
        await invalid(create(fields), field);
      });

      it('applies the rules of a model over those of its provider', async () => {
        const rule = { parameter: 'reasoning_effort', support: 'PARAMETER_SUPPORT_ACCEPTED' } as const;
        const { name } = await newProvider(service(), {
          parameter_rules: [
            { parameter: 'temperature', support: 'PARAMETER_SUPPORT_ACCEPTED', minimum: 0.5, maximum: 1.5 },
            { ...rule, allowed_values: ['low', 'high'] },
          ],
        });
        const model = await newModel(service(), {
          provider: name,
          max_output_tokens: 10,
          parameter_rules: [
            { parameter: 'temperature', support: 'PARAMETER_SUPPORT_ACCEPTED', minimum: 0, maximum: 0.5 },
          ],
        });
        await create({ provider: name, model_name: model.name, temperature: 0.25, max_tokens: 10 });
        await invalid(
          create({ provider: name, model_name: model.name, temperature: 0.75, max_tokens: 11 }),
          'config.temperature',
          'config.max_tokens',
        );
        await create({
          provider: name,
          model_name: 'any',
          temperature: 0.75,
          extra_params: { reasoning_effort: 'low' },
        });
        await invalid(create({ provider: name, model_name: 'any', temperature: 0.25 }), 'config.temperature');
        await invalid(
          create({ provider: name, model_name: 'any', extra_params: { reasoning_effort: 'medium' } }),
          'config.extra_params.reasoning_effort',
        );
      });
    });

    describe('fallbacks', () => {
      it('accepts another model of the same provider', async () => {
        const { config } = await create({ ...GPT4, fallback_provider: 'openai', fallback_model: 'gpt-4o' });
        expect(config).toMatchObject({ fallback_provider: 'openai', fallback_model: 'gpt-4o' });
      });

      it('rejects a fallback with only a provider or only a model', async () => {
        await invalid(create({ ...GPT4, fallback_provider: 'claude' }), 'config.fallback_model');
        await invalid(create({ ...GPT4, fallback_model: 'gpt-4o' }), 'config.fallback_provider');
      });

      it('rejects a fallback that equals the config, also under an alias', async () => {
        for (const pair of [
          { ...GPT4, fallback_provider: 'OpenAI', fallback_model: 'gpt-4' },
          { ...HAIKU, fallback_provider: 'anthropic', fallback_model: present(HAIKU.model_name) },
        ]) {
          const error = await invalid(create(pair));
          expect(error.fields.every((field) => field.startsWith('config.fallback_'))).toBe(true);
        }
      });

      it('rejects an unknown provider and an unknown model', async () => {
        const provider = await invalid(
          create({ ...GPT4, fallback_provider: 'nobody', fallback_model: 'x' }),
          'config.fallback_provider',
        );
        expect(provider.violations[0]?.description).toMatch(/^Invalid provider/);
        const model = await invalid(
          create({ ...GPT4, fallback_provider: 'claude', fallback_model: 'gpt-4' }),
          'config.fallback_model',
        );
        expect(model.violations[0]?.description).toMatch(/^Invalid model/);
        await invalid(create({ ...GPT4, fallback_provider: 'claude', fallback_model: '' }), 'config.fallback_model');
      });

      it('validates the fallback after an update as on create', async () => {
        const { id } = await newConfig(service(), { fallback_provider: 'openai', fallback_model: 'gpt-4o' });
        await invalid(update({ id, model_name: 'gpt-4o' }));
        await invalid(update({ id }, ['fallback_model']));
        await invalid(update({ id }, ['fallback_provider']));
        await invalid(update({ id, fallback_provider: 'claude' }), 'config.fallback_model');
        const { config } = await update({ id }, ['fallback_provider', 'fallback_model']);
        expect([config?.fallback_provider, config?.fallback_model]).toEqual([undefined, undefined]);
        await invalid(update({ id, fallback_model: 'gpt-4o' }), 'config.fallback_provider');
      });
    });

    describe('prices', () => {
      const pricing: [string, ConfigFields, number, number, boolean][] = [
        ['no costs', {}, 0, 0, false],
        ['a cost of 0', { cost_per_1k_input_tokens: 0 }, 0, 0, true],
        ['one cost', { cost_per_1k_output_tokens: 0.5 }, 0, 0.5, true],
        ['both costs', { cost_per_1k_input_tokens: 0.25, cost_per_1k_output_tokens: 0.5 }, 0.25, 0.5, true],
        ['price_given alone', { price_given: true }, 0, 0, true],
        ['price_given false and costs of 0', { price_given: false, cost_per_1k_input_tokens: 0 }, 0, 0, false],
      ];
      it.each(pricing)('stores %s', async (_, fields, input, output, price_given) => {
        const { config } = await create({ ...GPT4, ...fields });
        expect(config).toMatchObject({
          cost_per_1k_input_tokens: input,
          cost_per_1k_output_tokens: output,
          price_given,
        });
      });

      it('rejects a cost with price_given = false', async () => {
        const error = await invalid(create({ ...GPT4, price_given: false, cost_per_1k_input_tokens: 1 }));
        expect(error.fields.join()).toMatch(/price_given|cost_per_1k_input_tokens/);
        const { id } = await newConfig(service());
        await invalid(update({ id, price_given: false, cost_per_1k_output_tokens: 1 }));
      });

      it('returns a finding when only one of the two prices is set', async () => {
        const half = await create({ ...GPT4, cost_per_1k_input_tokens: 1 });
        expect(reasonsOf(half.findings)).toContain('PRICE_HALF_GIVEN');
        const both = await create({ ...GPT4, cost_per_1k_input_tokens: 1, cost_per_1k_output_tokens: 2 });
        expect(reasonsOf(both.findings)).not.toContain('PRICE_HALF_GIVEN');
      });

      it('keeps prices in updates of other fields', async () => {
        const { id } = await newConfig(service(), { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 3 });
        const { config } = await update({ id, temperature: 1 });
        expect(config).toMatchObject({ cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 3, price_given: true });
      });

      it('clears prices with price_given = false', async () => {
        const { id } = await newConfig(service(), { cost_per_1k_input_tokens: 2, cost_per_1k_output_tokens: 3 });
        const { config } = await update({ id, price_given: false });
        expect(config).toMatchObject({ cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0, price_given: false });
        const { config: free } = await update({ id, cost_per_1k_input_tokens: 0 });
        expect(free?.price_given).toBe(true);
      });

      it('resets cleared costs to 0 with price_given = false', async () => {
        const { id } = await newConfig(service(), { cost_per_1k_input_tokens: 2, cost_per_1k_output_tokens: 3 });
        const { config } = await update({ id }, ['cost_per_1k_input_tokens', 'cost_per_1k_output_tokens']);
        expect(config).toMatchObject({ cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0, price_given: false });
      });

      it('keeps price_given while only one of the two costs is cleared', async () => {
        const { id } = await newConfig(service(), { cost_per_1k_input_tokens: 2, cost_per_1k_output_tokens: 3 });
        const { config } = await update({ id }, ['cost_per_1k_input_tokens']);
        expect(config).toMatchObject({ cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 3, price_given: true });
      });
    });

    describe('API keys', () => {
      it('rejects a key without an encryption key, and does not repeat it', async () => {
        const { id } = await newAgent(service());
        const api_key = 'sk-CANARY-1234567890';
        const config = await newConfig(service(), {}, { id });
        for (const call of [
          () => service().configs.createConfig({ agent: { id }, config: GPT4, api_key }),
          () => service().configs.updateConfig({ config: { id: config.id, temperature: 1 }, api_key }),
          () => service().configs.upsertPrimaryConfig({ agent: { id }, config: { temperature: 1 }, api_key }),
          () => service().configs.bulkAssignConfig({ agents: [{ id }], config: { temperature: 1 }, api_key }),
        ]) {
          const error = await precondition(call(), 'ENCRYPTION_NOT_CONFIGURED');
          expect(JSON.stringify({ ...error, message: error.message })).not.toContain('CANARY');
        }
        expect(await configsOf(service(), id)).toEqual([config]);
      });

      it('accepts clear_api_key without a stored key, but not together with a key', async () => {
        const { id } = await newConfig(service());
        const { config } = await service().configs.updateConfig({
          config: { id, temperature: 1 },
          clear_api_key: true,
        });
        expect(config).toMatchObject({ has_api_key_override: false, temperature: 1 });
        const call = service().configs.updateConfig({ config: { id }, api_key: 'sk-1', clear_api_key: true });
        const error = await invalid(call);
        expect(error.fields.join()).toMatch(/api_key/);
      });
    });
  });

  describe('GetConfig', () => {
    it('returns a disabled config', async () => {
      const config = await newConfig(service(), { enabled: false });
      expect(await getConfig(service(), config.id)).toEqual(config);
    });

    it('returns NOT_FOUND for an unknown id', async () => {
      const error = await notFound(service().configs.getConfig({ id: 2_147_483_647 }), 'CONFIG_NOT_FOUND');
      expect(error.message).toContain('2147483647');
      for (const id of [0, -1]) await invalid(service().configs.getConfig({ id }), 'id');
    });
  });

  describe('ListConfigs', () => {
    it('returns the configs that match agent, provider, model and enabled', async () => {
      const agent = await newAgent(service());
      const a = (await newConfig(service(), { priority: 9 }, agent)).id;
      const b = (await newConfig(service(), { ...HAIKU, priority: 1 }, agent)).id;
      const c = (await newConfig(service(), { enabled: false, priority: 0 }, agent)).id;
      const ids = async (filter: object) =>
        (await service().configs.listConfigs({ agent: { name: agent.name }, ...filter })).configs.map(({ id }) => id);
      expect(await ids({})).toEqual([a, b, c]);
      expect(await ids({ provider: 'ANTHROPIC' })).toEqual([b]);
      expect(await ids({ provider: 'openai', enabled: true })).toEqual([a]);
      expect(await ids({ enabled: false })).toEqual([c]);
      expect(await ids({ model_name: 'gpt-4' })).toEqual([a, c]);
      expect(await ids({ model_name: 'gpt' })).toEqual([]);
      expect(await ids({ model_name: 'gpt-4', provider: 'claude' })).toEqual([]);
    });

    it('returns the configs of all agents by id', async () => {
      const created = [await newConfig(service()), await newConfig(service())];
      const { configs } = await service().configs.listConfigs({ page_size: 1000 });
      const ids = configs.map((config) => config.id);
      expect(ids).toEqual([...ids].sort((x, y) => x - y));
      expect(ids).toEqual(expect.arrayContaining(created.map((config) => config.id)));
    });

    it('rejects filters with an unknown agent or provider', async () => {
      await notFound(service().configs.listConfigs({ agent: { name: unique('none') } }), 'AGENT_NOT_FOUND');
      const error = await invalid(service().configs.listConfigs({ provider: 'opnai' }), 'provider');
      expect(error.message).toContain('Invalid provider');
    });

    it('pages without loss or repetition while configs are deleted', async () => {
      const agent = await newAgent(service());
      const created: number[] = [];
      for (let i = 0; i < 5; i += 1) created.push((await newConfig(service(), {}, agent)).id);
      const seen: number[] = [];
      let page_token = '';
      do {
        const page = await service().configs.listConfigs({ agent: { id: agent.id }, page_size: 2, page_token });
        seen.push(...page.configs.map((config) => config.id));
        if (page_token === '') await service().configs.deleteConfig({ id: present(created[0]) });
        page_token = page.next_page_token;
      } while (page_token !== '');
      expect(seen).toEqual(created);
    });

    it('rejects page tokens of another filter', async () => {
      const agent = await newAgent(service());
      for (let i = 0; i < 2; i += 1) await newConfig(service(), {}, agent);
      const { next_page_token } = await service().configs.listConfigs({ agent: { id: agent.id }, page_size: 1 });
      for (const filter of [{}, { agent: { id: agent.id }, enabled: true }, { agent: { name: 'trader' } }]) {
        const call = service().configs.listConfigs({ ...filter, page_token: next_page_token });
        await refused(call, status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
      }
      const garbage = service().configs.listConfigs({ page_token: `${next_page_token}x` });
      await refused(garbage, status.INVALID_ARGUMENT, 'INVALID_PAGE_TOKEN');
      await invalid(service().configs.listConfigs({ page_size: -1 }), 'page_size');
    });
  });

  describe('UpdateConfig', () => {
    const values: [keyof ConfigFields & keyof Awaited<ReturnType<typeof newConfig>>, unknown, unknown][] = [
      ['temperature', 0, undefined],
      ['max_tokens', 1, undefined],
      ['top_p', 0, undefined],
      ['cost_per_1k_input_tokens', 1.5, 0],
      ['cost_per_1k_output_tokens', 1.5, 0],
      ['price_given', true, false],
      ['enabled', false, true],
      ['metadata_json', '{"a":  1}', undefined],
    ];
    it.each(values)('sets %s, keeps it in other updates and clears it by mask', async (field, value, cleared) => {
      const { id } = await newConfig(service());
      expect((await update({ id, [field]: value })).config?.[field]).toEqual(value);
      await update({ id, priority: 3 });
      expect((await getConfig(service(), id))[field]).toEqual(value);
      await update({ id, [field]: value, priority: 4 }, ['priority']);
      expect((await getConfig(service(), id))[field]).toEqual(value);
      await update({ id }, [field]);
      expect((await getConfig(service(), id))[field]).toEqual(cleared);
    });

    const model = { provider: 'openai', model_name: 'gpt-5.1' };
    const extras: [ConfigFields, string, unknown, unknown][] = [
      [model, 'reasoning_effort', 'low', undefined],
      [model, 'seed', 0n, undefined],
      [model, 'stop_sequences', ['a'], []],
      [model, 'request_timeout_ms', 1, undefined],
      [{ provider: 'claude', model_name: 'claude-opus-4-5' }, 'thinking_budget_tokens', 0, undefined],
    ];
    it.each(extras)(
      'of %o sets extra_params.%s, keeps it in other updates and clears it by mask',
      async (fields, name, value, cleared) => {
        const { id } = await newConfig(service(), fields);
        const read = async () => (await getConfig(service(), id)).extra_params as unknown as Record<string, unknown>;
        const path = `extra_params.${name}`;
        const other = name === 'request_timeout_ms' ? { stop_sequences: ['z'] } : { request_timeout_ms: 77 };
        await update({ id, extra_params: { [name]: value } }, [path]);
        expect((await read())[name]).toEqual(value);
        await update({ id, extra_params: other });
        expect(await read()).toMatchObject({ ...other, [name]: value });
        await update({ id }, [path]);
        expect((await read())[name]).toEqual(cleared);
        expect(await read()).toMatchObject(other);
      },
    );

    it('replaces or clears all extra parameters with the path extra_params', async () => {
      const { id } = await newConfig(service(), { extra_params: { seed: 1n, request_timeout_ms: 5 } });
      const { config } = await update({ id, extra_params: { seed: 2n } }, ['extra_params']);
      expect(config?.extra_params?.seed).toBe(2n);
      expect(config?.extra_params?.request_timeout_ms).toBeUndefined();
      const { config: cleared } = await update({ id }, ['extra_params']);
      expect(cleared?.extra_params?.seed).toBeUndefined();
    });

    it('resets a cleared priority', async () => {
      const { id } = await newConfig(service(), { priority: 12 });
      const { config } = await update({ id }, ['priority']);
      expect(config?.priority).not.toBe(12);
    });

    it('changes provider and model together', async () => {
      const { id } = await newConfig(service(), { temperature: 1 });
      const { config } = await update({ id, provider: 'Anthropic', model_name: 'claude-3-haiku-20240307' });
      expect(config).toMatchObject(HAIKU);
    });

    it('rejects a mask that clears provider and model_name', async () => {
      const { id } = await newConfig(service());
      await invalid(update({ id }, ['provider', 'model_name']), 'config.provider', 'config.model_name');
    });

    it('returns a violation for every unknown or output-only path', async () => {
      const { id } = await newConfig(service());
      const invalidPaths = [
        'nonsense',
        'config.temperature',
        'extra_params.nonsense',
        'temperature.value',
        'id',
        'agent_id',
        'agent_name',
        'has_api_key_override',
        'created_at',
        'updated_at',
        'revision',
        'api_key',
        '',
      ];
      const error = await invalid(update({ id, temperature: 1 }, ['temperature', ...invalidPaths]));
      expect(error.violations).toHaveLength(invalidPaths.length);
      const text = JSON.stringify(error.violations);
      for (const path of invalidPaths) expect(text).toContain(path);
      expect((await getConfig(service(), id)).temperature).toBe(0.7);
    });

    it('accepts at most 100 paths', async () => {
      const { id } = await newConfig(service());
      const { config } = await update({ id, temperature: 1 }, Array(100).fill('temperature'));
      expect(config?.temperature).toBe(1);
      await invalid(update({ id, temperature: 0 }, Array(101).fill('temperature')), 'update_mask.paths');
    });

    it('replaces all fields with the mask *', async () => {
      const before = await newConfig(service(), {
        max_tokens: 7,
        top_p: 0.5,
        enabled: false,
        metadata_json: '{}',
        cost_per_1k_input_tokens: 4,
        fallback_provider: 'claude',
        fallback_model: 'claude-opus-4-5',
        extra_params: { seed: 4n },
      });
      const { config } = await update({ id: before.id, provider: 'openai', model_name: 'gpt-4o', top_p: 1 }, ['*']);
      expect(config).toMatchObject({
        model_name: 'gpt-4o',
        top_p: 1,
        enabled: true,
        cost_per_1k_input_tokens: 0,
        price_given: false,
      });
      for (const field of [
        'temperature',
        'max_tokens',
        'metadata_json',
        'fallback_provider',
        'fallback_model',
      ] as const) {
        expect(config?.[field]).toBeUndefined();
      }
      expect(config?.extra_params?.seed).toBeUndefined();
      await invalid(update({ id: before.id, top_p: 1 }, ['*']), 'config.provider', 'config.model_name');
    });

    it('never moves a config to another agent', async () => {
      const other = await newAgent(service());
      const before = await newConfig(service());
      const outcome = await update({ id: before.id, agent_id: other.id, agent_name: other.name }).catch(
        () => undefined,
      );
      expect((await getConfig(service(), before.id)).agent_id).toBe(before.agent_id);
      expect(await configsOf(service(), other.id)).toEqual([]);
      if (outcome) expect(outcome.config?.agent_id).toBe(before.agent_id);
    });

    it('accepts a config as it was read', async () => {
      const before = await newConfig(service(), { cost_per_1k_input_tokens: 1, extra_params: { seed: 3n } });
      const { config } = await service().configs.updateConfig({ config: before });
      const { etag: _e, revision: _r, updated_at: _u, ...same } = before;
      expect(config).toMatchObject(same);
      expect(config?.etag).not.toBe(before.etag);
    });

    it('updates updated_at and the revision and keeps created_at, even if no field changes', async () => {
      const before = await newConfig(service());
      const { config, revision } = await update({ id: before.id, temperature: 0.7 });
      expect(revision).toBeGreaterThan(before.revision);
      expect(config?.revision).toBe(revision);
      expect(config?.created_at).toEqual(before.created_at);
      expect(present(config?.updated_at).getTime()).toBeGreaterThanOrEqual(present(before.updated_at).getTime());
    });

    it('rejects a stale etag and accepts the current one', async () => {
      const { id, etag } = await newConfig(service());
      const { config } = await update({ id, etag, temperature: 1 });
      const error = await stale(update({ id, etag, temperature: 2 }));
      expect(error.message).toContain(String(id));
      await stale(update({ id, etag: chars(100), temperature: 2 }));
      expect((await getConfig(service(), id)).temperature).toBe(1);
      await update({ id, etag: present(config).etag, temperature: 2 });
    });

    it('returns NOT_FOUND for an unknown id', async () => {
      await notFound(update({ id: 2_147_483_647, temperature: 1 }), 'CONFIG_NOT_FOUND');
      await invalid(service().configs.updateConfig({ config: { temperature: 1 } }), 'config.id');
      const error = await invalid(service().configs.updateConfig({}));
      expect(error.fields.every((field) => field.startsWith('config'))).toBe(true);
    });
  });

  describe('DeleteConfig', () => {
    it('deletes a config permanently', async () => {
      const { id, agent_id } = await newConfig(service());
      await service().configs.deleteConfig({ id });
      await notFound(service().configs.getConfig({ id }), 'CONFIG_NOT_FOUND');
      await notFound(service().configs.deleteConfig({ id }), 'CONFIG_NOT_FOUND');
      await notFound(update({ id, temperature: 1 }), 'CONFIG_NOT_FOUND');
      expect(await configsOf(service(), agent_id)).toEqual([]);
      await service().agents.deleteAgent({ agent: { id: agent_id } });
    });

    it('rejects a stale etag and accepts the current one', async () => {
      const { id, etag } = await newConfig(service());
      const { config } = await update({ id, temperature: 1 });
      await stale(service().configs.deleteConfig({ id, etag }));
      expect(await getConfig(service(), id)).toEqual(config);
      await service().configs.deleteConfig({ id, etag: present(config).etag });
    });

    it('rejects invalid ids', async () => {
      for (const id of [0, -1]) await invalid(service().configs.deleteConfig({ id }), 'id');
    });
  });

  it('change the chain_etag of the agent only with order and membership', async () => {
    const agent = await newAgent(service());
    let last = agent.chain_etag;
    const chainEtagChanged = async () => {
      const { chain_etag } = await getAgent(service(), agent.id);
      const changed = chain_etag !== last;
      last = chain_etag;
      return changed;
    };
    const { id } = await newConfig(service(), {}, agent);
    expect(await chainEtagChanged(), 'created').toBe(true);
    await update({ id, temperature: 1, max_tokens: 5 });
    expect(await chainEtagChanged(), 'other fields changed').toBe(false);
    await service().agents.updateAgent({ agent: { id: agent.id, description: 'x' } });
    expect(await chainEtagChanged(), 'agent changed').toBe(false);
    await update({ id, enabled: false });
    expect(await chainEtagChanged(), 'disabled').toBe(true);
    await update({ id, enabled: true });
    expect(await chainEtagChanged(), 'enabled').toBe(true);
    await update({ id, priority: 44 });
    expect(await chainEtagChanged(), 'moved').toBe(true);
    await update({ id, priority: 44, enabled: true });
    expect(await chainEtagChanged(), 'nothing changed').toBe(false);
    await service().configs.deleteConfig({ id });
    expect(await chainEtagChanged(), 'deleted').toBe(true);
  });
});
