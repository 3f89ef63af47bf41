import { describe, expect, it } from 'vitest';
import type { FakeProvider } from '../../../src/fake_provider/fake_provider.js';
import type { ProviderName } from '../../../src/fake_provider/providers.js';
import { ANTHROPIC, BODIES, type FakeResponse, fakeProvider, post } from '../support.js';

/*
 * Requests are checked as the providers check them. Each row is a request, and what the error says about it.
 */

const chat = (fake: FakeProvider, provider: ProviderName, body: object): Promise<FakeResponse> =>
  post(`${fake.baseUrl(provider)}/chat/completions`, { ...BODIES.chat_completions, ...body });
const responses = (fake: FakeProvider, body: object, headers = {}): Promise<FakeResponse> =>
  post(`${fake.baseUrl('openai')}/responses`, { ...BODIES.responses, ...body }, headers);
const messages = (fake: FakeProvider, body: object, headers = {}): Promise<FakeResponse> =>
  post(`${fake.baseUrl('anthropic')}/messages`, { ...BODIES.messages, ...body }, { ...ANTHROPIC, ...headers });

const user = { role: 'user', content: 'Hello' };
const call = { id: 'call_1', type: 'function', function: { name: 'price', arguments: '{}' } };
const tool = { type: 'function', function: { name: 'price', parameters: { type: 'object', properties: {} } } };
const strictTool = (parameters: object) => ({
  tools: [{ type: 'function', function: { name: 'price', strict: true, parameters } }],
});
const image = { type: 'image_url', image_url: { url: 'data:image/png;base64,iVBORw0KGgo=' } };

