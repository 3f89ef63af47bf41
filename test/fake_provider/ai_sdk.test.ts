import { createAnthropic } from '@ai-sdk/anthropic';
import { createDeepSeek } from '@ai-sdk/deepseek';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { createXai } from '@ai-sdk/xai';
import { generateText, type LanguageModel, Output, stepCountIs, streamText, tool } from 'ai';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import type { FakeProvider } from '../../src/fake_provider/fake_provider.js';
import { DEFAULT_TEXT } from '../../src/fake_provider/responses/completion.js';
import { fakeProvider } from './support.js';

/*
 * The packages of the AI SDK accept the responses on every wire form: text, stream, tools, structured output and images.
 */

// The warnings about features that a provider lacks are expected.
(globalThis as { AI_SDK_LOG_WARNINGS?: boolean }).AI_SDK_LOG_WARNINGS = false;

const apiKey = 'sk-of-a-test';

const WIRES: readonly (readonly [string, (fake: FakeProvider) => LanguageModel])[] = [
  ['openai chat completions', (f) => createOpenAI({ apiKey, baseURL: f.baseUrl('openai') }).chat('gpt-4o')],
  ['openai responses', (f) => createOpenAI({ apiKey, baseURL: f.baseUrl('openai') }).responses('gpt-4o')],
  ['anthropic messages', (f) => createAnthropic({ apiKey, baseURL: f.baseUrl('anthropic') })('claude-haiku-4-5')],
  ['deepseek', (f) => createDeepSeek({ apiKey, baseURL: f.baseUrl('deepseek') })('deepseek-chat')],
  ['xai chat completions', (f) => createXai({ apiKey, baseURL: f.baseUrl('xai') }).chat('grok-4.3')],
  ['xai responses', (f) => createXai({ apiKey, baseURL: f.baseUrl('xai') }).responses('grok-4.3')],
  [
    'openai-compatible',
    (f) =>
      createOpenAICompatible({ apiKey, name: 'desk', baseURL: f.baseUrl('compatible'), includeUsage: true })('large'),
  ],
];

const getPrice = tool({
  description: 'The price of a ticker',
  inputSchema: z.object({ ticker: z.string(), days: z.number().int().min(2) }),
  execute: async ({ ticker, days }) => ({ ticker, days, price: 12.5 }),
});

