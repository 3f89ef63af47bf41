import { generateText, jsonSchema, Output, streamText, tool } from 'ai';
import { describe, expect, it } from 'vitest';
import { registerDialect } from '../../../src/client/ai/dialect.js';
import { CallAbortedError, ChainError, TornStreamError } from '../../../src/client/runtime/chain_error.js';
import { speak } from '../../support/scripted_models.js';
import {
  DONE,
  events,
  failure,
  finishChunk,
  json,
  pause,
  startScriptedProvider,
  textChunk,
} from '../../support/scripted_provider.js';
import { chainAgent, failedCall, summary, TestRuntime } from '../runtime/support.js';
import { FORMS, type Form, modelFor, modelOf, SPECIFICATION } from './support.js';

const prompt = 'hello';
const FORM_NAMES = Object.keys(FORMS) as Form[];
const PATHS: Partial<Record<Form, string>> = { 'openai responses': '/v1/responses', anthropic: '/v1/messages' };

describe.each(FORM_NAMES)('a model over %s', (form) => {
  const hopAt = (url: string, more: object = {}) => ({ url, provider: FORMS[form], ...more });

  it('generates text with the parameters, the key and the receipt of the hop', async () => {
    const a = await startScriptedProvider(speak('hi ', 'there'));
    const { model, runtime } = modelFor(hopAt(a.url, { config: { temperature: 0, max_tokens: 77 } }));
    const result = await generateText({ model, prompt });
    expect(result.text).toBe('hi there');
    expect(result.finishReason).toBe('stop');
    expect(result.response.modelId).toBe('served');
    expect(result.usage).toMatchObject({ inputTokens: 3, outputTokens: 2 });
    const [request] = a.requests;
    expect(request?.path).toBe(PATHS[form] ?? '/v1/chat/completions');
    expect(request?.body).toMatchObject({ model: 'm0', temperature: 0 });
    const limits = ['max_tokens', 'max_completion_tokens', 'max_output_tokens'].map((name) => request?.body[name]);
    expect(limits.filter((limit) => limit !== undefined)).toEqual([77]);
    expect(request?.headers.authorization ?? request?.headers['x-api-key']).toMatch(/^(Bearer )?sk-secret-0$/);
    expect(result.providerMetadata?.['agentllm']).toMatchObject({
      receipt_id: runtime.receipt.receipt_id,
      outcome: 'RECEIPT_OUTCOME_COMPLETED',
      finish_reason: 'stop',
      usage: { input_tokens: 3, output_tokens: 2 },
    });
  });

  it.each(['live', 'whole'] as const)('streams text in %s mode, with usage and the receipt', async (mode) => {
    const a = await startScriptedProvider(speak('hi ', 'there'));
    const { model, runtime } = modelOf(chainAgent(hopAt(a.url)), { mode });
    const result = streamText({ model, prompt });
    const words: string[] = [];
    for await (const text of result.textStream) words.push(text);
    expect(words).toEqual(['hi ', 'there']);
    expect(await result.usage).toMatchObject({ inputTokens: 3, outputTokens: 2 });
    expect((await result.providerMetadata)?.['agentllm']).toMatchObject({ receipt_id: runtime.receipt.receipt_id });
    expect(runtime.receipt).toMatchObject({ mode: `RECEIPT_MODE_${mode.toUpperCase()}`, usage: { output_tokens: 2 } });
  });

  it('moves to the next hop after a failure, with one request of the SDK', async () => {
    const a = await startScriptedProvider(failure(429, { code: 'insufficient_quota' }));
    const b = await startScriptedProvider(speak('fine'));
    const { model, runtime } = modelFor(hopAt(a.url), { url: b.url });
    expect((await generateText({ model, prompt })).text).toBe('fine');
    expect(await streamText({ model, prompt }).text).toBe('fine');
    expect(runtime.receipts.map(summary)).toEqual([['0 QUOTA NEXT_HOP', '1 OK NONE'], ['1 OK NONE']]);
    expect(a.requests).toHaveLength(1);
  });
});

