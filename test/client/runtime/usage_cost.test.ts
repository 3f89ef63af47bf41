import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { normalizeUsage } from '../../../src/client/runtime/usage.js';
import { costOfAttempt, type PricedAttempt } from '../../../src/domain/cost.js';
import type { Price } from '../../../src/domain/rows.js';

const chat = 'WIRE_API_CHAT_COMPLETIONS';
const responses = 'WIRE_API_RESPONSES';
const messages = 'WIRE_API_MESSAGES';

/** Micro-USD per million tokens: input, cached input, cache write, output, cache write for one hour. */
const RATES: Readonly<Record<string, readonly (number | null)[]>> = {
  claude: [3_000_000, 300_000, 3_750_000, 15_000_000, 6_000_000],
  openai: [1_250_000, 125_000, 1_562_500, 10_000_000],
  deepseek: [280_000, 28_000, null, 420_000],
  grok: [200_000, 50_000, null, 500_000],
};

function priceOf(provider: string): Price {
  const [input = null, cached = null, write = null, output = null, long = null] = RATES[provider] ?? [];
  return {
    id: 1,
    model_id: 1,
    valid_from: new Date(0),
    input_micro_usd_per_million: input,
    cached_input_micro_usd_per_million: cached,
    cache_write_micro_usd_per_million: write,
    cache_write_long_micro_usd_per_million: long,
    output_micro_usd_per_million: output,
    reasoning_micro_usd_per_million: null,
    tiers: [],
    windows: [],
    source: 'test',
    created_at: new Date(0),
    revision: 1,
  };
}

/** Usages as providers sent them. The costs were calculated apart from this code, with rational numbers in Python. */
const RECORDED: readonly (readonly [typeof chat | typeof responses | typeof messages, string, object, bigint])[] = [
  [chat, 'openai', { prompt_tokens: 100, completion_tokens: 50, total_tokens: 150 }, 625000n],
  [
    chat,
    'openai',
    {
      prompt_tokens: 2006,
      completion_tokens: 300,
      total_tokens: 2306,
      prompt_tokens_details: { cached_tokens: 1920 },
      completion_tokens_details: { reasoning_tokens: 256 },
    },
    3347500n,
  ],
  [
    chat,
    'openai',
    {
      prompt_tokens: 100,
      completion_tokens: 50,
      total_tokens: 150,
      prompt_tokens_details: { cached_tokens: 30, cache_write_tokens: 10 },
      completion_tokens_details: { reasoning_tokens: 20 },
    },
    594375n,
  ],
  [chat, 'openai', { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 }, 0n],
  [chat, 'openai', { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }, 11250n],
  [
    chat,
    'openai',
    {
      prompt_tokens: 128000,
      completion_tokens: 16384,
      total_tokens: 144384,
      prompt_tokens_details: { cached_tokens: 127872 },
    },
    179984000n,
  ],
  [
    chat,
    'deepseek',
    { prompt_tokens: 100, prompt_cache_hit_tokens: 64, prompt_cache_miss_tokens: 36, completion_tokens: 5 },
    13972n,
  ],
  [
    chat,
    'deepseek',
    {
      prompt_tokens: 13,
      completion_tokens: 509,
      total_tokens: 522,
      prompt_cache_hit_tokens: 0,
      prompt_cache_miss_tokens: 13,
      completion_tokens_details: { reasoning_tokens: 441 },
    },
    217420n,
  ],
  [
    chat,
    'deepseek',
    { prompt_tokens: 65537, prompt_cache_hit_tokens: 65472, prompt_cache_miss_tokens: 65, completion_tokens: 1 },
    1851836n,
  ],
  [
    chat,
    'grok',
    { prompt_tokens: 10, completion_tokens: 5, total_tokens: 55, completion_tokens_details: { reasoning_tokens: 40 } },
    24500n,
  ],
  [chat, 'grok', { prompt_tokens: 10, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 90 } }, 9000n],
  [
    chat,
    'grok',
    {
      prompt_tokens: 32,
      completion_tokens: 9,
      total_tokens: 135,
      prompt_tokens_details: { cached_tokens: 6 },
      completion_tokens_details: { reasoning_tokens: 94 },
    },
    57000n,
  ],
  [
    responses,
    'openai',
    {
      input_tokens: 36,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: 87,
      output_tokens_details: { reasoning_tokens: 64 },
      total_tokens: 123,
    },
    915000n,
  ],
  [
    responses,
    'openai',
    {
      input_tokens: 81920,
      input_tokens_details: { cached_tokens: 81000 },
      output_tokens: 3,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 81923,
    },
    11305000n,
  ],
  [
    responses,
    'grok',
    {
      input_tokens: 10,
      input_tokens_details: { cached_tokens: 4 },
      output_tokens: 8,
      output_tokens_details: { reasoning_tokens: 6 },
      total_tokens: 24,
    },
    5400n,
  ],
  [responses, 'grok', { input_tokens: 7777, output_tokens: 11, total_tokens: 7788 }, 1560900n],
  [messages, 'claude', { input_tokens: 10, output_tokens: 7 }, 135000n],
  [
    messages,
    'claude',
    {
      input_tokens: 10,
      cache_read_input_tokens: 200,
      cache_creation_input_tokens: 50,
      output_tokens: 7,
      output_tokens_details: { thinking_tokens: 3 },
    },
    382500n,
  ],
  [
    messages,
    'claude',
    { input_tokens: 3, cache_read_input_tokens: 0, cache_creation_input_tokens: 12304, output_tokens: 550 },
    54399000n,
  ],
  [
    messages,
    'claude',
    { input_tokens: 2095, cache_read_input_tokens: 123456, cache_creation_input_tokens: 0, output_tokens: 8192 },
    166201800n,
  ],
  [
    messages,
    'claude',
    {
      input_tokens: 100,
      cache_read_input_tokens: 50,
      cache_creation_input_tokens: 30,
      cache_creation: { ephemeral_5m_input_tokens: 10, ephemeral_1h_input_tokens: 20 },
      output_tokens: 5,
    },
    547500n,
  ],
  [
    messages,
    'claude',
    {
      input_tokens: 45000,
      output_tokens: 1234,
      iterations: [
        { type: 'compaction', input_tokens: 180000, output_tokens: 3500 },
        { type: 'message', input_tokens: 23000, output_tokens: 1000 },
        { type: 'advisor_message', model: 'other', input_tokens: 823, output_tokens: 1612 },
      ],
    },
    676500000n,
  ],
];

