import { describe, expect, it } from 'vitest';
import type { WireApi } from '../../../gen/ts/agentllm/v1/provider.js';
import { readerOf } from '../../../src/client/runtime/wire.js';
import { END_MARKER, newFacts } from '../../../src/client/runtime/wire_reader.js';

/** The meaning of events in order, and the facts after them. */
function read(api: 'CHAT_COMPLETIONS' | 'RESPONSES' | 'MESSAGES', ...events: unknown[]) {
  const facts = newFacts();
  const reader = readerOf(`WIRE_API_${api}` as WireApi, facts);
  const results = events.map((event) => reader.event(event));
  return {
    facts,
    /** Which events have content. */
    content: results.map(({ content }) => content),
    problem: results.find(({ problem }) => problem)?.problem,
  };
}

/** The problem of a body, and the facts after it. */
function readBody(api: 'CHAT_COMPLETIONS' | 'RESPONSES' | 'MESSAGES', body: unknown) {
  const facts = newFacts();
  return { problem: readerOf(`WIRE_API_${api}` as WireApi, facts).body(body), facts };
}

describe('the reader of chat completions', () => {
  const delta = (fields: object) => ({ choices: [{ delta: fields }] });

  it('knows which events have content', () => {
    const events = [
      delta({ role: 'assistant', content: '' }),
      delta({ content: 'x' }),
      delta({ reasoning_content: 'x' }),
      delta({ reasoning: 'x' }),
      delta({ refusal: 'x' }),
      delta({ tool_calls: [{ index: 0, function: { name: 'f', arguments: '' } }] }),
      { choices: [] },
      { type: 'ping' },
    ];
    expect(read('CHAT_COMPLETIONS', ...events).content).toEqual([false, true, true, true, true, true, false, false]);
  });

  it('reads model, usage and finish reason, and ends with the end marker', () => {
    const finish = { model: 'served', choices: [{ delta: {}, finish_reason: 'length' }] };
    expect(read('CHAT_COMPLETIONS', finish).facts).toMatchObject({
      terminal: 'finished',
      finishReason: 'length',
      model: 'served',
    });
    const usage = { choices: [], usage: { prompt_tokens: 1 } };
    expect(read('CHAT_COMPLETIONS', finish, usage, END_MARKER).facts).toMatchObject({
      terminal: 'ended',
      usage: { prompt_tokens: 1 },
    });
  });

  it('reads a refusal, whatever the finish reason', () => {
    const finish = { choices: [{ delta: {}, finish_reason: 'stop' }] };
    expect(read('CHAT_COMPLETIONS', delta({ refusal: 'no' }), finish).facts.finishReason).toBe('content-filter');
    const message = { content: null, refusal: 'no' };
    expect(readBody('CHAT_COMPLETIONS', { choices: [{ message, finish_reason: 'stop' }] }).facts.finishReason).toBe(
      'content-filter',
    );
  });

  it('takes a stream that has nothing but its end marker for no response', () => {
    expect(read('CHAT_COMPLETIONS', { choices: [] }, delta({ role: 'assistant' }), END_MARKER)).toMatchObject({
      problem: { kind: 'invalid' },
      facts: { terminal: 'none' },
    });
    expect(read('CHAT_COMPLETIONS', delta({ content: 'x' }), END_MARKER)).toMatchObject({
      problem: undefined,
      facts: { terminal: 'ended' },
    });
    const cut = delta({ tool_calls: [{ index: 0, function: { name: 'f', arguments: '{"a' } }] });
    expect(read('CHAT_COMPLETIONS', cut, END_MARKER).problem?.kind).toBe('truncated');
  });

  it.each([
    [{ choices: [] }, 'invalid'],
    [{}, 'invalid'],
    [[1], 'invalid'],
    [{ choices: [{ finish_reason: 'stop' }] }, 'invalid'],
    [{ error: { message: 'x' } }, 'error'],
    [
      {
        choices: [
          { message: { tool_calls: [{ function: { name: 'f', arguments: '{"a' } }] }, finish_reason: 'tool_calls' },
        ],
      },
      'truncated',
    ],
    [{ choices: [{ message: { content: 'x' } }] }, undefined],
  ])('finds in the body %j the problem %s', (body, kind) => {
    expect(readBody('CHAT_COMPLETIONS', body).problem?.kind).toBe(kind);
  });
});

