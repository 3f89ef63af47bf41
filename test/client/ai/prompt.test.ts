import { describe, expect, it } from 'vitest';
import { promptFor, withOrigin } from '../../../src/client/ai/prompt.js';
import type { Prompt } from '../../../src/client/ai/sdk_types.js';
import type { AttemptContext } from '../../../src/client/runtime/model_call.js';

const at = (credential: string, isForeign: boolean) => ({ credential, isForeign }) as AttemptContext;
const cleaned = (prompt: object[], context: AttemptContext) => promptFor(prompt as Prompt, context, 'v3', 'v3');

const noted = (origin: string, options: object) => ({ openai: options, agentllm: { origin } });
const assistant = (providerOptions: object) => [
  { role: 'assistant', content: [{ type: 'text', text: 'x', providerOptions }] },
];

describe('promptFor', () => {
  it('keeps the metadata of the same origin and key, also after a change of the hop', () => {
    const prompt = assistant(noted('https://a key', { itemId: 'i' }));
    const expected = [
      { role: 'assistant', content: [{ type: 'text', text: 'x', providerOptions: { openai: { itemId: 'i' } } }] },
    ];
    expect(cleaned(prompt, at('https://a key', false))).toEqual(expected);
    expect(cleaned(prompt, at('https://a key', true))).toEqual(expected);
  });

  it('removes the metadata of another origin or key, also at the first hop', () => {
    const prompt = assistant(noted('https://a key', { itemId: 'i' }));
    expect(cleaned(prompt, at('https://a other', false))).toEqual([
      { role: 'assistant', content: [{ type: 'text', text: 'x' }] },
    ]);
  });

  it('removes metadata without a note only after a change of the hop', () => {
    const prompt = assistant({ anthropic: { signature: 's' } });
    expect(JSON.stringify(cleaned(prompt, at('a', false)))).toContain('signature');
    expect(JSON.stringify(cleaned(prompt, at('a', true)))).not.toContain('signature');
  });

  it('keeps what the caller sets on its own messages, and cache control everywhere', () => {
    const user = {
      role: 'user',
      content: [{ type: 'text', text: 'x', providerOptions: { openai: { imageDetail: 'low' } } }],
    };
    const system = {
      role: 'system',
      content: 'x',
      providerOptions: { anthropic: { cacheControl: { type: 'ephemeral' } } },
    };
    const reply = {
      role: 'assistant',
      content: [{ type: 'reasoning', text: '', providerOptions: { anthropic: { signature: 's', cacheControl: {} } } }],
    };
    expect(cleaned([system, user, reply], at('a', true))).toEqual([
      system,
      user,
      {
        role: 'assistant',
        content: [{ type: 'reasoning', text: '', providerOptions: { anthropic: { cacheControl: {} } } }],
      },
    ]);
  });

  it('does not change the prompt that it is given', () => {
    const prompt = assistant(noted('a', { itemId: 'i' }));
    const before = JSON.stringify(prompt);
    cleaned(prompt, at('b', true));
    expect(JSON.stringify(prompt)).toBe(before);
  });

  it('converts the data of files between the versions of the interface', () => {
    const url = new URL('https://example.com/a.png');
    const bytes = new Uint8Array([1]);
    const files = (...data: unknown[]) =>
      [{ role: 'user', content: data.map((one) => ({ type: 'file', mediaType: 'image/png', data: one })) }] as never;
    const dataOf = (prompt: Prompt) =>
      ((prompt[0]?.content ?? []) as unknown as { data: unknown }[]).map(({ data }) => data);
    const v4 = [
      { type: 'url', url },
      { type: 'data', data: bytes },
      { type: 'data', data: 'AQ==' },
    ];
    expect(dataOf(promptFor(files(url, bytes, 'AQ=='), at('a', false), 'v3', 'v4'))).toEqual(v4);
    expect(dataOf(promptFor(files(...v4), at('a', false), 'v4', 'v3'))).toEqual([url, bytes, 'AQ==']);
    expect(dataOf(promptFor(files({ type: 'text', text: 'a' }), at('a', false), 'v4', 'v3'))).toEqual([
      Buffer.from('a'),
    ]);
  });
});

describe('withOrigin', () => {
  it('notes the origin on metadata, and adds none where there is none', () => {
    expect(withOrigin({ providerMetadata: { openai: { itemId: 'i' } } }, 'o')).toEqual({
      providerMetadata: { openai: { itemId: 'i' }, agentllm: { origin: 'o' } },
    });
    expect(withOrigin({ providerMetadata: undefined }, 'o')).toEqual({ providerMetadata: undefined });
  });
});