describe('languageModel', () => {
  it('fails with an error that the SDK does not retry', async () => {
    const a = await startScriptedProvider(failure(429, { code: 'insufficient_quota' }));
    const b = await startScriptedProvider(failure(500));
    const { model, runtime } = modelFor({ url: a.url }, { url: b.url });
    const error = await failedCall(generateText({ model, prompt }), ChainError);
    expect(error.name).toBe('ChainError');
    expect([a.requests.length, b.requests.length]).toEqual([1, 3]);
    expect(error.receipt).toBe(runtime.receipt);
    const errors: unknown[] = [];
    const result = streamText({ model, prompt, onError: ({ error: failed }) => void errors.push(failed) });
    for await (const _ of result.fullStream);
    expect(errors).toHaveLength(1);
    expect(errors[0]).toBeInstanceOf(ChainError);
    expect(a.requests).toHaveLength(1);
  });

  it('reports a torn stream as an error part with the text, after the text', async () => {
    const a = await startScriptedProvider(events([textChunk('one '), pause(50), textChunk('two '), pause(100)]));
    const { model, runtime } = modelFor({ url: a.url });
    const errors: unknown[] = [];
    const result = streamText({ model, prompt, onError: ({ error }) => void errors.push(error) });
    const types: string[] = [];
    for await (const part of result.fullStream) types.push(part.type);
    expect(types.filter((type) => ['text-delta', 'error'].includes(type))).toEqual([
      'text-delta',
      'text-delta',
      'error',
    ]);
    expect(errors[0]).toBeInstanceOf(TornStreamError);
    expect(errors[0]).toMatchObject({ content: 'one two ', receipt: { outcome: 'RECEIPT_OUTCOME_TORN' } });
    expect(await result.finishReason).toBe('error');
    expect(runtime.receipts).toHaveLength(1);
  });

  it.each([
    [
      'generateText',
      (model: Parameters<typeof generateText>[0]['model'], abortSignal: AbortSignal) =>
        generateText({ model, prompt, abortSignal }),
    ],
    [
      'doStream',
      (model: Parameters<typeof generateText>[0]['model'], abortSignal: AbortSignal) =>
        Promise.resolve(
          (model as never as { doStream(o: object): Promise<unknown> }).doStream({ prompt: [], abortSignal }),
        ),
    ],
  ])('ends %s with an AbortError when the caller aborts, with a receipt', async (_, call) => {
    const a = await startScriptedProvider(() => {});
    const { model, runtime } = modelFor({ url: a.url });
    const controller = new AbortController();
    const running = call(model, controller.signal);
    await expect.poll(() => a.requests.length).toBe(1);
    controller.abort();
    const error = await failedCall(running, CallAbortedError);
    expect(error.name).toBe('AbortError');
    expect(runtime.receipt.outcome).toBe('RECEIPT_OUTCOME_ABORTED');
  });

  it('emits the abort part of the SDK when the caller aborts a stream', async () => {
    const a = await startScriptedProvider(events([textChunk('one ')], 'open'));
    const { model, runtime } = modelFor({ url: a.url });
    const controller = new AbortController();
    const result = streamText({ model, prompt, abortSignal: controller.signal, onError: () => {} });
    const types: string[] = [];
    for await (const part of result.fullStream) {
      types.push(part.type);
      if (part.type === 'text-delta') controller.abort();
    }
    expect(types.at(-1)).toBe('abort');
    expect(runtime.receipt.outcome).toBe('RECEIPT_OUTCOME_ABORTED');
    await a.requests[0]?.closed;
  });

  it('sends the options of the call in place of the parameters of the config, with 0 as 0', async () => {
    const a = await startScriptedProvider(speak('x'));
    const { model, runtime } = modelFor({ url: a.url, config: { temperature: 0.7, max_tokens: 50, top_p: 0.5 } });
    const stopSequences = ['END'];
    await generateText({ model, prompt, temperature: 0, topP: 0, maxOutputTokens: 9, stopSequences, seed: 0 });
    expect(a.requests[0]?.body).toMatchObject({ temperature: 0, top_p: 0, max_tokens: 9, stop: ['END'], seed: 0 });
    const sources = runtime.receipt.parameters.map(({ name, source }) => `${name} ${source}`);
    expect(sources).toContain('temperature PARAMETER_SOURCE_CALL');
  });

  it('adapts the options of the call to each model, and reports it as a warning and in the receipt', async () => {
    const a = await startScriptedProvider(speak('x'));
    const rejects = { parameter_rules: [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_REJECTED' } as const] };
    const { model, runtime } = modelFor({ url: a.url, facts: rejects, config: { max_tokens: 50 } });
    const { warnings } = await generateText({ model, prompt, temperature: 0.5 });
    expect(a.requests[0]?.body).not.toHaveProperty('temperature');
    const message = 'temperature is left out for p0/m0: the model rejects it';
    expect(runtime.receipt.adaptations).toEqual([message]);
    expect(warnings).toContainEqual({ type: 'other', message });
    const result = streamText({ model, prompt, temperature: 0.5 });
    await result.consumeStream();
    expect(await result.warnings).toContainEqual({ type: 'other', message });
  });

  it('leaves out sampling options that no config has where the model rejects sampling', async () => {
    const [a, b] = [await startScriptedProvider(failure(401)), await startScriptedProvider(speak('x'))];
    const rejects = { parameter_rules: [{ parameter: 'temperature', support: 'PARAMETER_SUPPORT_REJECTED' } as const] };
    const { model, runtime } = modelFor({ url: a.url }, { url: b.url, facts: rejects });
    const { warnings } = await generateText({ model, prompt, presencePenalty: 0.5, frequencyPenalty: 0 });
    expect(a.requests[0]?.body).toMatchObject({ presence_penalty: 0.5, frequency_penalty: 0 });
    expect(b.requests[0]?.body).not.toHaveProperty('presence_penalty');
    expect(b.requests[0]?.body).not.toHaveProperty('temperature');
    const message = 'presencePenalty is left out for p1/m1: the model rejects it';
    expect(runtime.receipt.adaptations).toContain(message);
    expect(warnings).toContainEqual({ type: 'other', message });
  });

  it('reads parameters from the options of the provider of a hop, for that hop only', async () => {
    const a = await startScriptedProvider(failure(500), failure(500));
    const b = await startScriptedProvider(speak('x'));
    const { model, runtime } = modelFor(
      { url: a.url, provider: { dialect: 'DIALECT_OPENAI' }, config: { extra_params: { reasoning_effort: 'low' } } },
      { url: b.url, provider: { name: 'other' }, config: { extra_params: { reasoning_effort: 'low' } } },
    );
    await generateText({ model, prompt, providerOptions: { openai: { reasoningEffort: 'high' } } });
    expect(a.requests[0]?.body.reasoning_effort).toBe('high');
    expect(b.requests[0]?.body.reasoning_effort).toBe('low');
    expect(runtime.receipt.parameters).toMatchObject([{ name: 'reasoning_effort', source: 'PARAMETER_SOURCE_CONFIG' }]);
  });

  it('accepts options of one call in providerOptions, and rejects wrong ones', async () => {
    const a = await startScriptedProvider(speak('x'));
    const { model, runtime } = modelFor({ url: a.url });
    await generateText({ model, prompt, providerOptions: { agentllm: { runId: 'r1' } } });
    expect(runtime.receipt.run_id).toBe('r1');
    await expect(generateText({ model, prompt, providerOptions: { agentllm: { timeout: 1 } } })).rejects.toThrow(
      TypeError,
    );
  });

  it('does not send keys of the caller to the providers of the chain', async () => {
    const a = await startScriptedProvider(speak('x'));
    const { model } = modelFor({ url: a.url });
    const headers = { Authorization: 'Bearer mine', 'x-api-key': 'mine', 'x-trace': '7' };
    await generateText({ model, prompt, headers });
    expect(a.requests[0]?.headers).toMatchObject({ authorization: 'Bearer sk-secret-0', 'x-trace': '7' });
    expect(a.requests[0]?.headers).not.toHaveProperty('x-api-key');
  });

  it('runs tools through the chain', async () => {
    const call = { id: 'c1', type: 'function', function: { name: 'price', arguments: '{"symbol":"X"}' } };
    const choices = [
      { index: 0, message: { role: 'assistant', content: null, tool_calls: [call] }, finish_reason: 'tool_calls' },
    ];
    const a = await startScriptedProvider(json({ id: '1', model: 'served', created: 1, choices }), speak('costs 5'));
    const { model, runtime } = modelFor({ url: a.url });
    const price = tool({
      inputSchema: jsonSchema<{ symbol: string }>({ type: 'object' }),
      execute: async ({ symbol }) => `${symbol}: 5`,
    });
    const { text } = await generateText({
      model,
      prompt,
      tools: { price },
      stopWhen: [({ steps }) => steps.length === 2],
    });
    expect(text).toBe('costs 5');
    expect(a.requests[1]?.body.messages.at(-1)).toMatchObject({ role: 'tool', tool_call_id: 'c1' });
    expect(runtime.receipts.map(({ finish_reason }) => finish_reason)).toEqual(['tool-calls', 'stop']);
  });

  it('runs no tool whose arguments are truncated', async () => {
    const part = (input: string) => ({
      choices: [{ delta: { tool_calls: [{ index: 0, id: 'c1', function: { name: 'price', arguments: input } }] } }],
    });
    const a = await startScriptedProvider(events([part('{"a":'), pause(50), finishChunk('tool_calls'), DONE]));
    const { model } = modelFor({ url: a.url });
    let runs = 0;
    const price = tool({ inputSchema: jsonSchema({ type: 'object' }), execute: async () => ++runs });
    const errors: unknown[] = [];
    const result = streamText({ model, prompt, tools: { price }, onError: ({ error }) => void errors.push(error) });
    const types: string[] = [];
    for await (const { type } of result.fullStream) types.push(type);
    expect(types).not.toContain('tool-call');
    expect(runs).toBe(0);
    expect(errors[0]).toBeInstanceOf(TornStreamError);
    expect(String(errors[0])).toContain('incomplete');
  });

  it('skips a hop that cannot read images', async () => {
    const [a, b] = [await startScriptedProvider(speak('x')), await startScriptedProvider(speak('a cat'))];
    const { model, runtime } = modelFor({ url: a.url, facts: { supports_vision: false } }, { url: b.url });
    const image = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
    const content = [{ type: 'image', image }] as const;
    const { text } = await generateText({ model, messages: [{ role: 'user', content: [...content] }] });
    expect(text).toBe('a cat');
    expect(runtime.receipt.skipped).toMatchObject([
      { hop_index: 0, reason: 'SKIP_REASON_CAPABILITY', detail: 'vision' },
    ]);
    expect(b.requests[0]?.body.messages[0].content[0].image_url.url).toMatch(/^data:image\/png;base64,/);
  });

  // The package of xAI for version 4 accepts documents.
  it.skipIf(SPECIFICATION === 'v4')('skips a hop whose package cannot express the call', async () => {
    const [a, b] = [await startScriptedProvider(speak('x')), await startScriptedProvider(speak('read'))];
    const { model, runtime } = modelFor({ url: a.url, provider: FORMS.xai }, { url: b.url, provider: FORMS.anthropic });
    const pdf = { type: 'file', data: new Uint8Array([37, 80, 68, 70]), mediaType: 'application/pdf' } as const;
    const { text } = await generateText({ model, messages: [{ role: 'user', content: [pdf] }] });
    expect(text).toBe('read');
    const detail = 'file part media type application/pdf';
    expect(runtime.receipt.skipped).toMatchObject([{ hop_index: 0, reason: 'SKIP_REASON_CAPABILITY', detail }]);
    expect(summary(runtime.receipt)).toEqual(['1 OK NONE']);
    expect(a.requests).toEqual([]);
  });

  it('names the package that is missing and the command that installs it', async () => {
    const remove = registerDialect({ provider: 'absent', package: '@ai-sdk/absent', create: () => undefined });
    const { model } = modelFor({ url: 'http://127.0.0.1:1/v1', provider: { name: 'absent' } });
    const error = await failedCall(generateText({ model, prompt }), ChainError);
    expect(error.message).toContain('The package @ai-sdk/absent is not installed; run: npm install @ai-sdk/absent');
    remove();
  });
});

describe('supportedUrls', () => {
  it('are those that all hops support', async () => {
    const url = 'http://127.0.0.1:1/v1';
    const anthropic = modelFor({ url, provider: FORMS.anthropic });
    expect(Object.keys(await anthropic.model.supportedUrls)).toEqual(['image/*', 'application/pdf']);
    const mixed = modelFor(
      { url, provider: FORMS.anthropic },
      { url, provider: { ...FORMS['openai chat'], name: 'o' } },
    );
    expect(Object.keys(await mixed.model.supportedUrls)).toEqual(['image/*']);
    const none = modelFor({ url, provider: FORMS.anthropic }, { url });
    expect(await none.model.supportedUrls).toEqual({});
  });
});

describe('structured output', () => {
  const schema = jsonSchema<{ side: string }>({
    type: 'object',
    properties: { side: { type: 'string' } },
    required: ['side'],
  });
  const output = Output.object({ schema });
  const call = { id: 'c1', type: 'function', function: { name: 'json', arguments: '{"side":"buy"}' } };

  it('is requested as a JSON schema where the model supports it', async () => {
    const a = await startScriptedProvider(speak('{"side":"buy"}'));
    const { model } = modelFor({ url: a.url });
    const result = await generateText({ model, prompt, output });
    expect(result.output).toEqual({ side: 'buy' });
    expect(a.requests[0]?.body.response_format.json_schema.schema.required).toEqual(['side']);
  });

  it.each([
    [true, { type: 'function', function: { name: 'json' } }],
    [false, 'auto'],
  ])('is requested as a tool where the model has no schemas; forced: %s', async (forced, choice) => {
    const choices = [
      { index: 0, message: { role: 'assistant', content: null, tool_calls: [call] }, finish_reason: 'tool_calls' },
    ];
    const a = await startScriptedProvider(json({ id: '1', model: 'served', created: 1, choices }));
    const facts = { supports_structured_output: false, supports_functions: true, supports_forced_tool_choice: forced };
    const { model } = modelFor({ url: a.url, facts });
    const result = await generateText({ model, prompt, output });
    expect(result.output).toEqual({ side: 'buy' });
    expect(result.finishReason).toBe('stop');
    expect(a.requests[0]?.body.tool_choice).toEqual(choice);
    expect(a.requests[0]?.body).not.toHaveProperty('response_format');
  });

  it('streams the arguments of the tool as text', async () => {
    const part = (input: string) => ({
      choices: [{ delta: { tool_calls: [{ index: 0, id: 'c1', function: { name: 'json', arguments: input } }] } }],
    });
    const a = await startScriptedProvider(events([part('{"side"'), part(':"buy"}'), finishChunk('tool_calls'), DONE]));
    const facts = { supports_structured_output: false, supports_functions: true };
    const { model } = modelFor({ url: a.url, facts });
    const result = streamText({ model, prompt, output });
    expect(await result.text).toBe('{"side":"buy"}');
    expect(await result.output).toEqual({ side: 'buy' });
    expect(await result.finishReason).toBe('stop');
  });

  it('skips a model that has neither schemas nor tools', async () => {
    const [a, b] = [await startScriptedProvider(speak('x')), await startScriptedProvider(speak('{"side":"buy"}'))];
    const facts = { supports_structured_output: false, supports_functions: false };
    const { model, runtime } = modelFor({ url: a.url, facts }, { url: b.url });
    await generateText({ model, prompt, output });
    expect(runtime.receipt.skipped).toMatchObject([{ detail: 'structured_output' }]);
  });
});

describe('a prompt with earlier responses', () => {
  /** The messages after a call that the first hop served, for the next call. */
  async function conversation(url: string) {
    const first = modelOf(
      chainAgent({ url, provider: { ...FORMS['openai responses'], name: 'first' } }),
      {},
      new TestRuntime(),
    );
    const { response } = await generateText({ model: first.model, prompt });
    return [
      { role: 'user', content: prompt } as const,
      ...response.messages,
      { role: 'user', content: 'and?' } as const,
    ];
  }

  /** Whether the package sends the ids of items that OpenAI does not store. */
  const sendsIds = SPECIFICATION === 'v3';

  it('keeps item ids where they were created, and never refers to stored items', async () => {
    const a = await startScriptedProvider(speak('x'));
    const messages = await conversation(a.url);
    const { model } = modelOf(chainAgent({ url: a.url, provider: { ...FORMS['openai responses'], name: 'first' } }));
    await generateText({ model, messages });
    expect(a.requests[1]?.body).toMatchObject({ store: false });
    expect(a.requests[1]?.body.input[1]).toMatchObject({ role: 'assistant', ...(sendsIds && { id: 'msg_1' }) });
    expect(JSON.stringify(a.requests[1]?.body)).not.toContain('item_reference');
  });

  it('loses item ids at another origin and under another key', async () => {
    const a = await startScriptedProvider(speak('x'));
    const b = await startScriptedProvider(speak('y'));
    const messages = await conversation(a.url);
    const { model } = modelFor({ url: b.url, provider: FORMS['openai responses'] });
    await generateText({ model, messages });
    expect(JSON.stringify(b.requests[0]?.body)).not.toContain('msg_1');
    expect(JSON.stringify(b.requests[0]?.body)).toContain('and?');
    expect(JSON.stringify(b.requests[0]?.body)).not.toContain('agentllm');
  });

  it('loses item ids without a note of their origin when the chain moves on', async () => {
    const [a, b] = [await startScriptedProvider(failure(500)), await startScriptedProvider(speak('y'))];
    const responses = FORMS['openai responses'];
    const { model } = modelFor(
      { url: a.url, provider: responses },
      { url: b.url, provider: { ...responses, name: 'second' } },
    );
    const text = { type: 'text', text: 'earlier', providerOptions: { openai: { itemId: 'msg_9' } } } as const;
    await generateText({
      model,
      messages: [
        { role: 'assistant', content: [text] },
        { role: 'user', content: 'go' },
      ],
    });
    if (sendsIds) expect(JSON.stringify(a.requests[0]?.body)).toContain('msg_9');
    expect(JSON.stringify(b.requests[0]?.body)).not.toContain('msg_9');
  });
});
