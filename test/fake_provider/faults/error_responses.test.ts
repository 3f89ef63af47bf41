import { describe, expect, it } from 'vitest';
import { VirtualClock } from '../../../src/fake_provider/clock.js';
import type { FakeProvider } from '../../../src/fake_provider/fake_provider.js';
import { faultCatalogue } from '../../../src/fake_provider/faults/fault_catalogue.js';
import { PROVIDERS, type ProviderName } from '../../../src/fake_provider/providers.js';
import { ANTHROPIC, BODIES, eventsIn, type FakeResponse, fakeProvider, post } from '../support.js';

type Api = keyof typeof BODIES;

/** Sends a request of one provider's usual API with a fault. */
function fail(fake: FakeProvider, provider: ProviderName, fault: string, body: object = {}): Promise<FakeResponse> {
  const api: Api = provider === 'anthropic' ? 'messages' : 'chat_completions';
  const path = api === 'messages' ? '/messages' : '/chat/completions';
  const headers = { 'x-fake-fault': fault, 'x-api-key': KEY, ...(api === 'messages' && ANTHROPIC) };
  return post(fake.baseUrl(provider) + path, { ...BODIES[api], ...body }, headers);
}
const KEY = 'sk-of-a-test-0123456789';

describe('an error response', () => {
  it.each<[ProviderName, string, number, object]>([
    ['openai', 'rate-limit', 429, { error: { type: 'requests', param: null, code: 'rate_limit_exceeded' } }],
    ['deepseek', 'rate-limit', 429, { error: { message: 'Rate limit reached' } }],
    ['xai', 'rate-limit', 429, { code: 'Some resource has been exhausted', error: expect.stringContaining('gpt-4o') }],
    ['anthropic', 'rate-limit', 429, { type: 'error', error: { type: 'rate_limit_error' } }],
    ['openai', 'quota', 429, { error: { type: 'insufficient_quota', code: 'insufficient_quota' } }],
    ['deepseek', 'quota', 402, { error: { message: 'Insufficient Balance' } }],
    ['xai', 'quota', 403, { error: expect.stringContaining("doesn't have any credits") }],
    ['anthropic', 'quota', 402, { error: { type: 'billing_error' } }],
    ['openai', 'quota-without-code', 429, { error: { message: 'INSUFFICIENT QUOTA', type: null, code: null } }],
    ['openai', 'credit-exhausted', 429, { error: { code: 'credit_balance_exhausted' } }],
    [
      'anthropic',
      'credit-balance',
      400,
      { error: { type: 'invalid_request_error', message: /credit balance is too low/ } },
    ],
    [
      'anthropic',
      'spend-limit',
      400,
      { error: { type: 'invalid_request_error', message: /specified API usage limits/ } },
    ],
    ['anthropic', 'enforced-spend-limit', 429, { error: { details: { error_code: 'enforced_spend_limit_reached' } } }],
    ['compatible', 'payment-required', 402, { error: { message: /Insufficient credits/ } }],
    ['openai', 'invalid-key', 401, { error: { code: 'invalid_api_key', message: /sk-o\*+6789/ } }],
    ['deepseek', 'invalid-key', 401, { error: { type: 'authentication_error' } }],
    ['xai', 'invalid-key', 400, { error: /Incorrect API key provided/ }],
    ['anthropic', 'invalid-key', 401, { error: { type: 'authentication_error', message: 'invalid x-api-key' } }],
    ['xai', 'unauthorized', 401, { code: /authentication credentials/ }],
    ['openai', 'permission', 403, { error: { message: /insufficient permissions/ } }],
    ['openai', 'region', 403, { error: { code: 'unsupported_country_region_territory' } }],
    ['anthropic', 'permission', 403, { error: { type: 'permission_error' } }],
    ['openai', 'model-not-found', 404, { error: { code: 'model_not_found', message: /`gpt-4o`/ } }],
    ['deepseek', 'model-not-found', 400, { error: { message: 'Model Not Exist' } }],
    ['xai', 'model-not-found', 404, { code: 'Some requested entity was not found' }],
    ['anthropic', 'model-not-found', 404, { error: { type: 'not_found_error', message: 'model: claude-haiku-4-5' } }],
    ['openai', 'overloaded', 503, { error: { code: 'server_is_overloaded' } }],
    ['anthropic', 'overloaded', 529, { error: { type: 'overloaded_error', message: 'Overloaded' } }],
    ['openai', 'slow-down', 503, { error: { code: 'slow_down' } }],
    ['openai', 'server-error', 500, { error: { type: 'server_error' } }],
    ['anthropic', 'server-error', 500, { error: { type: 'api_error' } }],
    ['anthropic', 'gateway-timeout', 504, { error: { type: 'timeout_error' } }],
    ['openai', 'request-timeout', 408, { error: { type: 'timeout' } }],
    ['openai', 'conflict', 409, { error: { type: 'conflict_error' } }],
    ['openai', 'context-length', 400, { error: { code: 'context_length_exceeded', param: 'messages' } }],
    ['deepseek', 'context-length', 400, { error: { message: /maximum context length is 8192 tokens. However, you/ } }],
    ['xai', 'context-length', 400, { error: /maximum prompt length is 8192 but the request contains 12000 tokens/ }],
    ['anthropic', 'context-length', 400, { error: { message: 'prompt is too long: 12000 tokens > 8192 maximum' } }],
    ['anthropic', 'request-too-large', 413, { error: { type: 'request_too_large' } }],
    ['openai', 'invalid-request', 400, { error: { type: 'invalid_request_error', code: null } }],
    ['xai', 'unprocessable', 422, { error: /deserialize/ }],
    ['openai', 'content-policy', 400, { error: { code: 'content_policy_violation' } }],
    ['xai', 'content-policy', 403, { error: /usage guidelines/ }],
    ['openai', 'content-filter', 400, { error: { code: 'content_filter' } }],
  ])('of %s for %s has status %i and the form of the provider', async (provider, fault, status, expected) => {
    const fake = await fakeProvider();
    const { json, ...response } = await fail(fake, provider, fault);
    expect(response.status).toBe(status);
    expect(response.headers.get('content-type')).toBe('application/json');
    expect(json).toMatchObject(withPatterns(expected));
    expect(fake.requests[0]).toMatchObject({ fault, status, ended: 'completed' });
  });

  it.each(['bad-gateway', 'gateway-timeout', 'request-too-large'])('for %s is the page of a proxy', async (fault) => {
    const { headers, text } = await fail(await fakeProvider(), 'openai', fault);
    expect(headers.get('content-type')).toBe('text/html');
    expect(text).toContain('<center>nginx</center>');
  });

  it('of xAI has one of three forms', async () => {
    const fake = await fakeProvider();
    const bodies = ['code', 'text', 'object'].map(
      async (form) => (await fail(fake, 'xai', `overloaded,body=${form}`)).json,
    );
    expect(await Promise.all(bodies)).toEqual([
      { code: 'The service is currently unavailable', error: expect.any(String) },
      { error: expect.any(String) },
      { error: { message: expect.any(String), type: null, param: null, code: null } },
    ]);
  });

  it('has Retry-After only if it is set: seconds, milliseconds or a date', async () => {
    const fake = await fakeProvider({ clock: new VirtualClock(Date.UTC(2026, 0, 1)) });
    const retryAfter = async (options: string) => {
      const { headers } = await fail(fake, 'openai', `rate-limit${options}`);
      return [headers.get('retry-after'), headers.get('retry-after-ms')];
    };
    expect(await retryAfter('')).toEqual([null, null]);
    expect(await retryAfter(',retry_after=2')).toEqual(['2', null]);
    expect(await retryAfter(',retry_after=0.25')).toEqual(['1', '250']);
    expect(await retryAfter(',retry_after_date=90')).toEqual(['Thu, 01 Jan 2026 00:01:30 GMT', null]);
  });

  it('has the id of the request in the header and the body of the provider', async () => {
    const fake = await fakeProvider();
    const { headers, json } = await fail(fake, 'anthropic', 'overloaded');
    expect(headers.get('request-id')).toBe(json.request_id);
    expect((await fail(fake, 'openai', 'overloaded')).headers.get('x-request-id')).toMatch(/^req_fake0+2$/);
    expect((await fail(fake, 'deepseek', 'overloaded')).headers.get('x-ds-trace-id')).toMatch(/^req_fake0+3$/);
  });

  it('has another status if it is set', async () => {
    expect((await fail(await fakeProvider(), 'anthropic', 'overloaded,status=503')).status).toBe(503);
  });

  it('for a parameter is sent only while the request has the parameter', async () => {
    const fake = await fakeProvider();
    const fault = 'unsupported-parameter,param=temperature';
    expect((await fail(fake, 'openai', fault, { temperature: 0 })).json.error).toMatchObject({
      code: 'unsupported_parameter',
      param: 'temperature',
    });
    expect((await fail(fake, 'deepseek', fault, { temperature: 0 })).status).toBe(422);
    expect((await fail(fake, 'anthropic', fault, { temperature: 0 })).json.error.message).toBe(
      '`temperature` is deprecated for this model.',
    );
    expect((await fail(fake, 'openai', fault)).status).toBe(200);
    expect((await fail(fake, 'openai', fault, { temperature: null })).status).toBe(200);
    expect((await fail(fake, 'openai', 'unsupported-value,param=seed', { seed: 1 })).json.error.code).toBe(
      'unsupported_value',
    );
  });

  it('for a prefill is sent only if the last message is of the assistant', async () => {
    const fake = await fakeProvider();
    const messages = [
      { role: 'user', content: 'Hello' },
      { role: 'assistant', content: 'He' },
    ];
    const rejected = await fail(fake, 'anthropic', 'prefill-rejected', { messages });
    expect([rejected.status, rejected.json.error.message]).toEqual([400, expect.stringContaining('prefill')]);
    expect((await fail(fake, 'anthropic', 'prefill-rejected')).status).toBe(200);
  });

  it('is sent for every fault of its kind at every provider', async () => {
    const fake = await fakeProvider();
    const faults = faultCatalogue.filter(({ effect }) => effect.kind === 'error' && !effect.only);
    expect(faults.length).toBeGreaterThan(20);
    const cases = faults.flatMap(({ name }) => PROVIDERS.map((provider) => [name, provider] as const));
    const replies = await Promise.all(cases.map(([name, provider]) => fail(fake, provider, name)));
    expect(cases.filter((_, index) => (replies[index]?.status ?? 0) < 400)).toEqual([]);
    expect(replies.map(({ text }) => text).filter((text) => /\{\w+\}|undefined/.test(text))).toEqual([]);
  });
});