describe('chat completions', () => {
  it.each<[string, ProviderName, object, number, object | RegExp]>([
    ['a missing model', 'openai', { model: undefined }, 400, { code: 'missing_required_parameter', param: 'model' }],
    ['missing messages', 'openai', { messages: undefined }, 400, { param: 'messages' }],
    ['missing messages', 'deepseek', { messages: undefined }, 400, /missing field `messages`/],
    ['missing messages', 'xai', { messages: undefined }, 422, /missing field `messages`/],
    ['no messages', 'openai', { messages: [] }, 400, { code: 'empty_array' }],
    ['an unknown parameter', 'openai', { max_token: 5 }, 400, { code: 'unknown_parameter', param: 'max_token' }],
    ['a parameter of DeepSeek', 'openai', { thinking: { type: 'disabled' } }, 400, { code: 'unknown_parameter' }],
    ['a text as number', 'openai', { temperature: '0' }, 400, { code: 'invalid_type', param: 'temperature' }],
    ['a fraction as integer', 'openai', { max_tokens: 1.5 }, 400, { code: 'invalid_type', param: 'max_tokens' }],
    ['a high temperature', 'openai', { temperature: 3 }, 400, { code: 'decimal_above_max_value' }],
    ['a high temperature', 'deepseek', { temperature: 3 }, 400, /valid range of temperature is \[0, 2\]/],
    ['a low output limit', 'openai', { max_tokens: 0 }, 400, { code: 'integer_below_min_value' }],
    ['an unknown role', 'openai', { messages: [{ role: 'bot', content: '' }] }, 400, { param: 'messages[0].role' }],
    ['a message without content', 'openai', { messages: [{ role: 'user' }] }, 400, { param: 'messages[0].content' }],
    [
      'an unknown part',
      'openai',
      { messages: [{ role: 'user', content: [{ type: 'x' }] }] },
      400,
      { code: 'invalid_value' },
    ],
    [
      'an image that is not a URL',
      'openai',
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      400,
      { code: 'invalid_image_url', param: 'messages[0].content[0].image_url.url' },
    ],
    [
      'an image',
      'deepseek',
      { model: 'deepseek-chat', messages: [{ role: 'user', content: [image] }] },
      400,
      /unknown variant `image_url`/,
    ],
    [
      'a tool result without a call',
      'openai',
      { messages: [user, { role: 'tool', tool_call_id: 'call_1', content: '1' }] },
      400,
      /must be a response to a preceding message with 'tool_calls'/,
    ],
    [
      'a tool call without a result',
      'openai',
      { messages: [user, { role: 'assistant', content: null, tool_calls: [call] }, user] },
      400,
      /did not have response messages: call_1/,
    ],
    ['several choices', 'openai', { n: 2 }, 400, { param: 'n' }],
    ['five stop sequences', 'openai', { stop: ['a', 'b', 'c', 'd', 'e'] }, 400, { code: 'array_above_max_length' }],
    ['a stop sequence that is a number', 'openai', { stop: [1] }, 400, { code: 'invalid_type' }],
    ['a tool choice without tools', 'openai', { tool_choice: 'auto' }, 400, { param: 'tool_choice' }],
    [
      'the choice of an absent tool',
      'openai',
      { tools: [tool], tool_choice: { type: 'function', function: { name: 'x' } } },
      400,
      /'x' not found/,
    ],
    ['an unknown tool choice', 'openai', { tools: [tool], tool_choice: 'any' }, 400, { code: 'invalid_value' }],
    [
      'a tool name with a space',
      'openai',
      { tools: [{ type: 'function', function: { name: 'a b' } }] },
      400,
      { param: 'tools[0].function.name' },
    ],
    [
      'a schema that is no object',
      'openai',
      { tools: [{ type: 'function', function: { name: 'a', parameters: { type: 'string' } } }] },
      400,
      { code: 'invalid_json_schema' },
    ],
    [
      'an optional property in strict mode',
      'openai',
      strictTool({ type: 'object', properties: { a: {} }, additionalProperties: false }),
      400,
      /Missing 'a'/,
    ],
    [
      'additional properties in strict mode',
      'openai',
      strictTool({ type: 'object', properties: {} }),
      400,
      /'additionalProperties' is required/,
    ],
    [
      'JSON without the word',
      'openai',
      { response_format: { type: 'json_object' } },
      400,
      /must contain the word 'json'/,
    ],
    [
      'JSON without the word',
      'deepseek',
      { response_format: { type: 'json_object' } },
      400,
      /must contain the word 'json'/,
    ],
    [
      'a JSON schema',
      'deepseek',
      { response_format: { type: 'json_schema', json_schema: {} } },
      400,
      /unavailable now/,
    ],
    [
      'a JSON schema without a name',
      'openai',
      { response_format: { type: 'json_schema', json_schema: { schema: {} } } },
      400,
      { param: 'response_format.json_schema.name' },
    ],
    ['an unknown format', 'openai', { response_format: { type: 'xml' } }, 400, { code: 'invalid_value' }],
    ['an object as format', 'openai', { response_format: { type: { toString: 1 } } }, 400, /'\{"toString":1\}'/],
  ])('rejects %s at %s', async (_, provider, body, status, expected) => {
    const response = await chat(await fakeProvider(), provider, body);
    expect([response.status, response.text]).toEqual([status, expect.any(String)]);
    const { error } = response.json;
    if (expected instanceof RegExp) expect(error.message ?? error).toMatch(expected);
    else expect(error).toMatchObject({ type: 'invalid_request_error', ...expected });
  });

  it.each<[string, ProviderName, object]>([
    ['null for an absent parameter', 'openai', { temperature: null, tools: null, stop: null, tool_choice: null }],
    ['temperature 0 and top_p 0', 'openai', { temperature: 0, top_p: 0 }],
    ['an unknown parameter', 'compatible', { custom: 1 }],
    ['an unknown parameter', 'deepseek', { custom: 1 }],
    ['an image', 'deepseek', { model: 'deepseek-v4-flash', messages: [{ role: 'user', content: [image] }] }],
    ['thinking off', 'deepseek', { thinking: { type: 'disabled' } }],
    [
      'an image by URL',
      'openai',
      {
        messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'https://example.com/a.png' } }] }],
      },
    ],
    ['a prefill', 'deepseek', { messages: [user, { role: 'assistant', content: 'He', prefix: true }] }],
    [
      'JSON with the word',
      'openai',
      { messages: [{ role: 'user', content: 'in JSON' }], response_format: { type: 'json_object' } },
    ],
    [
      'a tool call with its result',
      'openai',
      {
        tools: [tool],
        messages: [
          user,
          { role: 'assistant', content: null, tool_calls: [call] },
          { role: 'tool', tool_call_id: 'call_1', content: '1' },
        ],
      },
    ],
  ])('accepts %s at %s', async (_, provider, body) => {
    expect((await chat(await fakeProvider(), provider, body)).status).toBe(200);
  });
});

