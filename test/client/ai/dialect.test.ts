import { generateText } from 'ai';
import { describe, expect, it, onTestFinished } from 'vitest';
import { dialectOf } from '../../../src/client/ai/built_in_dialects.js';
import { type Dialect, registerDialect } from '../../../src/client/ai/dialect.js';
import { loadPackage } from '../../../src/client/ai/package_loader.js';
import { MissingPackageError } from '../../../src/client/missing_package.js';
import { ChainError } from '../../../src/client/runtime/chain_error.js';
import { speak } from '../../support/scripted_models.js';
import { startScriptedProvider } from '../../support/scripted_provider.js';
import { chainAgent, failedCall } from '../runtime/support.js';
import { modelFor } from './support.js';

const prompt = 'hello';

function register(dialect: Dialect): () => void {
  const remove = registerDialect(dialect);
  onTestFinished(remove);
  return remove;
}

describe('registerDialect', () => {
  it('lets a package of the user serve the hops of a provider, with the key, the base URL and the model', async () => {
    const a = await startScriptedProvider(speak('mine'));
    register({
      provider: 'desk',
      package: '@ai-sdk/openai',
      create: ({ createOpenAI }: typeof import('@ai-sdk/openai'), { apiKey, baseURL, fetch, modelName }) =>
        createOpenAI({ apiKey, baseURL, fetch, headers: { 'x-desk': '1' } }).chat(modelName),
    });
    const { model } = modelFor({ url: a.url, provider: { name: 'desk' }, model: 'house' });
    expect((await generateText({ model, prompt })).text).toBe('mine');
    expect(a.requests[0]).toMatchObject({
      path: '/v1/chat/completions',
      headers: { authorization: 'Bearer sk-secret-0', 'x-desk': '1' },
      body: { model: 'house' },
    });
  });

  it('is replaced by a later one of the same provider, and ends with the function that it returns', () => {
    const [hop] = chainAgent({ url: 'http://127.0.0.1:1/v1', provider: { name: 'desk' } }).resolve().hops;
    if (!hop) throw new Error('no hop');
    const optionsKey = () => dialectOf(hop).optionsKey;
    const first = register({ provider: 'desk', package: 'a', create: () => undefined, optionsKey: 'first' });
    const second = register({ provider: 'desk', package: 'b', create: () => undefined, optionsKey: 'second' });
    expect(optionsKey()).toBe('second');
    first();
    expect(optionsKey()).toBe('second');
    second();
    expect(optionsKey()).toBe('desk');
  });

  it('fails the call when it creates no model, and rejects a dialect that is not complete', async () => {
    register({ provider: 'desk', package: '@ai-sdk/openai', create: () => ({}) });
    const { model } = modelFor({ url: 'http://127.0.0.1:1/v1', provider: { name: 'desk' } });
    const error = await failedCall(generateText({ model, prompt }), ChainError);
    expect(error.message).toContain('must create a LanguageModelV3 or LanguageModelV4');
    expect(() => registerDialect({ provider: 'desk' } as never)).toThrow(TypeError);
  });
});

describe('loadPackage', () => {
  it('rejects with the name and the install command for the installed AI SDK', async () => {
    const error = await failedCall(loadPackage('@ai-sdk/not-there', 'v3'), MissingPackageError);
    expect(error).toMatchObject({ packageName: '@ai-sdk/not-there', installCommand: 'npm install @ai-sdk/not-there' });
  });

  it('returns the same module for each call', async () => {
    expect(await loadPackage('@ai-sdk/openai', 'v3')).toBe(await loadPackage('@ai-sdk/openai', 'v3'));
  });
});
