import { describe, expect, it } from 'vitest';
import { DEFAULT_TEXT, tokensOf } from '../../../src/fake_provider/responses/completion.js';
import type { ScriptInput } from '../../../src/fake_provider/script.js';
import { ANTHROPIC, BODIES, eventsIn, fakeProvider, post } from '../support.js';

const PRICE = { name: 'price', parameters: { type: 'object', properties: { ticker: { type: 'string' } } } };
const NEWS = { name: 'news', parameters: { type: 'object', properties: {} } };
const tools = [PRICE, NEWS].map((described) => ({ type: 'function', function: described }));

/** The message of a response of chat completions. */
async function message(script: ScriptInput, body: object = {}) {
  const fake = await fakeProvider({ script });
  const { json } = await post(`${fake.url}/v1/chat/completions`, { ...BODIES.chat_completions, ...body });
  const [choice] = json.choices;
  return { ...choice.message, finish: choice.finish_reason, usage: json.usage, model: json.model };
}
interface WireCall {
  readonly function: { readonly name: string; readonly arguments: string };
}
const callsOf = ({ tool_calls: calls }: { tool_calls?: readonly WireCall[] }) =>
  calls?.map(({ function: called }) => [called.name, called.arguments]);

describe('the default text', () => {
  it('has sixty tokens', () => {
    expect(tokensOf(DEFAULT_TEXT)).toHaveLength(60);
    expect(tokensOf(DEFAULT_TEXT).join('')).toBe(DEFAULT_TEXT);
  });
});

describe('tokensOf', () => {
  it.each(['', ' ', 'a', ' a  b ', 'a\n\nb\t', '  lead', 'Привет, мир! 😀'])('keeps every character of %j', (text) => {
    expect(tokensOf(text).join('')).toBe(text);
  });
});

describe('a response', () => {
  it('is the same every time, except for its id', async () => {
    const fake = await fakeProvider({ script: {} });
    const send = async () => (await post(`${fake.url}/v1/chat/completions`, BODIES.chat_completions)).json;
    const [one, two] = [await send(), await send()];
    expect(two.id).not.toBe(one.id);
    expect({ ...two, id: one.id, created: one.created }).toEqual(one);
  });

  it('has the configured text, model and usage', async () => {
    const usage = { input_tokens: 9, output_tokens: 8 };
    const found = await message({ response: { text: 'Buy.', model: 'gpt-4o-2026', usage } });
    expect(found).toMatchObject({ content: 'Buy.', model: 'gpt-4o-2026', finish: 'stop' });
    expect(found.usage).toMatchObject({ prompt_tokens: 9, completion_tokens: 8, total_tokens: 17 });
  });

  it('counts its tokens if no usage is configured', async () => {
    const { usage } = await message({ response: { text: 'one two three' } });
    expect(usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 3 });
  });

  it('ends at the output limit', async () => {
    const found = await message({}, { max_tokens: 5 });
    expect(found).toMatchObject({ content: tokensOf(DEFAULT_TEXT).slice(0, 5).join(''), finish: 'length' });
    expect((await message({}, { max_tokens: 60 })).finish).toBe('stop');
  });

  it('ends before a stop sequence', async () => {
    expect(await message({ response: { text: 'one two three' } }, { stop: ['three', ' two'] })).toMatchObject({
      content: 'one',
      finish: 'stop',
    });
    const fake = await fakeProvider({ script: { response: { text: 'one two' } } });
    const body = { ...BODIES.messages, stop_sequences: ['two'] };
    const { json } = await post(`${fake.url}/v1/messages`, body, ANTHROPIC);
    expect([json.content[0].text, json.stop_reason, json.stop_sequence]).toEqual(['one ', 'stop_sequence', 'two']);
  });

  it('ends within the arguments of a tool call at the output limit', async () => {
    const found = await message({}, { tools, max_tokens: 1 });
    expect([callsOf(found), found.finish]).toEqual([[['price', '{"ticker']], 'length']);
  });

  it('has the configured finish reason', async () => {
    expect((await message({ response: { finish: 'content_filter' } })).finish).toBe('content_filter');
  });

  it('is JSON if the request asks for it', async () => {
    const schema = { type: 'object', properties: { decision: { enum: ['buy'] } } };
    const format = { type: 'json_schema', json_schema: { name: 'd', schema } };
    expect((await message({}, { response_format: format })).content).toBe('{"decision":"buy"}');
    const inPrompt = `Return JSON that conforms to the following schema: ${JSON.stringify(schema)}\nThank you: {}`;
    const injected = { messages: [{ role: 'user', content: inPrompt }], response_format: { type: 'json_object' } };
    expect((await message({}, injected)).content).toBe('{"decision":"buy"}');
    const messages = [{ role: 'user', content: 'JSON, schema: {"a"' }];
    const any = await message({}, { messages, response_format: { type: 'json_object' } });
    expect(JSON.parse(any.content)).toEqual({ response: DEFAULT_TEXT });
  });
});