describe('what a model accepts', () => {
  it.each<[string, ProviderName, object, object | RegExp]>([
    ['max_tokens', 'openai', { model: 'gpt-5', max_tokens: 5 }, { code: 'unsupported_parameter', param: 'max_tokens' }],
    [
      'temperature',
      'openai',
      { model: 'gpt-5', temperature: 0 },
      { code: 'unsupported_parameter', param: 'temperature' },
    ],
    ['temperature', 'openai', { model: 'o3', temperature: 0 }, { param: 'temperature' }],
    ['logit_bias', 'openai', { model: 'gpt-6.1-sol', logit_bias: {} }, { param: 'logit_bias' }],
    ['top_p with reasoning', 'openai', { model: 'gpt-5.2', top_p: 0, reasoning_effort: 'low' }, { param: 'top_p' }],
    ['temperature', 'openai', { model: 'gpt-4o-search-preview', temperature: 0 }, { param: 'temperature' }],
    ['stop', 'xai', { model: 'grok-4.7', stop: 'x' }, /Argument not supported on this model: stop/],
    ['the effort', 'xai', { model: 'grok-4.20-non-reasoning', reasoning_effort: 'low' }, /reasoning_effort/],
    ['logprobs', 'deepseek', { model: 'deepseek-reasoner', logprobs: true }, /logprobs/],
    [
      'a tool choice',
      'deepseek',
      { model: 'deepseek-reasoner', tools: [tool], tool_choice: 'required' },
      /does not support this tool_choice/,
    ],
  ])('excludes %s at %s', async (_, provider, body, expected) => {
    const { status, json } = await chat(await fakeProvider(), provider, body);
    expect(status).toBe(400);
    if (expected instanceof RegExp) expect(json.error.message ?? json.error).toMatch(expected);
    else expect(json.error).toMatchObject(expected);
  });

  it.each([
    ['gpt-5', { max_completion_tokens: 5 }],
    ['gpt-5.2', { temperature: 0, top_p: 0, reasoning_effort: 'none' }],
    ['gpt-5-chat-latest', { temperature: 0 }],
    ['gpt-4o', { temperature: 0, max_tokens: 5, logit_bias: {} }],
  ])('includes the rest for %s', async (model, body) => {
    expect((await chat(await fakeProvider(), 'openai', { model, ...body })).status).toBe(200);
  });

  it.each([
    ['temperature', 'claude-opus-5-5', { temperature: 0 }, /^`temperature` is deprecated for this model\.$/],
    ['top_k', 'claude-next-9', { top_k: 5 }, /^`top_k` is deprecated/],
    ['both sampling parameters', 'claude-haiku-4-5', { temperature: 0, top_p: 0 }, /cannot both be specified/],
    [
      'a prefill',
      'claude-sonnet-4-6',
      { messages: [user, { role: 'assistant', content: 'He' }] },
      /assistant message prefill/,
    ],
    [
      'a forced tool',
      'claude-sonnet-5-5',
      { tools: [{ name: 'a', input_schema: { type: 'object' } }], tool_choice: { type: 'any' } },
      /tool_choice/,
    ],
  ])('excludes %s at %s', async (_, model, body, expected) => {
    const { status, json } = await messages(await fakeProvider(), { model, ...body });
    expect([status, json.error.message]).toEqual([400, expect.stringMatching(expected)]);
  });

  it.each([
    ['claude-3-haiku-20240307', { temperature: 0, top_p: 0, top_k: 1 }],
    ['claude-sonnet-4-20250514', { temperature: 0, top_p: 0 }],
    ['claude-haiku-4-5-20251001', { temperature: 0 }],
    ['claude-opus-4-6', { temperature: 0 }],
    ['claude-opus-5-5', { thinking: { type: 'disabled' } }],
    ['claude-haiku-5-5', { tools: [{ name: 'a', input_schema: { type: 'object' } }], tool_choice: { type: 'any' } }],
    ['claude-haiku-4-5', { messages: [user, { role: 'assistant', content: 'He' }] }],
  ])('includes the rest for %s', async (model, body) => {
    const { status, text } = await messages(await fakeProvider(), { model, ...body });
    expect([status, text]).toEqual([200, expect.any(String)]);
  });

  it('is configured by a script', async () => {
    const models = [
      { match: 'small*', context_window_tokens: 10, images: false, rejects: ['seed'], prefill: false },
      { match: 'claude-*', max_output_tokens: 100, rejects: [] },
    ];
    const fake = await fakeProvider({ script: { models } });
    const long = { role: 'user', content: 'word '.repeat(20) };
    const tooLong = await chat(fake, 'compatible', { model: 'small-1', messages: [long] });
    expect([tooLong.status, tooLong.json.error]).toEqual([
      400,
      expect.objectContaining({ code: 'context_length_exceeded', message: expect.stringContaining('is 10 tokens') }),
    ]);
    expect((await chat(fake, 'compatible', { model: 'large', messages: [long] })).status).toBe(200);
    for (const body of [
      { seed: 1 },
      { messages: [{ role: 'user', content: [image] }] },
      { messages: [user, { role: 'assistant', content: 'He' }] },
    ])
      expect((await chat(fake, 'compatible', { model: 'small', ...body })).status).toBe(400);
    const limited = await messages(fake, { model: 'claude-opus-5-5', temperature: 0, max_tokens: 101 });
    expect(limited.json.error.message).toBe(
      'max_tokens: 101 > 100, which is the maximum allowed number of output tokens for claude-opus-5-5',
    );
    expect((await messages(fake, { model: 'claude-opus-5-5', temperature: 0, max_tokens: 100 })).status).toBe(200);
  });
});

