import { describe, expect, it } from 'vitest';
import { emulatedProvider } from '../../src/rehearsal/text_call.js';
import { chainAgent, type TestHop } from '../client/runtime/support.js';
import { firstHop, rehearseOne, shown } from './support.js';

const at = (provider: TestHop['provider'], model = 'm'): TestHop => ({
  url: 'https://llm.example.com/v1',
  provider,
  model,
});

describe('emulatedProvider', () => {
  it.each([
    ['openai', 'WIRE_API_RESPONSES', 'openai'],
    ['openai', 'WIRE_API_CHAT_COMPLETIONS', 'openai'],
    ['claude', 'WIRE_API_MESSAGES', 'anthropic'],
    ['grok', 'WIRE_API_CHAT_COMPLETIONS', 'xai'],
    ['deepseek', 'WIRE_API_CHAT_COMPLETIONS', 'deepseek'],
    // An API that the provider of this name does not have.
    ['deepseek', 'WIRE_API_MESSAGES', 'compatible'],
    ['desk', 'WIRE_API_MESSAGES', 'compatible'],
    ['constructor', 'WIRE_API_CHAT_COMPLETIONS', 'compatible'],
  ] as const)('of %s with %s is %s', (provider, wire_api, expected) => {
    const hop = firstHop(chainAgent(at({ name: 'any' })).resolve());
    expect(emulatedProvider({ ...hop, provider, wire_api })).toBe(expected);
  });
});

describe('the call of a rehearsal', () => {
  it.each(['WIRE_API_CHAT_COMPLETIONS', 'WIRE_API_RESPONSES', 'WIRE_API_MESSAGES'] as const)(
    'has a response with text over %s',
    async (wire_api) => {
      const resolution = chainAgent(at({ name: 'desk' })).resolve();
      const hops = resolution.hops.map((hop) => ({ ...hop, wire_api }));
      for (const mode of ['generate', 'live', 'whole'] as const) {
        const result = await rehearseOne({ ...resolution, hops }, undefined, { mode });
        expect(shown(result)).toEqual(['responds', '0 OK NONE']);
        expect(result.receipt.usage?.output_tokens).toBe(60);
        const torn = await rehearseOne({ ...resolution, hops }, 'cut-stream', { mode });
        expect(torn.result).toBe(mode === 'live' ? 'torn' : 'fails');
      }
    },
  );
});