describe('the choice of a tool', () => {
  const request = [{ role: 'user', content: 'Hello' }];
  const withResult = [
    ...request,
    {
      role: 'assistant',
      content: null,
      tool_calls: [{ id: 'c', type: 'function', function: { name: 'price', arguments: '{}' } }],
    },
    { role: 'tool', tool_call_id: 'c', content: '1' },
  ];
  const price = [['price', '{"ticker":"ticker"}']];

  it.each<[string, object, object, unknown]>([
    ['once, before its result', {}, { messages: request }, price],
    ['not after its result', {}, { messages: withResult }, undefined],
    ['never', { tools: 'never' }, { messages: request }, undefined],
    ['always', { tools: 'always' }, { messages: withResult }, price],
    ['always if it is required', { tools: 'never' }, { messages: withResult, tool_choice: 'required' }, price],
    ['not if it is excluded', { tools: 'always' }, { messages: request, tool_choice: 'none' }, undefined],
    [
      'as the request says',
      {},
      { messages: request, tool_choice: { type: 'function', function: { name: 'news' } } },
      [['news', '{}']],
    ],
    [
      'as the script says',
      { tool_calls: [{ name: 'news' }, { name: 'price', arguments: { ticker: 'A' } }] },
      { messages: request },
      [
        ['news', '{}'],
        ['price', '{"ticker":"A"}'],
      ],
    ],
    [
      'as the script says, also with invalid arguments',
      { tool_calls: [{ name: 'news', arguments: '{' }] },
      { messages: request },
      [['news', '{']],
    ],
    ['not of an absent tool', { tool_calls: [{ name: 'absent' }] }, { messages: request }, price],
  ])('is made %s', async (_, response, body, expected) => {
    const found = await message({ response }, { tools, ...body });
    expect(callsOf(found)).toEqual(expected);
    expect(found.finish).toBe(expected ? 'tool_calls' : 'stop');
  });
});