describe('the Responses API', () => {
  it.each<[string, object, number, object]>([
    ['missing input', { input: undefined }, 400, { code: 'missing_required_parameter', param: 'input' }],
    ['max_tokens', { max_tokens: 100 }, 400, { code: 'unknown_parameter', param: 'max_tokens' }],
    ['a small output limit', { max_output_tokens: 15 }, 400, { code: 'integer_below_min_value' }],
    ['stop', { stop: ['x'] }, 400, { code: 'unknown_parameter' }],
    ['an input that is a number', { input: 5 }, 400, { code: 'invalid_type', param: 'input' }],
    ['an unknown item', { input: [{ type: 'unknown' }] }, 400, { code: 'invalid_value', param: 'input[0].type' }],
    ['an unknown role', { input: [{ role: 'tool', content: '' }] }, 400, { param: 'input[0].role' }],
    [
      'an unknown part',
      { input: [{ role: 'user', content: [{ type: 'text', text: '' }] }] },
      400,
      { param: 'input[0].content[0].type' },
    ],
    [
      'an output without a call',
      { input: [{ type: 'function_call_output', call_id: 'c', output: '' }] },
      400,
      { message: 'No tool call found for function call output with call_id c.' },
    ],
    [
      'a call without an output',
      { input: [{ type: 'function_call', call_id: 'c', name: 'f', arguments: '{}' }] },
      400,
      { message: 'No tool output found for function call c.' },
    ],
    ['an unknown previous response', { previous_response_id: 'resp_x' }, 400, { code: 'previous_response_not_found' }],
    [
      'an unknown item reference',
      { input: [{ type: 'item_reference', id: 'rs_x' }] },
      404,
      { message: expect.stringContaining("Item with id 'rs_x' not found"), param: 'input' },
    ],
    ['an unknown format', { text: { format: { type: 'xml' } } }, 400, { code: 'invalid_value' }],
    [
      'a format without a name',
      { text: { format: { type: 'json_schema', schema: {} } } },
      400,
      { param: 'text.format.name' },
    ],
    ['temperature for a reasoning model', { model: 'gpt-5', temperature: 0 }, 400, { code: 'unsupported_parameter' }],
  ])('rejects %s', async (_, body, status, expected) => {
    const response = await responses(await fakeProvider(), body);
    expect(response.status).toBe(status);
    expect(response.json.error).toMatchObject(expected);
  });

  it('stores responses and their items for the credential that created them', async () => {
    const fake = await fakeProvider();
    const first = { authorization: 'Bearer sk-of-the-first' };
    const stored = (await responses(fake, {}, first)).json;
    const reference = { input: [{ type: 'item_reference', id: stored.output[0].id }, user] };
    const previous = { previous_response_id: stored.id };
    for (const body of [reference, previous]) expect((await responses(fake, body, first)).status).toBe(200);
    const other = { authorization: 'Bearer sk-of-the-second' };
    expect((await responses(fake, reference, other)).status).toBe(404);
    expect((await responses(fake, previous, other)).json.error.code).toBe('previous_response_not_found');
  });

  it('does not store a response with store: false', async () => {
    const fake = await fakeProvider();
    const { output } = (await responses(fake, { store: false })).json;
    const response = await responses(fake, { input: [{ type: 'item_reference', id: output[0].id }] });
    expect(response.json.error.message).toContain('Items are not persisted when `store` is set to false');
  });

  it('accepts encrypted reasoning only from the credential that received it', async () => {
    const fake = await fakeProvider({ script: { response: { reasoning: 'because it is so' } } });
    const first = { authorization: 'Bearer sk-of-the-first' };
    const request = { store: false, include: ['reasoning.encrypted_content'] };
    const [reasoning] = (await responses(fake, request, first)).json.output;
    expect(reasoning).toMatchObject({ type: 'reasoning', encrypted_content: expect.any(String) });
    const again = { ...request, input: [reasoning, user] };
    expect((await responses(fake, again, first)).status).toBe(200);
    const response = await responses(fake, again, { authorization: 'Bearer sk-of-the-second' });
    expect([response.status, response.json.error.code]).toEqual([400, 'invalid_encrypted_content']);
  });
});

