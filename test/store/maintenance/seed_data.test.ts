import { describe, expect, it } from 'vitest';
import { type Dialect, ModelPrice } from '../../../gen/ts/agentllm/v1/provider.js';
import agentsJson from '../../../seeds/data/agents.json' with { type: 'json' };
import modelsJson from '../../../seeds/data/models.json' with { type: 'json' };
import providersJson from '../../../seeds/data/providers.json' with { type: 'json' };
import { ratesOf } from '../../../src/domain/catalogue.js';
import { defaultWireApi } from '../../../src/domain/dialects.js';
import type { Parameter } from '../../../src/domain/parameters.js';
import { priceSchema } from '../../../src/domain/price_fields.js';
import type { Model as ModelRow, Provider as ProviderRow } from '../../../src/domain/rows.js';
import { ruleFor } from '../../../src/domain/rules.js';

interface Rule {
  parameter: string;
  support: string;
  minimum?: number;
  maximum?: number;
  allowed_values?: string[];
  wire_name?: string;
  not_with?: string[];
  accepted_with_reasoning_effort?: string[];
  required_default?: number;
}

interface Provider {
  name: string;
  display_name: string;
  aliases: string[];
  dialect: string;
  wire_api: string;
  base_url: string;
  api_key_env_vars: string[];
  allow_unknown_models: boolean;
  parameter_rules: Rule[];
}

interface Rates {
  input_micro_usd_per_million?: number;
  cached_input_micro_usd_per_million?: number;
  cache_write_micro_usd_per_million?: number;
  cache_write_long_micro_usd_per_million?: number;
  output_micro_usd_per_million?: number;
  reasoning_micro_usd_per_million?: number;
}

interface Tier {
  above_input_tokens: number;
  rates: Rates;
}

interface Window {
  start_minute: number;
  end_minute: number;
  rates: Rates;
  tiers: Tier[];
  weekdays?: number[];
}

interface Price extends Rates {
  tiers?: Tier[];
  windows?: Window[];
  source: string;
}

interface Model {
  provider: string;
  name: string;
  display_name?: string;
  context_window_tokens?: number;
  max_output_tokens?: number;
  supports_functions?: boolean;
  supports_vision?: boolean;
  supports_reasoning?: boolean;
  supports_forced_tool_choice?: boolean;
  supports_prefill?: boolean;
  supports_structured_output?: boolean;
  parameter_rules: Rule[];
  as_of: string;
  retires_at?: string;
  replaced_by?: string;
  price?: Price;
}

const agents = agentsJson;
const providers: Provider[] = providersJson;
const models: Model[] = modelsJson;

const PARAMETERS = [
  'temperature',
  'top_p',
  'max_tokens',
  'reasoning_effort',
  'thinking_budget_tokens',
  'stop_sequences',
  'seed',
];
const SUPPORTS = ['PARAMETER_SUPPORT_ACCEPTED', 'PARAMETER_SUPPORT_REJECTED', 'PARAMETER_SUPPORT_IGNORED'];
const RULE_FIELDS = [
  'parameter',
  'support',
  'minimum',
  'maximum',
  'allowed_values',
  'wire_name',
  'not_with',
  'accepted_with_reasoning_effort',
  'required_default',
];
const MODEL_FIELDS = [
  'provider',
  'name',
  'display_name',
  'context_window_tokens',
  'max_output_tokens',
  'supports_functions',
  'supports_vision',
  'supports_reasoning',
  'supports_forced_tool_choice',
  'supports_prefill',
  'supports_structured_output',
  'parameter_rules',
  'as_of',
  'retires_at',
  'replaced_by',
  'price',
];

const SOURCE_CATALOGUE_DATE = '2025-01-15T00:00:00Z';
const PROVIDER_FACTS_DATE = '2026-08-01T00:00:00Z';
/** The date of the reference of current models, their prices and shutdown dates. */
const REFERENCE_DATE = '2026-11-20T00:00:00Z';

