import { describe, expect, it } from 'vitest';
import { normalizeUsage, sumUsage } from '../../../src/client/runtime/usage.js';
import { recordProblem } from '../../../src/domain/usage_record.js';
import { usageRecord } from '../../support/usage.js';

const CHAT = 'WIRE_API_CHAT_COMPLETIONS';

/** The known kinds of a usage: input (total, no cache, read, write) and output (total, text, reasoning). */
function kinds(...args: Parameters<typeof normalizeUsage>) {
  const usage = normalizeUsage(...args);
  return [
    usage.input_tokens,
    usage.input_no_cache_tokens,
    usage.input_cache_read_tokens,
    usage.input_cache_write_tokens,
    usage.output_tokens,
    usage.output_text_tokens,
    usage.output_reasoning_tokens,
  ];
}

describe('normalizeUsage', () => {
  it('reads chat completions of OpenAI, whose totals include cache and reasoning', () => {
    const raw = {
      prompt_tokens: 100,
      completion_tokens: 50,
      total_tokens: 150,
      prompt_tokens_details: { cached_tokens: 30, cache_write_tokens: 10 },
      completion_tokens_details: { reasoning_tokens: 20 },
    };
    expect(kinds(CHAT, 'openai', raw)).toEqual([100, 60, 30, 10, 50, 30, 20]);
  });

  it('reads DeepSeek, whose prompt tokens are hits and misses of the cache', () => {
    const raw = { prompt_tokens: 100, prompt_cache_hit_tokens: 64, prompt_cache_miss_tokens: 36, completion_tokens: 5 };
    expect(kinds(CHAT, 'deepseek', raw)).toEqual([100, 36, 64, undefined, 5, undefined, undefined]);
  });

  it('adds the reasoning of xAI to the completion tokens, which exclude it in chat completions', () => {
    const details = { completion_tokens_details: { reasoning_tokens: 40 } };
    const raw = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 55, ...details };
    expect(kinds(CHAT, 'grok', raw)).toEqual([10, undefined, undefined, undefined, 45, 5, 40]);
    // Without a total, the name of the provider decides.
    expect(kinds(CHAT, 'grok', { prompt_tokens: 10, completion_tokens: 50, ...details })[4]).toBe(90);
    expect(kinds(CHAT, 'openai', { prompt_tokens: 10, completion_tokens: 50, ...details })[4]).toBe(50);
  });

  it('adds the cached tokens of xAI to prompt tokens that exclude them', () => {
    const raw = { prompt_tokens: 10, completion_tokens: 5, prompt_tokens_details: { cached_tokens: 90 } };
    expect(kinds(CHAT, 'grok', raw).slice(0, 3)).toEqual([100, 10, 90]);
  });

  it('reads the Responses API, whose output tokens include the reasoning', () => {
    const raw = {
      input_tokens: 10,
      input_tokens_details: { cached_tokens: 4 },
      output_tokens: 8,
      output_tokens_details: { reasoning_tokens: 6 },
      total_tokens: 24,
    };
    expect(kinds('WIRE_API_RESPONSES', 'grok', raw)).toEqual([10, 6, 4, undefined, 8, 2, 6]);
  });

  it('reads Messages, whose input tokens exclude the cache', () => {
    const raw = {
      input_tokens: 10,
      cache_read_input_tokens: 200,
      cache_creation_input_tokens: 50,
      output_tokens: 7,
      output_tokens_details: { thinking_tokens: 3 },
    };
    expect(kinds('WIRE_API_MESSAGES', 'claude', raw)).toEqual([260, 10, 200, 50, 7, 4, 3]);
  });

  const claude = (raw: Record<string, unknown>) => {
    const usage = normalizeUsage('WIRE_API_MESSAGES', 'claude', raw);
    return [...kinds('WIRE_API_MESSAGES', 'claude', raw), usage.input_cache_write_long_tokens];
  };

  it('reads the lifetimes of cache writes in Messages', () => {
    const cache_creation = { ephemeral_5m_input_tokens: 20, ephemeral_1h_input_tokens: 30 };
    const raw = { input_tokens: 10, cache_creation_input_tokens: 50, cache_creation, output_tokens: 7 };
    expect(claude(raw)).toEqual([60, 10, undefined, 50, 7, undefined, undefined, 30]);
    // A total that is missing is the sum of the lifetimes; a lifetime that exceeds the total is not used.
    expect(claude({ input_tokens: 10, cache_creation, output_tokens: 7 }).slice(3, 4)).toEqual([50]);
    expect(claude({ input_tokens: 10, cache_creation_input_tokens: 29, cache_creation })[7]).toBeUndefined();
    expect(claude({ input_tokens: 10, cache_creation: null, output_tokens: 7 })[7]).toBeUndefined();
  });

  it('adds the iterations of Messages that the requested model has billed', () => {
    const iterations = [
      { type: 'compaction', input_tokens: 1000, output_tokens: 100 },
      { type: 'message', input_tokens: 10, output_tokens: 7 },
      { type: 'advisor_message', model: 'other', input_tokens: 500, output_tokens: 50 },
    ];
    const raw = { input_tokens: 10, cache_read_input_tokens: 5, output_tokens: 7, iterations };
    expect(claude(raw).slice(0, 5)).toEqual([1015, 1010, 5, undefined, 107]);
    // Iterations can report the cache too.
    const cached = iterations.map((one) => ({
      ...one,
      cache_read_input_tokens: 2,
      cache_creation_input_tokens: 4,
      cache_creation: { ephemeral_1h_input_tokens: 3 },
    }));
    expect(claude({ ...raw, iterations: cached })).toEqual([1022, 1010, 4, 8, 107, undefined, undefined, 6]);
    // The totals are already those of the fallback.
    const fallback = [...iterations, { type: 'fallback_message', input_tokens: 10, output_tokens: 7 }];
    expect(claude({ ...raw, iterations: fallback }).slice(0, 5)).toEqual([15, 10, 5, undefined, 7]);
    expect(claude({ ...raw, iterations: [] }).slice(0, 5)).toEqual([15, 10, 5, undefined, 7]);
  });

  it('leaves a kind unknown that exceeds its total', () => {
    const details = { completion_tokens_details: { reasoning_tokens: 90 } };
    const writes = { prompt_tokens_details: { cached_tokens: 8, cache_write_tokens: 8 } };
    const raw = { prompt_tokens: 10, completion_tokens: 50, total_tokens: 60, ...details, ...writes };
    expect(kinds(CHAT, 'openai', raw)).toEqual([10, 2, 8, undefined, 50, undefined, undefined]);
  });

  it.each([CHAT, 'WIRE_API_RESPONSES', 'WIRE_API_MESSAGES'] as const)(
    'returns counts of %s that the service accepts, whatever a provider sends',
    (wireApi) => {
      const numbers = [0, 1, 7, 99_999_999, 100_000_000, 100_000_001, 2 ** 31, -1, 1.5, null, '5'];
      let seed = 1;
      const next = () => {
        seed = (seed * 48_271) % 2_147_483_647;
        return numbers[seed % numbers.length];
      };
      for (let i = 0; i < 2_000; i++) {
        const details = { cached_tokens: next(), cache_write_tokens: next(), reasoning_tokens: next() };
        const cache_creation = { ephemeral_5m_input_tokens: next(), ephemeral_1h_input_tokens: next() };
        const raw = {
          prompt_tokens: next(),
          completion_tokens: next(),
          total_tokens: next(),
          prompt_tokens_details: details,
          completion_tokens_details: details,
          cache_read_input_tokens: next(),
          cache_creation_input_tokens: next(),
          cache_creation,
          input_tokens: next(),
          output_tokens: next(),
          output_tokens_details: { thinking_tokens: next(), reasoning_tokens: next() },
          iterations: [{ type: 'message', input_tokens: next(), output_tokens: next(), cache_creation }].slice(i % 2),
        };
        const usage = normalizeUsage(wireApi, i % 3 ? 'openai' : 'grok', raw);
        expect([recordProblem(usageRecord({ attempt: { usage } })), raw]).toEqual([undefined, raw]);
      }
    },
  );

  it('leaves what is not a number of tokens unknown, and keeps 0', () => {
    const raw = { prompt_tokens: '12', completion_tokens: 0, prompt_tokens_details: { cached_tokens: -1 } };
    expect(kinds(CHAT, 'openai', raw)).toEqual([undefined, undefined, undefined, undefined, 0, undefined, undefined]);
    expect(kinds(CHAT, 'openai', { prompt_tokens: 2 ** 40, completion_tokens: 1.5 })).toEqual(Array(7).fill(undefined));
  });

  it('keeps the usage as it was sent, unless it is large', () => {
    expect(normalizeUsage(CHAT, 'openai', { prompt_tokens: 1 }).raw_json).toBe('{"prompt_tokens":1}');
    expect(normalizeUsage(CHAT, 'openai', { x: 'y'.repeat(5000) }).raw_json).toBe('');
  });
});

describe('sumUsage', () => {
  it('adds the long cache writes', () => {
    const raw = { input_tokens: 1, cache_creation: { ephemeral_1h_input_tokens: 3 }, output_tokens: 1 };
    const usage = normalizeUsage('WIRE_API_MESSAGES', 'claude', raw);
    expect(sumUsage([usage, usage])).toMatchObject({ input_cache_write_tokens: 6, input_cache_write_long_tokens: 6 });
  });

  it('adds what is known and leaves unknown what no usage reports', () => {
    const sum = sumUsage([
      normalizeUsage(CHAT, 'openai', { prompt_tokens: 1, completion_tokens: 2 }),
      normalizeUsage(CHAT, 'openai', { prompt_tokens: 10 }),
    ]);
    expect(sum).toMatchObject({ input_tokens: 11, output_tokens: 2, input_cache_read_tokens: undefined, raw_json: '' });
    expect(sumUsage([])).toBeUndefined();
  });
});
