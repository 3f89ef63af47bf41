import { describe, expect, it } from 'vitest';
import { applySettings, omittableName, parseBody } from '../../../src/client/runtime/request_body.js';
import type { SentParameter } from '../../../src/domain/adapt.js';

const CHAT = 'WIRE_API_CHAT_COMPLETIONS';
const parameter = (name: string, wire_name: string, value: unknown) => ({ name, wire_name, value }) as SentParameter;

function applied(body: object, settings: Partial<Parameters<typeof applySettings>[1]> = {}) {
  const result: Record<string, unknown> = { ...body };
  applySettings(result, { wireApi: CHAT, parameters: [], omitted: [], ...settings });
  return result;
}

describe('applySettings', () => {
  it('replaces the parameters of the package, under whichever name it sent them, by those of the hop', () => {
    const body = { model: 'm', temperature: 1, top_p: 1, max_tokens: 5, stop: ['a'], seed: 1, reasoning_effort: 'low' };
    const parameters = [
      parameter('temperature', 'temperature', 0),
      parameter('max_tokens', 'max_completion_tokens', 9),
      parameter('reasoning_effort', 'reasoning.effort', 'high'),
    ];
    expect(applied(body, { parameters })).toEqual({
      model: 'm',
      temperature: 0,
      max_completion_tokens: 9,
      reasoning: { effort: 'high' },
    });
  });

  it('keeps the other members of an object', () => {
    const parameters = [parameter('reasoning_effort', 'reasoning.effort', 'high')];
    const body = { reasoning: { effort: 'low', summary: 'auto' } };
    expect(applied(body, { parameters })).toEqual({ reasoning: { effort: 'high', summary: 'auto' } });
    expect(applied(body)).toEqual({ reasoning: { summary: 'auto' } });
    expect(applied({ reasoning: { effort: 'low' } })).toEqual({});
    expect(body.reasoning.effort).toBe('low');
  });

  it('replaces a thinking budget, and keeps a form of thinking that no config has', () => {
    expect(applied({ thinking: { type: 'enabled', budget_tokens: 1024 } })).toEqual({});
    expect(applied({ thinking: { type: 'adaptive' } })).toEqual({ thinking: { type: 'adaptive' } });
  });

  it('requests usage for streams of chat completions only', () => {
    expect(applied({ stream: true })).toEqual({ stream: true, stream_options: { include_usage: true } });
    expect(applied({ stream: true, stream_options: { include_usage: false } }).stream_options).toEqual({
      include_usage: false,
    });
    expect(applied({})).toEqual({});
    expect(applied({ stream: true }, { wireApi: 'WIRE_API_MESSAGES' })).toEqual({ stream: true });
  });

  it('does not let the Responses API store the response unless the caller asks for it', () => {
    expect(applied({}, { wireApi: 'WIRE_API_RESPONSES' })).toEqual({ store: false });
    expect(applied({ store: true }, { wireApi: 'WIRE_API_RESPONSES' })).toEqual({ store: true });
  });

  it('omits rejected fields', () => {
    const body = { stream: true, presence_penalty: 0, reasoning: { summary: 'auto' } };
    expect(applied(body, { omitted: ['presence_penalty', 'reasoning.summary', 'stream_options'] })).toEqual({
      stream: true,
    });
  });
});

describe('omittableName', () => {
  const body = { temperature: 0, presence_penalty: 1, reasoning: { effort: 'low' }, messages: [], response_format: {} };

  it.each([
    ['temperature', 'temperature'],
    ['reasoning.effort', 'reasoning.effort'],
    ['presencePenalty', 'presence_penalty'],
    ['top_p', undefined],
    ['messages', undefined],
    ['messages[0].content', undefined],
    ['response_format', undefined],
    ['reasoning.summary', undefined],
    [undefined, undefined],
  ])('of %s is %s', (name, expected) => {
    expect(omittableName(body, name)).toBe(expected);
  });
});

describe('parseBody', () => {
  it('reads a JSON object, and nothing else', () => {
    expect(parseBody('{"a":1}')).toEqual({ a: 1 });
    for (const other of ['[1]', 'no', '', undefined, new Uint8Array(1)]) expect(parseBody(other)).toBeUndefined();
  });
});