// The catalogue of the original Python system, USD per 1K tokens, as text: provider, model, context,
// input, output, max output, functions, vision.
const SOURCE_CATALOGUE: [string, string, number, string, string, number, boolean, boolean][] = [
  ['openai', 'gpt-4o', 128000, '0.0025', '0.01', 16384, true, true],
  ['openai', 'gpt-4o-mini', 128000, '0.00015', '0.0006', 16384, true, true],
  ['openai', 'o4-mini', 200000, '0.0011', '0.0044', 100000, true, true],
  ['openai', 'gpt-4-turbo', 128000, '0.01', '0.03', 4096, true, true],
  ['openai', 'gpt-4', 8192, '0.03', '0.06', 4096, true, false],
  ['openai', 'gpt-3.5-turbo', 16385, '0.0005', '0.0015', 4096, true, false],
  ['deepseek', 'deepseek-chat', 64000, '0.00014', '0.00028', 4096, true, false],
  ['deepseek', 'deepseek-coder', 16000, '0.00014', '0.00028', 4096, true, false],
  ['grok', 'grok-beta', 131072, '0.005', '0.015', 4096, true, false],
  ['grok', 'grok-vision-beta', 131072, '0.005', '0.015', 4096, true, true],
  ['claude', 'claude-3-5-sonnet-20241022', 200000, '0.003', '0.015', 8192, true, true],
  ['claude', 'claude-3-opus-20240229', 200000, '0.015', '0.075', 4096, true, true],
  ['claude', 'claude-3-sonnet-20240229', 200000, '0.003', '0.015', 4096, true, true],
  ['claude', 'claude-3-haiku-20240307', 200000, '0.00025', '0.00125', 4096, true, true],
];

// Every model that the design document names.
const DOCUMENT_MODELS: [string, string][] = [
  ['openai', 'gpt-4'],
  ['claude', 'claude-3-5-sonnet'],
  ['claude', 'claude-3-haiku-20240307'],
];

// Name, agent_type, role, llm_type, slot, memory, required tools, capability.
const AGENTS: [string, string, string, string, string | null, string | null, string[], string][] = [
  [
    'market_analyst',
    'analyst',
    'market',
    'quick',
    'market',
    null,
    ['get_stock_data', 'get_indicators'],
    'market_analysis',
  ],
  ['social_analyst', 'analyst', 'social', 'quick', 'social', null, ['get_news'], 'social_sentiment'],
  ['news_analyst', 'analyst', 'news', 'quick', 'news', null, ['get_news', 'get_global_news'], 'news_analysis'],
  [
    'fundamentals_analyst',
    'analyst',
    'fundamentals',
    'quick',
    'fundamentals',
    null,
    ['get_fundamentals', 'get_balance_sheet', 'get_cashflow', 'get_income_statement'],
    'fundamental_analysis',
  ],
  ['bull_researcher', 'researcher', 'bull', 'quick', null, 'bull_memory', [], 'bull_research'],
  ['bear_researcher', 'researcher', 'bear', 'quick', null, 'bear_memory', [], 'bear_research'],
  ['research_manager', 'manager', 'research', 'deep', null, 'invest_judge_memory', [], 'investment_management'],
  ['trader', 'trader', 'trader', 'quick', null, 'trader_memory', [], 'trading'],
  ['risky_analyst', 'risk_analyst', 'risky', 'quick', null, null, [], 'risky_analysis'],
  ['safe_analyst', 'risk_analyst', 'safe', 'quick', null, null, [], 'safe_analysis'],
  ['neutral_analyst', 'risk_analyst', 'neutral', 'quick', null, null, [], 'neutral_analysis'],
  ['risk_manager', 'manager', 'risk', 'deep', null, 'risk_manager_memory', [], 'risk_management'],
];

/** Converts USD per 1K tokens as decimal text exactly to whole micro-USD per million tokens (× 10^9). */
function microUsdPerMillion(usdPer1k: string): bigint {
  const [, whole, fraction = ''] = /^(\d+)(?:\.(\d{1,9}))?$/.exec(usdPer1k) ?? [];
  if (whole === undefined) throw new Error(`not an exact rate: ${usdPer1k}`);
  return BigInt(whole + fraction.padEnd(9, '0'));
}