describe('the cost of recorded usages', () => {
  it.each(RECORDED)('of %s of %s equals an independent calculation: %j', (wireApi, provider, raw, expected) => {
    const usage = normalizeUsage(wireApi, provider, raw as Record<string, unknown>);
    const attempt: PricedAttempt = {
      provider,
      model_name: 'm',
      started_at: new Date(1),
      usage,
      config: undefined,
      prices: [priceOf(provider)],
    };
    expect(costOfAttempt(attempt)).toEqual({ nanoUsd: expected, unpriced: undefined });
  });
});

/*
 * genai-prices (PyPI) reads usages and calculates costs on its own: `pip install genai-prices`. It is given the prices of
 * this test, because its own data has other models and prices.
 */
const PROGRAM = `
import json, sys
from decimal import ROUND_HALF_UP, Decimal
from genai_prices import Usage, extract_usage
from genai_prices.types import ModelPrice

NAMES = {"claude": ("anthropic", "claude-sonnet-4-5"), "openai": ("openai", "gpt-5"),
         "deepseek": ("deepseek", "deepseek-chat"), "grok": ("x-ai", "grok-4")}

def nano_usd(rates, usage):
    names = ["input_mtok", "cache_read_mtok", "cache_write_mtok", "output_mtok"]
    price = ModelPrice(**{n: Decimal(r) / 1000000 for n, r in zip(names, rates) if r is not None})
    total = price.calc_price(usage)["total_price"] * 1000000000
    return str(total.quantize(Decimal(1), ROUND_HALF_UP))

results = []
for one in json.load(sys.stdin):
    provider, model = NAMES[one["provider"]]
    counts = Usage(**{name: count for name, count in one["counts"].items() if count is not None})
    result = {"calculated": nano_usd(one["rates"], counts)}
    try:
        body = {"model": model, "usage": one["raw"]}
        read = extract_usage(body, provider_id=provider, api_flavor=one["flavor"]).usage
        result["read"] = nano_usd(one["rates"], read)
    except Exception as error:
        result["error"] = repr(error)[:200]
    results.append(result)
print(json.dumps(results))
`;

const hasGenaiPrices = (() => {
  try {
    execFileSync('python3', ['-c', 'import genai_prices'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
})();

/** What genai-prices 0.2 does not read. The prices of long cache writes are not in its units. */
function isReadOtherwise(provider: string, wireApi: string, raw: object): boolean {
  const text = JSON.stringify(raw);
  if (/iterations|ephemeral_1h|cache_write_tokens/.test(text)) return true;
  // It ignores the cache hits of DeepSeek, and has no Responses API for xAI.
  if (provider === 'deepseek') return !text.includes('"prompt_cache_hit_tokens":0');
  if (provider === 'grok' && wireApi === responses) return true;
  // xAI's prompt tokens without those of the cache.
  return text.includes('"prompt_tokens":10,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":90}');
}

describe.runIf(hasGenaiPrices)('the cost of recorded usages in genai-prices', () => {
  it('is the same', () => {
    const cases = RECORDED.filter(([, , raw]) => !JSON.stringify(raw).includes('ephemeral_1h')).map(
      ([wireApi, provider, raw, expected]) => {
        const usage = normalizeUsage(wireApi, provider, raw as Record<string, unknown>);
        const { input_tokens, output_tokens } = usage;
        const cached = {
          cache_read_tokens: usage.input_cache_read_tokens,
          cache_write_tokens: usage.input_cache_write_tokens,
        };
        const flavor = wireApi === messages ? 'default' : wireApi === responses ? 'responses' : 'chat';
        const counts = { input_tokens, output_tokens, ...cached };
        return {
          wireApi,
          provider,
          raw,
          flavor,
          counts,
          rates: RATES[provider]?.slice(0, 4),
          expected: String(expected),
        };
      },
    );
    const output = execFileSync('python3', ['-c', PROGRAM], { input: JSON.stringify(cases), encoding: 'utf8' });
    const results = JSON.parse(output) as { calculated: string; read?: string; error?: string }[];
    expect(results.map(({ calculated }) => calculated)).toEqual(cases.map(({ expected }) => expected));
    const compared = cases.map((one, at) => ({ ...one, ...results[at] }));
    const read = compared.filter((one) => !isReadOtherwise(one.provider, one.wireApi, one.raw));
    expect(read.map((one) => [one.raw, one.read ?? one.error])).toEqual(
      read.map(({ raw, expected }) => [raw, expected]),
    );
    expect(read.length).toBeGreaterThanOrEqual(14);
  }, 60_000);
});
