import { describe, expect, it } from 'vitest';
import { routeOf } from '../../src/fake_provider/route.js';

const route = (method: string, path: string, more: { header?: string; hasAnthropicVersion?: boolean } = {}) =>
  routeOf({ method, path, header: more.header, hasAnthropicVersion: more.hasAnthropicVersion ?? false });

describe('routeOf', () => {
  it.each([
    ['POST', '/v1/chat/completions', 'openai', 'chat_completions'],
    ['POST', '/chat/completions', 'openai', 'chat_completions'],
    ['POST', '/v1/responses', 'openai', 'responses'],
    ['POST', '/v1/messages', 'anthropic', 'messages'],
    ['POST', '/openai/v1/responses', 'openai', 'responses'],
    ['POST', '/deepseek/chat/completions', 'deepseek', 'chat_completions'],
    ['POST', '/deepseek/v1/chat/completions', 'deepseek', 'chat_completions'],
    ['POST', '/xai/v1/responses', 'xai', 'responses'],
    ['POST', '/grok/v1/chat/completions', 'xai', 'chat_completions'],
    ['POST', '/claude/v1/messages', 'anthropic', 'messages'],
    ['POST', '/compatible/v1/messages', 'compatible', 'messages'],
    ['POST', '/compatible/first-hop/v1/chat/completions', 'compatible', 'chat_completions'],
    ['GET', '/v1/models', 'openai', 'models'],
    ['GET', '/anthropic/v1/models', 'anthropic', 'models'],
    ['GET', '/v1/api-key', 'xai', 'key'],
    ['GET', '/xai/v1/api-key', 'xai', 'key'],
    ['GET', '/user/balance', 'deepseek', 'key'],
  ])('leads %s %s to %s, %s', (method, path, provider, endpoint) => {
    expect(route(method, path)).toEqual({ provider, endpoint });
  });

  it('reads the provider from a header, and that of a model list from the header of Anthropic', () => {
    expect(route('POST', '/v1/chat/completions', { header: 'xai' })).toMatchObject({ provider: 'xai' });
    expect(route('POST', '/v1/chat/completions', { header: 'unknown' })).toMatchObject({ status: 404 });
    expect(route('GET', '/v1/models', { hasAnthropicVersion: true })).toMatchObject({ provider: 'anthropic' });
  });

  it('decodes the name of a model', () => {
    expect(route('GET', '/v1/models/meta%2Flarge')).toMatchObject({ endpoint: 'models', model: 'meta/large' });
    expect(route('GET', '/v1/models/%zz')).toMatchObject({ model: '%zz' });
  });

  it.each([
    ['GET', '/', 404, 'Invalid URL'],
    ['POST', '/opneai/v1/chat/completions', 404, 'the first segment is v1 or one of openai, anthropic'],
    ['POST', '/anthropic/v1/chat/completions', 404, 'Anthropic has no such endpoint'],
    ['POST', '/deepseek/responses', 404, 'DeepSeek has no such endpoint'],
    ['GET', '/openai/v1/api-key', 404, 'OpenAI has no such endpoint'],
    ['GET', '/xai/user/balance', 404, 'xAI has no such endpoint'],
    ['GET', '/v1/chat/completions', 405, 'use POST'],
    ['POST', '/v1/models', 405, 'use GET'],
  ])('leads %s %s nowhere: %i', (method, path, status, problem) => {
    expect(route(method, path)).toMatchObject({ status, problem: expect.stringContaining(problem) });
  });
});