function model(provider: string, name: string): Model {
  const found = models.find((m) => m.provider === provider && m.name === name);
  if (found === undefined) throw new Error(`no model ${provider}/${name}`);
  return found;
}

/** The rule that applies to a model: the rule of the model, or else of its provider. */
function rule(provider: string, name: string | undefined, parameter: string): Rule | undefined {
  const modelRules = name === undefined ? [] : model(provider, name).parameter_rules;
  const providerRules = providers.find((p) => p.name === provider)?.parameter_rules ?? [];
  return modelRules.find((r) => r.parameter === parameter) ?? providerRules.find((r) => r.parameter === parameter);
}

/** The effective rule, including the rules of the dialect. */
function effectiveRule(provider: string, name: string | undefined, parameter: string) {
  const row = providers.find((p) => p.name === provider) as unknown as ProviderRow;
  const modelRow = name === undefined ? undefined : (model(provider, name) as unknown as ModelRow);
  return ruleFor(row, modelRow && { ...modelRow, max_output_tokens: null }, parameter as Parameter);
}

const support = (provider: string, name: string | undefined, parameter: string) =>
  effectiveRule(provider, name, parameter)?.support.replace('PARAMETER_SUPPORT_', '');

function expectUnique(values: string[]): void {
  expect(values.filter((v, i) => values.indexOf(v) !== i)).toEqual([]);
}

describe('agents.json', () => {
  it('contains exactly the twelve default agents', () => {
    expect(agents).toHaveLength(12);
    expect(
      agents.map((a) => [
        a.name,
        a.agent_type,
        a.role,
        a.llm_type,
        a.slot_name,
        a.memory_name,
        a.required_tools,
        a.capabilities.join(),
      ]),
    ).toEqual(AGENTS);
  });

  it('has the expected columns with consistent values', () => {
    expectUnique(agents.map((a) => a.name));
    for (const a of agents) {
      expect(Object.keys(a), a.name).toEqual([
        'name',
        'agent_type',
        'role',
        'llm_type',
        'slot_name',
        'requires_memory',
        'memory_name',
        'required_tools',
        'capabilities',
        'description',
        'version',
        'is_reserved',
      ]);
      expect(a.requires_memory, a.name).toBe(a.memory_name !== null);
      expect(a.is_reserved, a.name).toBe(true);
      expect(a.version, a.name).toBe('1.0.0');
      expect(a.description, a.name).toMatch(/^\S.{1,998}\.$/);
    }
  });
});

describe('providers.json', () => {
  it('contains the four built-in providers', () => {
    expect(providers.map((p) => [p.name, p.dialect, p.base_url, p.api_key_env_vars])).toEqual([
      ['openai', 'DIALECT_OPENAI', 'https://api.openai.com/v1', ['OPENAI_API_KEY']],
      ['deepseek', 'DIALECT_OPENAI_COMPATIBLE', 'https://api.deepseek.com', ['DEEPSEEK_API_KEY']],
      ['grok', 'DIALECT_OPENAI_COMPATIBLE', 'https://api.x.ai/v1', ['GROK_API_KEY', 'XAI_API_KEY']],
      ['claude', 'DIALECT_ANTHROPIC', 'https://api.anthropic.com/v1', ['ANTHROPIC_API_KEY']],
    ]);
    expect(providers.every((p) => p.allow_unknown_models === false)).toBe(true);
    for (const { wire_api, dialect } of providers) expect(wire_api).toBe(defaultWireApi(dialect as Dialect));
  });

  it('has no name, alias or key variable twice', () => {
    const names = providers.flatMap((p) => [p.name, ...p.aliases]);
    expectUnique(names);
    for (const name of names) expect(name).toMatch(/^[a-z0-9][a-z0-9._-]{0,49}$/);
    expect(names).toEqual(expect.arrayContaining(['anthropic', 'xai']));
    const keys = providers.flatMap((p) => p.api_key_env_vars);
    expectUnique(keys);
    for (const key of keys) expect(key).toMatch(/^[A-Z0-9_]+_API_KEY$/);
  });

  it('has https base URLs without user, query, fragment or trailing slash', () => {
    for (const p of providers) {
      const url = new URL(p.base_url);
      expect([url.protocol, url.username, url.password, url.search, url.hash], p.name).toEqual([
        'https:',
        '',
        '',
        '',
        '',
      ]);
      expect(p.base_url, p.name).not.toMatch(/\/$/);
    }
  });
});