describe('the reader of the Responses API', () => {
  const call = { type: 'function_call', id: 'fc_1', name: 'f' };
  const completed = (response: object = {}) => ({
    type: 'response.completed',
    response: { status: 'completed', ...response },
  });

  it('knows which events have content', () => {
    const events = [
      { type: 'response.created', response: { model: 'served' } },
      { type: 'response.output_item.added', item: { type: 'reasoning' } },
      { type: 'response.content_part.added' },
      { type: 'response.output_text.delta', delta: '' },
      { type: 'response.output_text.delta', delta: 'x' },
      { type: 'response.reasoning_summary_text.delta', delta: 'x' },
      { type: 'response.output_item.added', item: { type: 'web_search_call' } },
      { type: 'response.web_search_call.searching' },
      { type: 'keepalive' },
    ];
    expect(read('RESPONSES', ...events).content).toEqual([false, false, false, false, true, true, true, true, false]);
  });

  it.each([
    [
      completed({ usage: { input_tokens: 1 } }),
      { terminal: 'ended', finishReason: 'stop', usage: { input_tokens: 1 } },
    ],
    [
      {
        type: 'response.incomplete',
        response: { status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } },
      },
      { finishReason: 'length' },
    ],
    [
      {
        type: 'response.incomplete',
        response: { status: 'incomplete', incomplete_details: { reason: 'content_filter' } },
      },
      { finishReason: 'content-filter' },
    ],
  ])('ends with %j', (event, facts) => {
    expect(read('RESPONSES', event)).toMatchObject({ facts, problem: undefined });
  });

  it('finishes with tool-calls after a complete function call', () => {
    const done = { type: 'response.output_item.done', item: { ...call, arguments: '{}', status: 'completed' } };
    expect(read('RESPONSES', { type: 'response.output_item.added', item: call }, done, completed())).toMatchObject({
      facts: { finishReason: 'tool-calls' },
      problem: undefined,
    });
  });

  it.each([
    [[{ type: 'error', code: 'server_error', message: 'x' }], 'error'],
    [[{ type: 'response.failed', response: { error: { code: 'rate_limit_exceeded' } } }], 'error'],
    [[{ type: 'response.failed', response: { error: null } }], 'error'],
    [[{ type: 'response.output_item.done', item: { ...call, arguments: '{"a' } }], 'truncated'],
    [[{ type: 'response.output_item.done', item: { ...call, arguments: '{}', status: 'incomplete' } }], 'truncated'],
    [[{ type: 'response.output_item.added', item: call }, completed()], 'truncated'],
    [[{ no: 'type' }], 'invalid'],
    [[END_MARKER], undefined],
  ])('finds in the events %j the problem %s', (events, kind) => {
    expect(read('RESPONSES', ...events).problem?.kind).toBe(kind);
  });

  it('reads a refusal', () => {
    const refusal = { type: 'response.refusal.delta', delta: 'no' };
    expect(read('RESPONSES', refusal, completed()).facts.finishReason).toBe('content-filter');
    const output = [{ type: 'message', content: [{ type: 'refusal', refusal: 'no' }] }];
    expect(readBody('RESPONSES', { status: 'completed', output }).facts.finishReason).toBe('content-filter');
  });

  it('keeps the usage of a failed response', () => {
    const event = { type: 'response.failed', response: { error: { code: 'x' }, usage: { input_tokens: 9 } } };
    expect(read('RESPONSES', event).facts.usage).toEqual({ input_tokens: 9 });
  });

  it.each([
    [{ error: { code: 'server_error', message: 'x' }, status: 'failed', output: [] }, 'error'],
    [{ error: null, status: 'failed', output: [] }, 'error'],
    [{ error: null, status: 'completed' }, 'invalid'],
    [{ error: null, status: 'completed', output: [{ ...call, arguments: '{"a' }] }, 'truncated'],
    [{ error: null, status: 'completed', output: [] }, undefined],
  ])('finds in the body %j the problem %s', (body, kind) => {
    expect(readBody('RESPONSES', body).problem?.kind).toBe(kind);
  });
});