describe('an error as an event of a stream', () => {
  const stream = { stream: true, stream_options: { include_usage: true } };

  it('is the first event of chat completions', async () => {
    const { status, headers, text } = await fail(await fakeProvider(), 'openai', 'error-event', stream);
    expect([status, headers.get('content-type')]).toEqual([200, 'text/event-stream; charset=utf-8']);
    expect(eventsIn(text)).toMatchObject([{ error: { code: 'rate_limit_exceeded' } }]);
  });

  it('has the form of the provider', async () => {
    const fake = await fakeProvider();
    const messages = await fail(fake, 'anthropic', 'error-event,error=overloaded', { stream: true });
    expect(messages.text).toMatch(/^event: error\ndata: \{"type":"error","error":\{"type":"overloaded_error"/);
    const xai = await fail(fake, 'xai', 'error-event,error=overloaded', stream);
    expect(eventsIn(xai.text)).toMatchObject([{ code: 'The service is currently unavailable' }]);
  });

  it('is an error and a failed response in the Responses API, with consecutive numbers', async () => {
    const fake = await fakeProvider();
    const body = { ...BODIES.responses, stream: true };
    const { text } = await post(`${fake.url}/v1/responses`, body, {
      'x-fake-fault': 'error-event,after=2,error=server-error',
    });
    const events = eventsIn(text);
    expect(events.map(({ type }) => type).slice(-4)).toEqual([
      'response.output_text.delta',
      'response.output_text.delta',
      'error',
      'response.failed',
    ]);
    expect(events.map(({ sequence_number: n }) => n)).toEqual(events.map((_, index) => index));
    expect(events.at(-2).error).toMatchObject({ type: 'server_error', message: expect.any(String) });
    expect(events.at(-1).response).toMatchObject({ status: 'failed', error: { code: 'server_error' } });
  });

  it('is a body with an error when no stream is requested', async () => {
    const { status, json } = await fail(await fakeProvider(), 'openai', 'error-event');
    expect([status, json.error.code]).toEqual([200, 'rate_limit_exceeded']);
  });
});

/** Replaces patterns in an expected value by matchers. */
function withPatterns(value: unknown): never {
  if (value instanceof RegExp) return expect.stringMatching(value) as never;
  const isPlain = typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
  if (!isPlain) return value as never;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, withPatterns(inner)])) as never;
}