describe.each(WIRES)('the AI SDK over %s', (name, modelOf) => {
  it('generates text with usage', async () => {
    const fake = await fakeProvider({ script: { response: { usage: USAGE } } });
    const { text, finishReason, usage } = await generateText({ model: modelOf(fake), prompt: 'Hello', maxRetries: 0 });
    expect([text, finishReason]).toEqual([DEFAULT_TEXT, 'stop']);
    expect(usage).toMatchObject({
      inputTokens: 100,
      inputTokenDetails: { noCacheTokens: 70, cacheReadTokens: 30 },
      outputTokens: 50,
      outputTokenDetails: name.startsWith('anthropic') ? {} : { textTokens: 40, reasoningTokens: 10 },
    });
  });

  it('streams text in sixty deltas with usage', async () => {
    const fake = await fakeProvider({ script: { response: { usage: USAGE } } });
    const result = streamText({ model: modelOf(fake), prompt: 'Hello', maxRetries: 0 });
    const deltas: string[] = [];
    for await (const part of result.textStream) deltas.push(part);
    expect([deltas.length, deltas.join('')]).toEqual([60, DEFAULT_TEXT]);
    expect(await result.finishReason).toBe('stop');
    expect(await result.usage).toMatchObject({ inputTokens: 100, outputTokens: 50 });
    expect(fake.requests[0]).toMatchObject({ stream: true, tokens: 60, ended: 'completed' });
  });

  it.each(['generate', 'stream'])('calls a tool and continues with its result (%s)', async (kind) => {
    const fake = await fakeProvider();
    const call = {
      model: modelOf(fake),
      prompt: 'Hello',
      tools: { getPrice },
      stopWhen: stepCountIs(3),
      maxRetries: 0,
    };
    const result = kind === 'generate' ? await generateText(call) : streamText(call);
    if ('consumeStream' in result) await result.consumeStream();
    const steps = await result.steps;
    expect(steps.map(({ finishReason }) => finishReason)).toEqual(['tool-calls', 'stop']);
    expect(steps[0]?.toolResults).toMatchObject([{ toolName: 'getPrice', output: { ticker: 'ticker', days: 2 } }]);
    expect(await result.text).toBe(DEFAULT_TEXT);
    expect(fake.requests.map(({ status }) => status)).toEqual([200, 200]);
  });

  it('calls the tool that is chosen, and none when none may be called', async () => {
    const fake = await fakeProvider();
    const tools = { first: getPrice, second: getPrice };
    const base = { model: modelOf(fake), prompt: 'Hello', tools, maxRetries: 0 };
    const forced = await generateText({ ...base, toolChoice: { type: 'tool', toolName: 'second' } });
    expect(forced.toolCalls.map(({ toolName }) => toolName)).toEqual(['second']);
    const required = await generateText({ ...base, toolChoice: 'required' });
    expect(required.toolCalls).toHaveLength(1);
    const none = await generateText({ ...base, toolChoice: 'none' });
    expect([none.toolCalls, none.text]).toEqual([[], DEFAULT_TEXT]);
  });

  it.each(['generate', 'stream'])('responds with structured output (%s)', async (kind) => {
    const fake = await fakeProvider();
    const schema = z.object({
      decision: z.enum(['buy', 'hold', 'sell']),
      confidence: z.number().min(0).max(1),
      reasons: z.array(z.string()),
    });
    const call = {
      model: modelOf(fake),
      prompt: 'Decide, in JSON',
      output: Output.object({ schema }),
      maxRetries: 0,
    };
    // Without an option, this package sends no schema; the test states the response.
    if (name === 'openai-compatible') fake.setFaults({ response: { text: JSON.stringify(DECISION) } });
    const result = kind === 'generate' ? await generateText(call) : streamText(call);
    if ('consumeStream' in result) await result.consumeStream();
    expect(await result.output).toEqual(DECISION);
  });

  it.each(['generate', 'stream'])('returns its reasoning, also after a call of a tool (%s)', async (kind) => {
    const fake = await fakeProvider({ script: { response: { reasoning: 'It is so.', text: 'Buy.' } } });
    const call = {
      model: modelOf(fake),
      prompt: 'Hello',
      tools: { getPrice },
      stopWhen: stepCountIs(3),
      providerOptions: { anthropic: { thinking: { type: 'enabled', budgetTokens: 2000 } } },
      maxRetries: 0,
    };
    const result = kind === 'generate' ? await generateText(call) : streamText(call);
    if ('consumeStream' in result) await result.consumeStream();
    // Chat completions of OpenAI do not show the reasoning.
    const expected = name === 'openai chat completions' ? undefined : 'It is so.';
    const found = (await result.steps).map(({ reasoningText }) => reasoningText);
    expect([await result.text, ...found]).toEqual(['Buy.', expected, expected]);
    expect(fake.requests.map(({ status }) => status)).toEqual([200, 200]);
  });

  it('accepts an image, unless the model does not', async () => {
    const fake = await fakeProvider();
    const image = { type: 'image' as const, image: Buffer.from('iVBORw0KGgo=', 'base64'), mediaType: 'image/png' };
    const call = generateText({
      model: modelOf(fake),
      messages: [{ role: 'user', content: [{ type: 'text', text: 'What is it?' }, image] }],
      maxRetries: 0,
    });
    if (name === 'deepseek') return expect(call).rejects.toThrow('unknown variant `image_url`, expected `text`');
    expect((await call).text).toBe(DEFAULT_TEXT);
  });
});

const USAGE = { input_tokens: 100, cache_read_tokens: 30, output_tokens: 50, reasoning_tokens: 10 };
const DECISION = { decision: 'buy', confidence: 1, reasons: ['reasons'] };