describe('models.json', () => {
  it('names known providers and contains no model twice', () => {
    const known = providers.map((p) => p.name);
    for (const m of models) expect(known, m.name).toContain(m.provider);
    expectUnique(models.map((m) => `${m.provider}/${m.name}`));
  });

  it('has well-formed fields and omits unknown values', () => {
    for (const m of models) {
      expect(MODEL_FIELDS, m.name).toEqual(expect.arrayContaining(Object.keys(m)));
      expect(Object.values(m), m.name).not.toContain(null);
      expect(m.name).toMatch(/^\S{1,100}$/);
      for (const n of [m.context_window_tokens, m.max_output_tokens]) {
        if (n !== undefined) expect(Number.isInteger(n) && n >= 1 && n <= 2147483647, m.name).toBe(true);
      }
      if (m.context_window_tokens !== undefined && m.max_output_tokens !== undefined) {
        expect(m.max_output_tokens, m.name).toBeLessThanOrEqual(m.context_window_tokens);
      }
      for (const date of [m.as_of, m.retires_at]) {
        if (date !== undefined) expect(new Date(date).toISOString().replace('.000Z', 'Z'), m.name).toBe(date);
      }
    }
  });

  it('contains every model of the original Python system with its capabilities', () => {
    for (const [provider, name, context, , , maxOutput, functions, vision] of SOURCE_CATALOGUE) {
      expect(model(provider, name), name).toMatchObject({
        context_window_tokens: context,
        max_output_tokens: maxOutput,
        supports_functions: functions,
        supports_vision: vision,
      });
    }
  });

  it('contains the prices of the original Python system, except for one model whose price changed later', () => {
    expect(microUsdPerMillion('0.0025')).toBe(2500000n);
    for (const [provider, name, , input, output] of SOURCE_CATALOGUE) {
      const { price } = model(provider, name);
      if (name === 'deepseek-chat') {
        expect(price).toMatchObject({ input_micro_usd_per_million: 280_000, output_micro_usd_per_million: 420_000 });
        continue;
      }
      expect(BigInt(price?.input_micro_usd_per_million ?? -1), name).toBe(microUsdPerMillion(input));
      expect(BigInt(price?.output_micro_usd_per_million ?? -1), name).toBe(microUsdPerMillion(output));
    }
  });

  it('has the limits, the price and its source for every model that is not shut down at the reference date', () => {
    const current = models.filter(({ as_of }) => as_of === REFERENCE_DATE);
    expect(current).toHaveLength(46);
    for (const m of current) {
      expect(m.context_window_tokens, m.name).toBeGreaterThanOrEqual(128_000);
      expect(m.max_output_tokens, m.name).toBeGreaterThanOrEqual(16_384);
      for (const fact of ['supports_functions', 'supports_vision', 'supports_reasoning'] as const)
        expect(m[fact], `${m.name} ${fact}`).toBeTypeOf('boolean');
      expect(m.price, m.name).toMatchObject({
        input_micro_usd_per_million: expect.any(Number),
        cached_input_micro_usd_per_million: expect.any(Number),
        output_micro_usd_per_million: expect.any(Number),
        source: expect.stringMatching(/^LiteLLM 1\.110\.2 .*https:\/\//),
      });
    }
    expect(model('claude', 'claude-opus-5-5').price).toMatchObject({
      input_micro_usd_per_million: 4_000_000,
      cached_input_micro_usd_per_million: 200_000,
      cache_write_micro_usd_per_million: 5_000_000,
      output_micro_usd_per_million: 20_000_000,
    });
  });

  it('has context tiers of whole requests, with a rate for every rate of the price', () => {
    const tiered = models.filter(({ price }) => price?.tiers);
    const thresholds = new Map(tiered.map((m) => [m.name, m.price?.tiers?.map((tier) => tier.above_input_tokens)]));
    const above = (threshold: number) =>
      [...thresholds].filter(([, values]) => values?.join() === String(threshold)).map(([name]) => name);
    expect(above(272_000)).toHaveLength(10);
    expect(above(200_000)).toHaveLength(7);
    expect(above(100_000)).toEqual(['claude-haiku-5-5']);
    expect(tiered).toHaveLength(18);
    for (const m of tiered) {
      const { tiers: [tier] = [], source: _, ...base } = m.price as Price;
      expect(Object.keys(tier?.rates ?? {}).sort(), m.name).toEqual(Object.keys(base).sort());
    }
    expect(model('openai', 'gpt-6.1-sol').price?.tiers?.[0]?.rates).toEqual({
      input_micro_usd_per_million: 4_000_000,
      cached_input_micro_usd_per_million: 200_000,
      cache_write_micro_usd_per_million: 5_000_000,
      output_micro_usd_per_million: 15_000_000,
    });
  });

  it('has the rates of cache writes of claude, for one hour twice those of input', () => {
    for (const m of models.filter(({ provider, as_of }) => provider === 'claude' && as_of === REFERENCE_DATE)) {
      const input = m.price?.input_micro_usd_per_million as number;
      expect(m.price?.cache_write_micro_usd_per_million, m.name).toBe(input * 1.25);
      expect(m.price?.cache_write_long_micro_usd_per_million, m.name).toBe(input * 2);
    }
  });

  it('has the peak hours of deepseek as windows of working days', () => {
    const current = models.filter(({ provider, as_of }) => provider === 'deepseek' && as_of === REFERENCE_DATE);
    expect(current).toHaveLength(3);
    for (const { name, price } of current) {
      expect(
        price?.windows?.map(({ start_minute, end_minute, weekdays }) => [start_minute, end_minute, weekdays]),
        name,
      ).toEqual([
        [60, 240, [1, 2, 3, 4, 5]],
        [360, 600, [1, 2, 3, 4, 5]],
      ]);
      // Peak hours cost twice as much.
      for (const { rates } of price?.windows ?? [])
        for (const [rate, value] of Object.entries(rates))
          expect(value, name).toBe(2 * (price?.[rate as keyof Rates] ?? 0));
    }
  });

  it('has the shutdown dates of the providers', () => {
    const dates = Object.fromEntries(models.map((m) => [m.name, m.retires_at?.slice(0, 10)]));
    expect(dates).toMatchObject({
      'gpt-4': '2026-10-23',
      'gpt-4o': '2027-01-14',
      'gpt-5': '2026-12-11',
      'gpt-5.1': '2027-04-01',
      'claude-sonnet-4-5': '2026-11-30',
      'claude-3-haiku-20240307': '2026-04-20',
      'claude-opus-4-1': '2026-08-05',
      'deepseek-chat': '2026-07-24',
    });
    const without = Object.keys(dates).filter((name) => dates[name] === undefined);
    expect(without).toHaveLength(46 - 11);
  });

  it('names for every model with a shutdown date a successor that the catalogue has and that has none itself', () => {
    for (const m of models) {
      expect(m.replaced_by === undefined, m.name).toBe(m.retires_at === undefined);
      if (m.replaced_by !== undefined) expect(model(m.provider, m.replaced_by).retires_at, m.name).toBeUndefined();
    }
  });

  it('has the capabilities that decide whether a model can serve a call', () => {
    const facts = (provider: string, name: string) => {
      const { supports_forced_tool_choice, supports_prefill, supports_structured_output } = model(provider, name);
      return [supports_forced_tool_choice, supports_prefill, supports_structured_output];
    };
    for (const name of ['claude-fable-5-1', 'claude-opus-5-5', 'claude-sonnet-5-5'])
      expect(facts('claude', name), name).toEqual([false, false, true]);
    expect(facts('claude', 'claude-haiku-5-5')).toEqual([true, false, true]);
    expect(facts('claude', 'claude-haiku-4-5')).toEqual([true, true, true]);
    // Thinking is on by default, and tool_choice is rejected with it; there is only a JSON mode without a schema.
    expect(facts('deepseek', 'deepseek-v4-flash')).toEqual([false, true, false]);
    expect(facts('openai', 'gpt-6.1-sol')).toEqual([true, undefined, true]);
    expect(facts('openai', 'gpt-4')).toEqual([true, undefined, false]);
    expect(facts('grok', 'grok-4.7')).toEqual([true, undefined, true]);
  });

  it('has rates that are safe non-negative integers with a source', () => {
    for (const m of models) {
      if (m.price === undefined) continue;
      // The schema of requests has the ranges, and rejects windows that overlap.
      const sent = {
        ...ModelPrice.fromPartial({}),
        ...bigints(m.price),
        tiers: (m.price.tiers ?? []).map((tier) => ({ ...tier, rates: bigints(tier.rates) })),
        windows: (m.price.windows ?? []).map((window) => ({ weekdays: [], ...window, rates: bigints(window.rates) })),
      };
      const { error, data } = priceSchema.safeParse(sent);
      expect(error?.issues ?? [], m.name).toEqual([]);
      expect(ratesOf(data ?? {}), m.name).toEqual(ratesOf(m.price));
      expect(
        Object.keys(m.price).filter((field) => !(field in sent)),
        m.name,
      ).toEqual([]);
      expect(m.price.source, m.name).toMatch(/^\S.{1,199}$/);
    }
  });

  function bigints(rates: Rates) {
    const entries = Object.entries(rates).filter(([field]) => field.endsWith('_micro_usd_per_million'));
    return { ...rates, ...Object.fromEntries(entries.map(([field, value]) => [field, BigInt(value as number)])) };
  }

  it('contains every model that the design document names and the default model of agents', () => {
    for (const [provider, name] of DOCUMENT_MODELS) expect(model(provider, name).name).toBe(name);
    expect(model('openai', 'gpt-4o-mini').name).toBe('gpt-4o-mini');
  });

  it('dates each model by the source of its facts', () => {
    const dates = [SOURCE_CATALOGUE_DATE, PROVIDER_FACTS_DATE, REFERENCE_DATE];
    for (const m of models) {
      // The last price of this model is the newest fact about it.
      if (m.name === 'deepseek-chat') expect(m.as_of).toBe(m.retires_at);
      else expect(dates, m.name).toContain(m.as_of);
    }
    expect(model('openai', 'gpt-4').as_of).toBe(SOURCE_CATALOGUE_DATE);
  });
});

describe('parameter rules', () => {
  const owners = [
    ...providers.map((p) => ({ owner: p.name, rules: p.parameter_rules })),
    ...models.map((m) => ({ owner: `${m.provider}/${m.name}`, rules: m.parameter_rules })),
  ];

  it('are well-formed, with at most one per parameter', () => {
    for (const { owner, rules } of owners) {
      expectUnique(rules.map((r) => r.parameter));
      expect(rules.length, owner).toBeLessThanOrEqual(20);
      for (const r of rules) {
        const at = `${owner} ${r.parameter}`;
        expect(RULE_FIELDS, at).toEqual(expect.arrayContaining(Object.keys(r)));
        expect(PARAMETERS, at).toContain(r.parameter);
        expect(SUPPORTS, at).toContain(r.support);
        for (const n of [r.minimum, r.maximum, r.required_default]) {
          if (n !== undefined) expect(Number.isFinite(n), at).toBe(true);
        }
        expect(r.minimum ?? -Infinity, at).toBeLessThanOrEqual(r.maximum ?? Infinity);
        if (r.required_default !== undefined) {
          expect(r.required_default, at).toBeGreaterThanOrEqual(r.minimum ?? -Infinity);
          expect(r.required_default, at).toBeLessThanOrEqual(r.maximum ?? Infinity);
          expect(r.support, at).toBe('PARAMETER_SUPPORT_ACCEPTED');
        }
        if (r.wire_name !== undefined) {
          expect(r.wire_name, at).toMatch(/^[a-z_]+(\.[a-z_]+)*$/);
        }
        for (const other of r.not_with ?? []) {
          expect(PARAMETERS, at).toContain(other);
          expect(other, at).not.toBe(r.parameter);
        }
        if (r.accepted_with_reasoning_effort !== undefined) {
          expect(r.accepted_with_reasoning_effort.length, at).toBeGreaterThan(0);
          expect(r.support, at).not.toBe('PARAMETER_SUPPORT_ACCEPTED');
        }
      }
    }
  });

  it('of a model differ from the rules of its provider', () => {
    for (const m of models) {
      for (const r of m.parameter_rules)
        expect(r, `${m.name} ${r.parameter}`).not.toEqual(rule(m.provider, undefined, r.parameter));
    }
  });

  it('accept sampling for classic openai models and reject it for reasoning and unknown models', () => {
    for (const name of ['gpt-4o', 'gpt-4o-mini', 'gpt-4-turbo', 'gpt-4', 'gpt-3.5-turbo']) {
      expect(rule('openai', name, 'temperature')).toMatchObject({
        support: 'PARAMETER_SUPPORT_ACCEPTED',
        minimum: 0,
        maximum: 2,
      });
      expect(rule('openai', name, 'top_p')).toMatchObject({
        support: 'PARAMETER_SUPPORT_ACCEPTED',
        minimum: 0,
        maximum: 1,
      });
      expect(effectiveRule('openai', name, 'max_tokens')?.wire_name).toBe('max_tokens');
    }
    for (const name of ['o4-mini', 'gpt-5', 'gpt-5.1', undefined]) {
      for (const parameter of ['temperature', 'top_p']) {
        expect(support('openai', name, parameter)).toBe('REJECTED');
        const none = name === 'gpt-5.1' || name === undefined ? ['none'] : undefined;
        expect(rule('openai', name, parameter)?.accepted_with_reasoning_effort).toEqual(none);
      }
      expect(effectiveRule('openai', name, 'max_tokens')?.wire_name).toBe('max_completion_tokens');
      if (name !== undefined) expect(model('openai', name).supports_reasoning).toBe(true);
    }
    for (const m of models.filter((x) => x.provider === 'openai')) {
      expect(effectiveRule('openai', m.name, 'stop_sequences')?.wire_name).toBe('stop');
    }
  });

  it('ignore sampling for deepseek-reasoner', () => {
    expect(support('deepseek', 'deepseek-reasoner', 'temperature')).toBe('IGNORED');
    expect(support('deepseek', 'deepseek-reasoner', 'top_p')).toBe('IGNORED');
    for (const name of ['deepseek-chat', 'deepseek-coder'])
      expect(support('deepseek', name, 'temperature')).toBe('ACCEPTED');
    expect(effectiveRule('deepseek', undefined, 'stop_sequences')?.wire_name).toBe('stop');
    expect(support('deepseek', undefined, 'reasoning_effort')).toBe('REJECTED');
  });

  it('use max_completion_tokens for grok, and accept stop sequences only without reasoning', () => {
    for (const m of models.filter((x) => x.provider === 'grok')) {
      expect(effectiveRule('grok', m.name, 'max_tokens')?.wire_name).toBe('max_completion_tokens');
      expect(support('grok', m.name, 'stop_sequences')).toBe(m.supports_reasoning === false ? 'ACCEPTED' : 'REJECTED');
    }
    for (const name of ['grok-4.20-reasoning', 'grok-4.20-non-reasoning'])
      expect(support('grok', name, 'reasoning_effort')).toBe('REJECTED');
  });

  it('reject sampling for the newest and unknown claude models, and accept one parameter for older ones', () => {
    for (const name of [
      'claude-opus-5',
      'claude-opus-4-8',
      'claude-opus-4-7',
      'claude-sonnet-5',
      'claude-fable-5',
      undefined,
    ]) {
      expect(support('claude', name, 'temperature')).toBe('REJECTED');
      expect(support('claude', name, 'top_p')).toBe('REJECTED');
    }
    const older = models.filter(
      (m) => m.provider === 'claude' && /^claude-(3-|(opus|sonnet|haiku)-4-[0156]$)/.test(m.name),
    );
    expect(older).toHaveLength(13);
    for (const { name } of older) {
      expect(rule('claude', name, 'temperature')).toEqual({
        parameter: 'temperature',
        support: 'PARAMETER_SUPPORT_ACCEPTED',
        minimum: 0,
        maximum: 1,
        not_with: ['thinking_budget_tokens'],
      });
      expect(rule('claude', name, 'top_p')).toEqual({
        parameter: 'top_p',
        support: 'PARAMETER_SUPPORT_ACCEPTED',
        minimum: 0,
        maximum: 1,
        not_with: ['temperature', 'thinking_budget_tokens'],
      });
    }
  });

  it('require max_tokens for claude with a default within the output limit of the model', () => {
    for (const m of models.filter((x) => x.provider === 'claude')) {
      const needed = effectiveRule('claude', m.name, 'max_tokens')?.required_default;
      expect(needed, m.name).toBe(4096);
      expect(needed, m.name).toBeLessThanOrEqual(m.max_output_tokens ?? Infinity);
      const thinking = effectiveRule('claude', m.name, 'thinking_budget_tokens');
      if (thinking?.support === 'PARAMETER_SUPPORT_ACCEPTED') expect(thinking.wire_name, m.name).toBe('thinking');
      // Models of the third generation do not support thinking, and models since 4.7 take an effort instead of a budget.
      else expect(m.name).toMatch(/^claude-(3-|opus-4-[78]$|(opus|sonnet|haiku|fable)-5)/);
    }
  });

  it('allow the reasoning efforts that each model has', () => {
    const efforts = (provider: string, name: string) =>
      rule(provider, name, 'reasoning_effort')?.allowed_values?.join(' ');
    expect(efforts('openai', 'gpt-6.1-sol')).toBe('low medium high xhigh max');
    expect(efforts('openai', 'gpt-6.1-terra')).toBe('none low medium high xhigh max');
    expect(efforts('openai', 'gpt-5.4')).toBe('none low medium high xhigh');
    expect(efforts('openai', 'gpt-5.1')).toBe('none low medium high');
    expect(efforts('openai', 'gpt-5-mini')).toBe('minimal low medium high');
    expect(efforts('openai', 'o3')).toBe('low medium high');
    expect(efforts('deepseek', 'deepseek-v4-pro')).toBe('high max');
    expect(efforts('claude', 'claude-opus-5-5')).toBe('low medium high xhigh max');
    expect(efforts('claude', 'claude-opus-4-6')).toBe('low medium high max');
    expect(effectiveRule('claude', 'claude-opus-5-5', 'reasoning_effort')?.wire_name).toBe('output_config.effort');
    expect(support('claude', 'claude-haiku-4-5', 'reasoning_effort')).toBe('REJECTED');
  });

  it('reject sampling for openai models without an effort of none, and accept it with that effort for others', () => {
    for (const m of models.filter(({ provider }) => provider === 'openai')) {
      const hasNone = rule('openai', m.name, 'reasoning_effort')?.allowed_values?.includes('none');
      const temperature = rule('openai', m.name, 'temperature');
      if (m.supports_reasoning) expect(temperature?.support, m.name).toBe('PARAMETER_SUPPORT_REJECTED');
      expect(temperature?.accepted_with_reasoning_effort, m.name).toEqual(hasNone ? ['none'] : undefined);
    }
  });
});