describe('the reader of Messages', () => {
  const start = { type: 'message_start', message: { model: 'served', usage: { input_tokens: 3, output_tokens: 1 } } };
  const tool = { type: 'content_block_start', index: 1, content_block: { type: 'tool_use', name: 'f' } };
  const input = (partial_json: string) => ({
    type: 'content_block_delta',
    index: 1,
    delta: { type: 'input_json_delta', partial_json },
  });
  const stop = { type: 'content_block_stop', index: 1 };
  const end = (stop_reason: string) => ({ type: 'message_delta', delta: { stop_reason }, usage: { output_tokens: 7 } });

  it('knows which events have content', () => {
    const events = [
      start,
      { type: 'ping' },
      { type: 'content_block_start', index: 0, content_block: { type: 'thinking', thinking: '' } },
      { type: 'content_block_delta', index: 0, delta: { type: 'thinking_delta', thinking: '' } },
      { type: 'content_block_delta', index: 0, delta: { type: 'thinking_delta', thinking: 'x' } },
      { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'x' } },
      tool,
      input('{'),
    ];
    expect(read('MESSAGES', ...events).content).toEqual([false, false, false, false, true, true, true, true]);
  });

  it('adds up the usage of start and end, is finished with its stop reason and ends with message_stop', () => {
    expect(read('MESSAGES', start, end('end_turn')).facts.terminal).toBe('finished');
    expect(read('MESSAGES', start, end('end_turn'), { type: 'message_stop' }).facts).toMatchObject({
      terminal: 'ended',
      finishReason: 'stop',
      model: 'served',
      usage: { input_tokens: 3, output_tokens: 7 },
    });
    // Its block has not ended, so more than message_stop is missing.
    expect(read('MESSAGES', start, tool, input('{"a'), end('max_tokens')).facts.terminal).toBe('none');
  });

  it.each([
    ['refusal', 'content-filter'],
    ['max_tokens', 'length'],
    ['tool_use', 'tool-calls'],
    ['something_new', 'other'],
  ])('reads the stop reason %s as %s', (reason, finishReason) => {
    expect(read('MESSAGES', end(reason)).facts.finishReason).toBe(finishReason);
  });

  it.each([
    [[{ type: 'error', error: { type: 'overloaded_error', message: 'x' } }], 'error'],
    [[tool, input('{"a'), stop], 'truncated'],
    [[tool, input('{"a'), { type: 'message_stop' }], 'truncated'],
    [[tool, stop], undefined],
    [[tool, input('{"a":1}'), stop, { type: 'message_stop' }], undefined],
    [[{ no: 'type' }], 'invalid'],
  ])('finds in the events %j the problem %s', (events, kind) => {
    expect(read('MESSAGES', ...events).problem?.kind).toBe(kind);
  });

  it.each([
    [{ type: 'error', error: { type: 'api_error' } }, 'error'],
    [{ type: 'message' }, 'invalid'],
    [
      { type: 'message', content: [{ type: 'tool_use', name: 'f', input: {} }], stop_reason: 'max_tokens' },
      'truncated',
    ],
    [{ type: 'message', content: [], stop_reason: 'end_turn' }, undefined],
  ])('finds in the body %j the problem %s', (body, kind) => {
    expect(readBody('MESSAGES', body).problem?.kind).toBe(kind);
  });
});