describe('the usage of a provider', () => {
  const usage = {
    input_tokens: 100,
    cache_read_tokens: 30,
    cache_write_tokens: 20,
    output_tokens: 50,
    reasoning_tokens: 10,
  };
  const send = async (path: string, body: object, headers = {}) => {
    const fake = await fakeProvider({ script: { response: { usage } } });
    return (await post(fake.url + path, body, headers)).json.usage;
  };

  it('of OpenAI includes cached and reasoning tokens in the totals', async () => {
    expect(await send('/openai/v1/chat/completions', BODIES.chat_completions)).toMatchObject({
      prompt_tokens: 100,
      completion_tokens: 50,
      total_tokens: 150,
      prompt_tokens_details: { cached_tokens: 30, cache_write_tokens: 20 },
      completion_tokens_details: { reasoning_tokens: 10 },
    });
  });

  it('of DeepSeek names hits and misses of the cache', async () => {
    expect(await send('/deepseek/chat/completions', BODIES.chat_completions)).toMatchObject({
      prompt_tokens: 100,
      prompt_cache_hit_tokens: 30,
      prompt_cache_miss_tokens: 70,
      completion_tokens: 50,
    });
  });

  it('of xAI excludes reasoning tokens from the completion in chat completions only', async () => {
    expect(await send('/xai/v1/chat/completions', BODIES.chat_completions)).toMatchObject({
      completion_tokens: 40,
      completion_tokens_details: { reasoning_tokens: 10 },
      total_tokens: 150,
    });
    expect(await send('/xai/v1/responses', BODIES.responses)).toMatchObject({
      input_tokens: 100,
      input_tokens_details: { cached_tokens: 30 },
      output_tokens: 50,
      output_tokens_details: { reasoning_tokens: 10 },
    });
  });

  it('of Anthropic excludes cached tokens from the input', async () => {
    expect(await send('/anthropic/v1/messages', BODIES.messages, ANTHROPIC)).toMatchObject({
      input_tokens: 50,
      cache_read_input_tokens: 30,
      cache_creation_input_tokens: 20,
      output_tokens: 50,
      output_tokens_details: { thinking_tokens: 10 },
    });
  });

  it('is in a stream of chat completions only if it is requested', async () => {
    const fake = await fakeProvider();
    const stream = async (more: object) =>
      eventsIn(
        (await post(`${fake.url}/v1/chat/completions`, { ...BODIES.chat_completions, stream: true, ...more })).text,
      );
    expect((await stream({})).some((event) => event.usage)).toBe(false);
    const events = await stream({ stream_options: { include_usage: true } });
    expect(events.at(-1)).toBe('[DONE]');
    expect(events.at(-2)).toMatchObject({ choices: [], usage: { completion_tokens: 60 } });
  });
});

describe('a stream of the Responses API', () => {
  it('has the events of the provider in order', async () => {
    const fake = await fakeProvider({ script: { response: { text: 'one two', reasoning: 'why' } } });
    const { text } = await post(`${fake.url}/v1/responses`, { ...BODIES.responses, stream: true });
    const events = eventsIn(text);
    expect(events.map(({ type }) => type.replace('response.', ''))).toEqual([
      'created',
      'in_progress',
      'output_item.added',
      'reasoning_summary_part.added',
      'reasoning_summary_text.delta',
      'reasoning_summary_text.done',
      'reasoning_summary_part.done',
      'output_item.done',
      'output_item.added',
      'content_part.added',
      'output_text.delta',
      'output_text.delta',
      'output_text.done',
      'content_part.done',
      'output_item.done',
      'completed',
    ]);
    expect(events.map(({ sequence_number: number }) => number)).toEqual(events.map((_, index) => index));
    expect([...text.matchAll(/^event: (.*)$/gm)].map(([, name]) => name)).toEqual(events.map(({ type }) => type));
    const whole = (await post(`${fake.url}/v1/responses`, BODIES.responses)).json;
    const { id, created_at, output, ...rest } = events.at(-1).response;
    expect(rest).toEqual(expect.objectContaining({ status: 'completed', usage: whole.usage }));
    // biome-ignore lint/suspicious/noExplicitAny: tests read untyped JSON
    expect(output.map(({ type }: any) => type)).toEqual(['reasoning', 'message']);
    expect([id, created_at]).toEqual([events[0].response.id, events[0].response.created_at]);
  });
});

describe('a stream of the Messages API', () => {
  it('has the events of the provider in order', async () => {
    const fake = await fakeProvider({ script: { response: { text: 'one two' } } });
    const { text } = await post(`${fake.url}/v1/messages`, { ...BODIES.messages, stream: true }, ANTHROPIC);
    expect(eventsIn(text).map(({ type }) => type)).toEqual([
      'message_start',
      'ping',
      'content_block_start',
      'content_block_delta',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ]);
  });
});