describe('the Messages API', () => {
  const use = { role: 'assistant', content: [{ type: 'tool_use', id: 'toolu_1', name: 'price', input: {} }] };
  const result = { role: 'user', content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: '1' }] };
  const thinking = (budget: number) => ({ thinking: { type: 'enabled', budget_tokens: budget } });

  it.each<[string, object, RegExp]>([
    ['missing max_tokens', { max_tokens: undefined }, /^max_tokens: Field required$/],
    ['max_tokens 0', { max_tokens: 0 }, /^max_tokens: Input should be greater than or equal to 1$/],
    ['an unknown parameter', { seed: 1 }, /^seed: Extra inputs are not permitted$/],
    ['temperature 1.5', { temperature: 1.5 }, /^temperature: Input should be less than or equal to 1$/],
    ['a temperature that is a text', { temperature: '0' }, /^temperature: Input should be a valid number$/],
    ['messages that are no list', { messages: 'Hello' }, /^messages: Input should be a valid list$/],
    ['no messages', { messages: [] }, /at least one message is required/],
    [
      'a first message of the assistant',
      { messages: [{ role: 'assistant', content: 'x' }] },
      /must use the "user" role/,
    ],
    [
      'a system message',
      { messages: [{ role: 'system', content: 'x' }] },
      /^messages\.0\.role: Input should be 'user' or 'assistant'$/,
    ],
    [
      'an empty text block',
      { messages: [{ role: 'user', content: [{ type: 'text', text: '' }] }] },
      /must be non-empty/,
    ],
    [
      'an unknown block',
      { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
      /^messages\.0\.content\.0\.type/,
    ],
    [
      'an image without a source',
      { messages: [{ role: 'user', content: [{ type: 'image' }] }] },
      /image\.source: Field required/,
    ],
    [
      'a tool use without a result',
      { messages: [user, use, user] },
      /^messages\.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1/,
    ],
    [
      'a tool result without a use',
      { messages: [result] },
      /unexpected `tool_use_id` found in `tool_result` blocks: toolu_1/,
    ],
    [
      'a prefill that ends with a space',
      { messages: [user, { role: 'assistant', content: 'He ' }] },
      /trailing whitespace/,
    ],
    ['a small thinking budget', thinking(1000), /budget_tokens: Input should be greater than or equal to 1024/],
    [
      'a thinking budget above max_tokens',
      { max_tokens: 2000, ...thinking(2000) },
      /`max_tokens` must be greater than/,
    ],
    [
      'temperature while thinking',
      { max_tokens: 3000, temperature: 0.5, ...thinking(2000) },
      /may only be set to 1 when thinking/,
    ],
    ['an unknown tool choice', { tool_choice: { type: 'required' } }, /^tool_choice: Input should be/],
    ['the choice of an absent tool', { tool_choice: { type: 'tool', name: 'x' } }, /Tool 'x' not found/],
    ['a tool without a schema', { tools: [{ name: 'a' }] }, /^tools\.0\.custom\.input_schema: Field required$/],
    ['a blank stop sequence', { stop_sequences: [' '] }, /must contain non-whitespace/],
  ])('rejects %s', async (_, body, expected) => {
    const { status, json } = await messages(await fakeProvider(), body);
    expect([status, json.type, json.error]).toEqual([
      400,
      'error',
      { type: 'invalid_request_error', message: expect.stringMatching(expected) },
    ]);
  });

  it('rejects a request without the version header', async () => {
    const fake = await fakeProvider();
    const { status, json } = await post(`${fake.url}/v1/messages`, BODIES.messages);
    expect([status, json.error.message]).toEqual([400, 'anthropic-version: header is required']);
  });

  it('accepts a tool use with its result, thinking off and an image', async () => {
    const fake = await fakeProvider();
    const source = { type: 'base64', media_type: 'image/png', data: 'iVBORw0KGgo=' };
    for (const body of [
      { messages: [user, use, result], tools: [{ name: 'price', input_schema: { type: 'object' } }] },
      { thinking: { type: 'disabled' }, temperature: 0 },
      { messages: [{ role: 'user', content: [{ type: 'image', source }] }] },
    ])
      expect((await messages(fake, body)).status).toBe(200);
  });

  it('accepts the signature of a thinking block only from the credential that received it', async () => {
    const fake = await fakeProvider({ script: { response: { reasoning: 'because it is so' } } });
    const first = { 'x-api-key': 'sk-of-the-first' };
    const request = { max_tokens: 3000, ...thinking(2000) };
    const { content } = (await messages(fake, request, first)).json;
    expect(content.map(({ type }: { type: string }) => type)).toEqual(['thinking', 'text']);
    const again = { ...request, messages: [user, { role: 'assistant', content }, user] };
    expect((await messages(fake, again, first)).status).toBe(200);
    for (const headers of [{ 'x-api-key': 'sk-of-the-second' }, {}])
      expect((await messages(fake, again, headers)).json.error.message).toContain(
        'Invalid `signature` in `thinking` block',
      );
  });
});

describe('a body', () => {
  it.each<[ProviderName, string, RegExp]>([
    ['openai', '/chat/completions', /could not parse the JSON body/],
    ['deepseek', '/chat/completions', /Failed to parse/],
    ['anthropic', '/messages', /not valid JSON/],
  ])('that is not a JSON object is rejected by %s', async (provider, path, expected) => {
    const fake = await fakeProvider();
    for (const body of ['{"model":', '[]', 'null', '', `${'['.repeat(101)}${']'.repeat(101)}`]) {
      const { status, json } = await post(fake.baseUrl(provider) + path, body, ANTHROPIC);
      expect([body.slice(0, 9), status, json.error.message]).toEqual([
        body.slice(0, 9),
        400,
        expect.stringMatching(expected),
      ]);
    }
  });

  it('with a long unknown parameter is rejected with a short message', async () => {
    const { json } = await chat(await fakeProvider(), 'openai', { ['x'.repeat(100_000)]: 1 });
    expect(json.error.message.length).toBeLessThanOrEqual(2000);
  });
});
