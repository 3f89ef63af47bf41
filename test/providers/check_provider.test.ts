import type { ServerResponse } from 'node:http';
import { performance } from 'node:perf_hooks';
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { CheckStatus } from '../../gen/ts/agentllm/v1/check.js';
import { addressList } from '../../src/domain/addresses.js';
import type { Provider } from '../../src/domain/rows.js';
import { limits } from '../../src/limits.js';
import { version } from '../../src/package.js';
import { type CheckOptions, checkProvider, type ModelCheck } from '../../src/providers/check_provider.js';
import { until } from '../support/until.js';
import {
  claudeList,
  deepseekBalance,
  type FakeProvider,
  grokKey,
  type Handler,
  json,
  KEY,
  KINDS,
  type Kind,
  type Situation,
  startFakeProvider,
  text,
  wire,
} from './fake_provider.js';

const local = addressList(['127.0.0.0/8']);

let messages: string[] = [];
let fakes: FakeProvider[] = [];

async function check(
  provider: Provider,
  models: readonly string[] = [],
  key: string | undefined = KEY,
  options: Partial<CheckOptions> = {},
): Promise<readonly ModelCheck[]> {
  const results = await checkProvider(provider, key, models, { allowed: local, timeoutMs: 20_000, ...options });
  messages.push(...results.map(({ message }) => message));
  return results;
}

async function fakeOf(kind: Kind): Promise<FakeProvider> {
  const fake = await startFakeProvider(kind);
  fakes.push(fake);
  return fake;
}

/** Replaces the timers and the clock until the end of the test. Sockets still work. */
function useFakeClock(): void {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  onTestFinished(() => void vi.useRealTimers());
}

/** Resolves after the events that have already arrived. */
const nextTurn = <T>(value: T) => new Promise<T>((resolve) => setImmediate(resolve, value));

const statuses = (results: readonly ModelCheck[]) => results.map(({ status }) => status.replace('CHECK_STATUS_', ''));
const list = { openai: '/v1/models', deepseek: '/models', grok: '/v1/models', claude: '/v1/models' } as const;
const listed = {
  openai: 'gpt-4o-mini',
  deepseek: 'deepseek-chat',
  grok: 'grok-4-fast',
  claude: 'claude-3-haiku-20240307',
} as const;

// Invariants of all requests and messages.
afterEach(() => {
  const requests = fakes.flatMap((fake) => fake.seen.map((seen) => ({ kind: fake.kind, ...seen })));
  for (const { kind, method, path, headers } of requests) {
    expect(method, 'spends no tokens').toBe('GET');
    expect(path).toMatch(/^(\/v1)?\/(models(\/[^/?]+|\?limit=1000(&after_id=[^/&]+)?)?|api-key)$|^\/user\/balance$/);
    expect(path, 'a key in an address').not.toContain(KEY);
    const headersWithKey = Object.entries(headers).filter(([, value]) => String(value).includes(KEY));
    const keyHeader = kind === 'claude' ? ['x-api-key', KEY] : ['authorization', `Bearer ${KEY}`];
    expect([[], [keyHeader]], 'the key in its own header alone').toContainEqual(headersWithKey);
    expect(headers).toMatchObject({
      'accept-encoding': 'identity',
      'user-agent': `agentllm/${version}`,
      connection: 'close',
    });
    expect(headers).not.toHaveProperty('cookie');
  }
  for (const message of messages) {
    expect(message, 'the key in a message').not.toContain(KEY);
    expect([...message].length).toBeLessThanOrEqual(limits.providerMessage);
    expect(message).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}…]/u);
    expect(message).not.toMatch(/127\.0\.0\.1|undefined|NaN|https?:/);
  }
  messages = [];
  fakes = [];
});

describe.each(KINDS)('a check of %s', (kind) => {
  it('returns OK for a valid key and a listed model', async () => {
    const fake = await fakeOf(kind);
    const [result] = await check(fake.provider, [listed[kind]]);
    expect(result).toEqual({
      status: 'CHECK_STATUS_OK',
      message: `${kind} accepted the key and has the model "${listed[kind]}"`,
      latencyMs: expect.any(Number),
    });
    const requests = {
      openai: ['GET /v1/models'],
      deepseek: ['GET /models', 'GET /user/balance'],
      grok: ['GET /v1/api-key', 'GET /v1/models'],
      claude: ['GET /v1/models?limit=1000'],
    };
    expect(fake.paths()).toEqual(requests[kind]);
  });

  it('returns OK for a valid key without a model', async () => {
    const [result, ...more] = await check((await fakeOf(kind)).provider);
    expect(result).toEqual({
      status: 'CHECK_STATUS_OK',
      message: `${kind} accepted the key`,
      latencyMs: expect.any(Number),
    });
    expect(more).toEqual([]);
  });

  it.each<[Exclude<Situation, 'list' | 'noModel'>, CheckStatus, RegExp]>([
    ['wrongKey', 'CHECK_STATUS_INVALID', / rejected the key; replace it: it is wrong, expired or revoked$/],
    ['restricted', 'CHECK_STATUS_FORBIDDEN', / does not permit this key to read its models/],
    ['noCredit', 'CHECK_STATUS_NO_CREDIT', /has no credit left at .*; add credit/],
    ['rateLimit', 'CHECK_STATUS_RATE_LIMITED', / received too many requests; check again (after \d+ s|later)$/],
    ['overloaded', 'CHECK_STATUS_PROVIDER_ERROR', /has an internal error \(HTTP 5\d\d\)/],
  ])('returns for the situation %s the status %s', async (situation, status, message) => {
    const fake = await fakeOf(kind);
    fake.on('*', wire[kind][situation]);
    const results = await check(fake.provider, ['one', 'two']);
    expect(results).toHaveLength(2);
    for (const result of results) {
      expect(result).toMatchObject({ status, message: expect.stringMatching(message) });
      expect(result.message).toContain(kind);
      expect(result.latencyMs).toBeTypeOf('number');
    }
    expect(fake.seen.length).toBeLessThanOrEqual(2);
  });

  it('returns INVALID for an unknown key', async () => {
    const fake = await startFakeProvider(kind);
    expect(statuses(await check(fake.provider, [], 'sk-another'))).toEqual(['INVALID']);
    expect(fake.seen).toHaveLength(1);
  });

  it('returns MODEL_MISSING with a suggestion after a request for the model', async () => {
    const fake = await fakeOf(kind);
    const name = `${listed[kind]}x`;
    const [result] = await check(fake.provider, [name]);
    expect(result).toMatchObject({
      status: 'CHECK_STATUS_MODEL_MISSING',
      message: `${kind} accepted the key and does not have the model "${name}"; did you mean "${listed[kind]}"?`,
    });
    expect(fake.paths()).toContain(`GET ${list[kind]}/${name}`);
  });

  it('returns MODEL_MISSING without a suggestion when no listed name is similar', async () => {
    const [result] = await check((await fakeOf(kind)).provider, ['zzzzzzzzzzzz']);
    expect(result).toMatchObject({
      status: 'CHECK_STATUS_MODEL_MISSING',
      message: `${kind} accepted the key and does not have the model "zzzzzzzzzzzz"; choose one of its models`,
    });
  });

  it('returns OK for an alias that the provider accepts and does not list', async () => {
    const fake = await fakeOf(kind);
    fake.on(`${list[kind]}/latest`, json(200, { id: listed[kind], object: 'model', type: 'model' }));
    expect(statuses(await check(fake.provider, ['latest', listed[kind], 'latest', 'older']))).toEqual([
      'OK',
      'OK',
      'OK',
      'MODEL_MISSING',
    ]);
    expect(fake.paths().filter((path) => path.endsWith('/latest'))).toHaveLength(1);
  });

  it.each<[string, Handler, string, RegExp]>([
    [
      'an HTML page',
      text(200, '<html>Sign in</html>', { 'content-type': 'text/html' }),
      'PROVIDER_ERROR',
      /is not a model list/,
    ],
    ['an empty body', text(200, ''), 'PROVIDER_ERROR', /is not a model list/],
    ['204', text(204, ''), 'PROVIDER_ERROR', /is not a model list/],
    ['another JSON object', json(200, { status: 'ok' }), 'PROVIDER_ERROR', /is not a model list/],
    ['null', json(200, null), 'PROVIDER_ERROR', /is not a model list/],
    ['a list of something else', json(200, { data: [1, { size: 2 }] }), 'PROVIDER_ERROR', /is not a model list/],
    ['a truncated list', text(200, '{"object":"list","data":[{"id":"a"}'), 'PROVIDER_ERROR', /is not a model list/],
    [
      'an error with status 200',
      json(200, { error: { message: `no ${KEY}`, type: 'server_error' } }),
      'PROVIDER_ERROR',
      /an error instead/,
    ],
    ['an error text with status 200', json(200, { error: 'something broke' }), 'PROVIDER_ERROR', /an error instead/],
    [
      'a rejected key with status 200',
      json(200, { error: { message: 'No auth credentials found', code: 401 } }),
      'INVALID',
      /rejected the key/,
    ],
    [
      'an authentication_error with status 200',
      json(200, { type: 'error', error: { type: 'authentication_error' } }),
      'INVALID',
      /rejected the key/,
    ],
    [
      'a rate_limit_error with status 200',
      json(200, { error: { type: 'rate_limit_error' } }),
      'RATE_LIMITED',
      /too many requests/,
    ],
    ['401 without a body', text(401, ''), 'INVALID', /rejected the key/],
    ['401 with an HTML page', text(401, '<html>401</html>'), 'INVALID', /rejected the key/],
    [
      '400 with another error',
      json(400, { error: { message: 'Bad version; see https://x.ai/api-keys' } }),
      'PROVIDER_ERROR',
      /\(HTTP 400\), not the key/,
    ],
    ['402', text(402, ''), 'NO_CREDIT', /no credit left/],
    ['403 with an HTML page', text(403, '<html>Blocked</html>'), 'FORBIDDEN', /does not permit this key to read/],
    ['404', text(404, 'Not Found'), 'UNSUPPORTED', /no model list \(HTTP 404\)/],
    ['405', text(405, ''), 'UNSUPPORTED', /no model list \(HTTP 405\)/],
    ['501', text(501, ''), 'UNSUPPORTED', /no model list \(HTTP 501\)/],
    ['408', text(408, ''), 'PROVIDER_ERROR', /internal error \(HTTP 408\)/],
    ['418', text(418, ''), 'PROVIDER_ERROR', /\(HTTP 418\), not the key/],
    ['500', json(500, { error: { message: 'invalid api key store' } }), 'PROVIDER_ERROR', /error \(HTTP 500\)/],
    ['502', text(502, '<html>Bad Gateway</html>'), 'PROVIDER_ERROR', /error \(HTTP 502\)/],
    ['529', text(529, ''), 'PROVIDER_ERROR', /error \(HTTP 529\)/],
    [
      'gzip',
      text(200, Buffer.from('1f8b08', 'hex'), { 'content-encoding': 'gzip' }),
      'PROVIDER_ERROR',
      /sent a compressed response/,
    ],
    [
      '401 in gzip',
      text(401, Buffer.from('1f8b08', 'hex'), { 'content-encoding': 'gzip' }),
      'INVALID',
      /rejected the key/,
    ],
    [
      'a body over the size limit',
      text(200, Buffer.alloc(limits.providerResponseBytes + 1, ' ')),
      'PROVIDER_ERROR',
      /more than 2 MiB/,
    ],
  ])('returns the expected status for a model list response: %s', async (_, handler, status, message) => {
    const fake = await fakeOf(kind);
    fake.on(list[kind], handler);
    const results = await check(fake.provider, ['a', 'b']);
    expect(statuses(results)).toEqual([status, status]);
    expect(results[0]?.message).toMatch(message);
    expect(fake.paths().filter((path) => path.includes(`${list[kind]}/`))).toEqual([]);
  });

  it.each([301, 302, 303, 307, 308])('does not follow a redirect with %i', async (status) => {
    const elsewhere = await startFakeProvider(kind);
    const fake = await fakeOf(kind);
    fake.on('*', text(status, '', { location: `http://127.0.0.1:${elsewhere.port}${list[kind]}` }));
    const [result] = await check(fake.provider);
    expect(result).toMatchObject({
      status: 'CHECK_STATUS_PROVIDER_ERROR',
      message: expect.stringContaining(`redirect (HTTP ${status}), which is not followed`),
    });
    expect(elsewhere.seen).toEqual([]);
  });

  it('does not read the body of a redirect', async () => {
    const fake = await fakeOf(kind);
    fake.on('*', (_, response) => void response.writeHead(302, { location: '/' }).write('<html>'));
    expect(statuses(await check(fake.provider))).toEqual(['PROVIDER_ERROR']);
  });

  it('returns NO_KEY without a request when no key is set', async () => {
    const fake = await fakeOf(kind);
    const results = await checkProvider(fake.provider, undefined, ['a', 'b'], { allowed: local, timeoutMs: 5000 });
    expect(statuses(results)).toEqual(['NO_KEY', 'NO_KEY']);
    expect(results[0]).toEqual({
      status: 'CHECK_STATUS_NO_KEY',
      message: `${kind} was not contacted, because no key is set; set an API key for the config, or set ${fake.provider.api_key_env_vars.join(' or ')} for the service`,
      latencyMs: undefined,
    });
    expect(fake.seen).toEqual([]);
  });

  it('returns MODEL_MISSING when the response for a model is not a model', async () => {
    const fake = await fakeOf(kind);
    for (const path of ['', '/no-such-model']) {
      fake.on(`${list[kind]}${path}`, json(200, { name: 'my gateway', ...(path === '' && { data: [{ id: 'a' }] }) }));
    }
    expect(statuses(await check(fake.provider, ['no-such-model']))).toEqual(['MODEL_MISSING']);
  });

  it.each(['', ' ', 'two words', 'a\r\nx-evil: 1', 'a\nb', 'a\0b', 'clé', '键', `${KEY}\n`])(
    'returns INVALID without a request for a key that a header cannot contain: %j',
    async (key) => {
      const fake = await fakeOf(kind);
      const [result] = await check(fake.provider, [], key);
      expect(result).toEqual({
        status: 'CHECK_STATUS_INVALID',
        message: expect.stringContaining('was not sent to'),
        latencyMs: undefined,
      });
      expect(fake.seen).toEqual([]);
    },
  );

  it('accepts a base URL with a trailing slash', async () => {
    const slash = '/';
    const fake = await fakeOf(kind);
    const provider = { ...fake.provider, base_url: fake.provider.base_url + slash };
    expect(statuses(await check(provider, [listed[kind], 'other']))).toEqual(['OK', 'MODEL_MISSING']);
    expect(fake.paths().every((path) => !path.includes('//'))).toBe(true);
  });
});

describe('a check of a local server', () => {
  const open = async () => {
    const fake = await fakeOf('openai');
    fake.on('*', wire.openai.list);
    return { fake, provider: { ...fake.provider, name: 'local', built_in: false, api_key_env_vars: [] } };
  };

  it('sends no credentials when no key is set', async () => {
    const { fake, provider } = await open();
    const results = await checkProvider(provider, undefined, ['gpt-4o', 'nope'], { allowed: local, timeoutMs: 5000 });
    expect(results.map(({ status, message }) => [status, message])).toEqual([
      ['CHECK_STATUS_OK', 'local has the model "gpt-4o"'],
      ['CHECK_STATUS_MODEL_MISSING', 'local does not have the model "nope"; choose one of its models'],
    ]);
    expect(fake.seen.flatMap(({ headers }) => Object.keys(headers))).not.toContain('authorization');
    expect((await checkProvider(provider, undefined, [], { allowed: local, timeoutMs: 5000 }))[0]).toMatchObject({
      status: 'CHECK_STATUS_OK',
      message: 'local requires no key',
    });
  });

  it.each([
    [['LOCAL_API_KEY'], 'set LOCAL_API_KEY for the service'],
    [['A_API_KEY', 'B_API_KEY'], 'set A_API_KEY or B_API_KEY for the service'],
    // The message contains the remedy even when the names are long.
    [
      [1, 2, 3, 4, 5].map((n) => `${'A'.repeat(91)}${n}_API_KEY`),
      `set ${'A'.repeat(91)}1_API_KEY or another for the service`,
    ],
  ])('returns NO_KEY when none of the variables %j is set', async (api_key_env_vars, remedy) => {
    const { fake, provider } = await open();
    const name = remedy.includes('or another') ? 'l'.repeat(limits.provider) : 'local';
    const [result] = await checkProvider({ ...provider, name, api_key_env_vars }, undefined, [], {
      allowed: local,
      timeoutMs: 5000,
    });
    expect(result).toEqual({
      status: 'CHECK_STATUS_NO_KEY',
      message: `${name} was not contacted, because no key is set; set an API key for the config, or ${remedy} and list it in PROVIDER_ALLOW_KEY_VARS`,
      latencyMs: undefined,
    });
    expect(fake.seen).toEqual([]);
  });

  it.each([
    [401, wire.openai.wrongKey],
    [403, wire.openai.restricted],
    [400, wire.grok.wrongKey],
  ])('returns NO_KEY when the server requires a key with HTTP %i', async (_, handler) => {
    const { fake, provider } = await open();
    fake.on('*', handler);
    const [result] = await checkProvider(provider, undefined, [], { allowed: local, timeoutMs: 5000 });
    expect(result).toEqual({
      status: 'CHECK_STATUS_NO_KEY',
      message: 'local requires a key and none is set; set an API key for the config',
      latencyMs: expect.any(Number),
    });
  });

  it('returns OK for a list whose data is null, as Ollama returns it', async () => {
    const { fake, provider } = await open();
    fake.on('*', json(200, { object: 'list', data: null }));
    expect(statuses(await checkProvider(provider, undefined, [], { allowed: local, timeoutMs: 5000 }))).toEqual(['OK']);
  });

  it.each([
    ['a bare array', [{ id: 'a' }, { id: 'b' }]],
    ['an object with models', { models: [{ name: 'a' }, { name: 'b' }] }],
  ])('accepts a list that is %s', async (_, body) => {
    const { fake, provider } = await open();
    fake.on('*', (request, response) => json(request.url === '/v1/models' ? 200 : 404, body)(request, response));
    const results = await checkProvider(provider, undefined, ['b', 'c'], { allowed: local, timeoutMs: 5000 });
    expect(statuses(results)).toEqual(['OK', 'MODEL_MISSING']);
  });

  it('keeps model names that contain the key when the key is short', async () => {
    const { fake, provider } = await open();
    fake.on('*', json(200, { data: [{ id: 'ollama-7b' }] }));
    const [result] = await check({ ...provider }, ['ollama-7b'], 'ollama');
    expect(result?.message).toBe('local accepted the key and has the model "ollama-7b"');
  });
});

describe('the request for an unlisted model', () => {
  it.each([
    ['ft:gpt-4o:org::id', '/v1/models/ft%3Agpt-4o%3Aorg%3A%3Aid'],
    ['meta/llama-3', '/v1/models/meta%2Fllama-3'],
    ['../../admin', '/v1/models/..%2F..%2Fadmin'],
    ['a?b#c', '/v1/models/a%3Fb%23c'],
    ['a b%', '/v1/models/a%20b%25'],
    ['é', '/v1/models/%C3%A9'],
    ['\ud800', '/v1/models/%EF%BF%BD'],
    ['a\r\nb', '/v1/models/a%0D%0Ab'],
  ])('encodes the model %j as %s', async (model, path) => {
    const fake = await fakeOf('openai');
    expect(statuses(await check(fake.provider, [model]))).toEqual(['MODEL_MISSING']);
    expect(fake.paths()).toEqual(['GET /v1/models', `GET ${path}`]);
  });

  it.each(['', '.', '..', KEY, `x${KEY}`, KEY.toUpperCase(), KEY.toLowerCase()])(
    'is not sent for the model %j',
    async (model) => {
      const fake = await fakeOf('openai');
      expect(statuses(await check(fake.provider, [model]))).toEqual(['MODEL_MISSING']);
      expect(fake.paths()).toEqual(['GET /v1/models']);
    },
  );

  it.each<[string, Handler, string]>([
    ['400', json(400, { error: { message: 'bad' } }), 'MODEL_MISSING'],
    ['404', text(404, ''), 'MODEL_MISSING'],
    ['405', text(405, ''), 'MODEL_MISSING'],
    ['422', text(422, ''), 'MODEL_MISSING'],
    [
      '403 with model_not_found',
      json(403, { error: { message: 'no access', code: 'model_not_found' } }),
      'MODEL_MISSING',
    ],
    ['the list', wire.openai.list, 'MODEL_MISSING'],
    ['an HTML page', text(200, '<html></html>'), 'MODEL_MISSING'],
    ['a model', json(200, { id: 'x' }), 'OK'],
    ['403', text(403, ''), 'FORBIDDEN'],
    ['401', text(401, ''), 'INVALID'],
    ['429', wire.openai.rateLimit, 'RATE_LIMITED'],
    ['no credit', wire.openai.noCredit, 'NO_CREDIT'],
    ['500', text(500, ''), 'PROVIDER_ERROR'],
    ['a redirect', text(302, '', { location: '/v1/models' }), 'PROVIDER_ERROR'],
  ])('leads to the expected status for the response: %s', async (_, handler, status) => {
    const fake = await fakeOf('openai');
    fake.on('/v1/models/x', handler);
    expect(statuses(await check(fake.provider, ['gpt-4o', 'x']))).toEqual(['OK', status]);
  });

  it('is not sent again after RATE_LIMITED', async () => {
    const fake = await fakeOf('openai');
    fake.on('/v1/models/x', wire.openai.rateLimit);
    const results = await check(fake.provider, ['x', 'y', 'gpt-4o', 'z']);
    expect(statuses(results)).toEqual(['RATE_LIMITED', 'RATE_LIMITED', 'OK', 'RATE_LIMITED']);
    expect(fake.paths()).toEqual(['GET /v1/models', 'GET /v1/models/x']);
  });

  it('shares one timeout with all requests of the check', async () => {
    const fake = await fakeOf('openai');
    const waiting: ServerResponse[] = [];
    for (const model of ['a', 'b', 'c', 'd', 'e'])
      fake.on(`/v1/models/${model}`, (_, response) => void waiting.push(response));
    useFakeClock();
    const checking = check(fake.provider, ['a', 'b', 'c', 'd', 'e', 'o3'], KEY, { timeoutMs: 1000 });
    for (let requests = 1; requests <= 3; requests++) {
      await until(() => waiting.length === requests);
      vi.advanceTimersByTime(300);
      wire.openai.noModel({} as never, waiting.at(-1) as ServerResponse);
    }
    await until(() => waiting.length === 4);
    vi.advanceTimersByTime(100);
    const results = await checking;
    const missing = Array(3).fill('MODEL_MISSING');
    expect(statuses(results)).toEqual([...missing, 'UNREACHABLE', 'UNREACHABLE', 'OK']);
    expect(results.map(({ latencyMs }) => latencyMs)).toEqual([300, 600, 900, 1000, 1000, 0]);
  });
});

describe('the pages of a model list', () => {
  const paged = async (pages: number) => {
    const fake = await fakeOf('claude');
    fake.on('/v1/models', (request, response) => {
      const page = Number(/after_id=m-(\d+)$/.exec(request.url ?? '')?.[1] ?? -1) + 1;
      claudeList([`n-${page}`, `m-${page}`], page < pages - 1)(request, response);
    });
    return fake;
  };
  const page = (n: number) => `GET /v1/models?limit=1000&after_id=m-${n}`;

  it('are requested until all models are found', async () => {
    const fake = await paged(5);
    expect(statuses(await check(fake.provider, ['n-2', 'm-0']))).toEqual(['OK', 'OK']);
    expect(fake.paths()).toEqual(['GET /v1/models?limit=1000', page(0), page(1)]);
  });

  it('are not requested when no model is checked', async () => {
    const fake = await paged(5);
    expect(statuses(await check(fake.provider))).toEqual(['OK']);
    expect(fake.seen).toHaveLength(1);
  });

  it('are requested up to the last page', async () => {
    const fake = await paged(3);
    expect(statuses(await check(fake.provider, ['x']))).toEqual(['MODEL_MISSING']);
    expect(fake.paths()).toEqual(['GET /v1/models?limit=1000', page(0), page(1), 'GET /v1/models/x']);
  });

  it('are requested up to a maximum number', async () => {
    const fake = await fakeOf('claude');
    fake.on('/v1/models', claudeList(['a'], true));
    fake.on('/v1/models/x', json(200, { type: 'model', id: 'x' }));
    expect(statuses(await check(fake.provider, ['x']))).toEqual(['OK']);
    expect(fake.seen).toHaveLength(limits.providerListPages + 1);
  });

  it('are replaced by a request for the model when a later page fails', async () => {
    const fake = await fakeOf('claude');
    fake.on('/v1/models', (request, response) =>
      (request.url?.includes('after_id') ? text(500, '') : claudeList(['a'], true))(request, response),
    );
    fake.on('/v1/models/b', json(200, { type: 'model', id: 'b' }));
    expect(statuses(await check(fake.provider, ['a', 'b', 'c']))).toEqual(['OK', 'OK', 'MODEL_MISSING']);
  });

  it('keep the models of earlier pages when a later page times out', async () => {
    const fake = await fakeOf('claude');
    fake.on('/v1/models', (request, response) => {
      if (!request.url?.includes('after_id')) claudeList(['a'], true)(request, response);
    });
    expect(statuses(await check(fake.provider, ['b', 'a'], KEY, { timeoutMs: 1000 }))).toEqual(['UNREACHABLE', 'OK']);
    expect(fake.seen).toHaveLength(2);
  });

  it('are requested with an encoded page id', async () => {
    const fake = await fakeOf('claude');
    fake.on('/v1/models', claudeList(['/../x?y&z\r\n'], true));
    await check(fake.provider, ['x']);
    expect(fake.paths()[1]).toBe('GET /v1/models?limit=1000&after_id=%2F..%2Fx%3Fy%26z%0D%0A');
  });
});

describe('the key endpoint of grok', () => {
  it.each<[string, object, string, RegExp]>([
    ['a blocked key', { api_key_blocked: true }, 'INVALID', /^grok has blocked the key; replace it/],
    ['a disabled key', { api_key_disabled: true }, 'INVALID', /^The key is disabled at grok; enable it/],
    ['a blocked team', { team_blocked: true }, 'INVALID', /^grok has blocked the team that owns the key/],
    ['few rights', { acls: ['api-key:endpoint:embed'] }, 'OK', /^grok accepted the key/],
  ])('determines the status for %s', async (_, fields, status, message) => {
    const fake = await fakeOf('grok');
    fake.on('/v1/api-key', grokKey(fields));
    const [result] = await check(fake.provider, ['grok-4']);
    expect(statuses(result ? [result] : [])).toEqual([status]);
    expect(result?.message).toMatch(message);
    expect(fake.seen).toHaveLength(status === 'OK' ? 2 : 1);
  });

  it.each<[string, Handler]>([
    ['404', text(404, '')],
    ['403', wire.grok.restricted],
    ['429', wire.grok.rateLimit],
    ['500', text(500, '')],
    ['a redirect', text(302, '', { location: '/' })],
    ['an HTML page', text(200, '<html></html>')],
    ['an array', json(200, [])],
    ['null', json(200, null)],
    ['a reset', (_, response) => void response.socket?.resetAndDestroy()],
  ])('is ignored in favour of the model list when it fails with %s', async (_, handler) => {
    const fake = await fakeOf('grok');
    fake.on('/v1/api-key', handler);
    expect(statuses(await check(fake.provider, ['grok-4']))).toEqual(['OK']);
  });

  it.each<[string, Handler, string]>([
    ['a wrong key', wire.grok.wrongKey, 'INVALID'],
    ['no credit', wire.grok.noCredit, 'NO_CREDIT'],
  ])('determines the status when it reports %s', async (_, handler, status) => {
    const fake = await fakeOf('grok');
    fake.on('/v1/api-key', handler);
    expect(statuses(await check(fake.provider, ['grok-4']))).toEqual([status]);
    expect(fake.paths()).toEqual(['GET /v1/api-key']);
  });

  it('is given up after half of the timeout in favour of the model list', async () => {
    const fake = await fakeOf('grok');
    fake.on('/v1/api-key', () => undefined);
    useFakeClock();
    const checking = check(fake.provider, ['grok-4'], KEY, { timeoutMs: 2000 });
    await until(() => fake.seen.length === 1);
    vi.advanceTimersByTime(999);
    expect(await Promise.race([checking, nextTurn('pending')])).toBe('pending');
    vi.advanceTimersByTime(1);
    expect(statuses(await checking)).toEqual(['OK']);
    expect(fake.paths()).toEqual(['GET /v1/api-key', 'GET /v1/models']);
  });

  it('is given up when the signal aborts', async () => {
    const fake = await fakeOf('grok');
    fake.on('/v1/api-key', () => undefined);
    const controller = new AbortController();
    const started = performance.now();
    const checking = check(fake.provider, ['grok-4'], KEY, { timeoutMs: 20_000, signal: controller.signal });
    await until(() => fake.seen.length === 1);
    controller.abort();
    const [result] = await checking;
    expect(result?.message).toBe('The check of grok was stopped before a response arrived; check again');
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(fake.paths()).toEqual(['GET /v1/api-key']);
  });

  it('keeps the check within its timeout when the model list does not respond either', async () => {
    const fake = await fakeOf('grok');
    fake.on('*', () => undefined);
    useFakeClock();
    const checking = check(fake.provider, ['grok-4'], KEY, { timeoutMs: 600 });
    for (const requests of [1, 2]) {
      await until(() => fake.seen.length === requests);
      vi.advanceTimersByTime(300);
    }
    expect(statuses(await checking)).toEqual(['UNREACHABLE']);
  });

  it.each([{ built_in: false }, { name: 'other' }])('is not requested for %j', async (fields) => {
    const fake = await fakeOf('grok');
    await check({ ...fake.provider, ...fields });
    expect(fake.paths()).toEqual(['GET /v1/models']);
  });
});

describe('the balance endpoint of deepseek', () => {
  it('changes only OK results to NO_CREDIT when the balance is empty', async () => {
    const fake = await fakeOf('deepseek');
    fake.on('/user/balance', deepseekBalance(false));
    expect(statuses(await check(fake.provider, ['deepseek-chat', 'x']))).toEqual(['NO_CREDIT', 'MODEL_MISSING']);
    expect(statuses(await check(fake.provider))).toEqual(['NO_CREDIT']);
  });

  it('is requested at the origin when the base URL has a path', async () => {
    const fake = await fakeOf('deepseek');
    fake.on('/v1/models', wire.deepseek.list);
    const provider = { ...fake.provider, base_url: `${fake.provider.base_url}/v1` };
    expect(statuses(await check(provider, ['deepseek-chat']))).toEqual(['OK']);
    expect(fake.paths()).toEqual(['GET /v1/models', 'GET /user/balance']);
  });

  it.each<[string, Handler]>([
    ['404', text(404, '')],
    ['500', text(500, '')],
    ['an HTML page', text(200, '<html></html>')],
    ['a timeout', () => undefined],
    ['null', json(200, null)],
    ['no is_available field', json(200, { balance_infos: [] })],
    ['a reset', (_, response) => void response.socket?.resetAndDestroy()],
  ])('is ignored in favour of the model list when it fails with %s', async (_, handler) => {
    const fake = await fakeOf('deepseek');
    fake.on('/user/balance', handler);
    expect(statuses(await check(fake.provider, ['deepseek-chat'], KEY, { timeoutMs: 4_000 }))).toEqual(['OK']);
  });

  it('is not requested after the timeout', async () => {
    const fake = await fakeOf('deepseek');
    fake.on('/models/x', () => undefined);
    useFakeClock();
    const checking = check(fake.provider, ['deepseek-chat', 'x'], KEY, { timeoutMs: 1000 });
    await until(() => fake.seen.length === 2);
    vi.advanceTimersByTime(1000);
    expect(statuses(await checking)).toEqual(['OK', 'UNREACHABLE']);
    expect(fake.paths()).toEqual(['GET /models', 'GET /models/x']);
  });

  it('is not requested when the list fails or no model is OK', async () => {
    const fake = await fakeOf('deepseek');
    await check(fake.provider, ['x']);
    fake.on('/models', text(500, ''));
    await check(fake.provider, ['deepseek-chat']);
    expect(fake.paths()).toEqual(['GET /models', 'GET /models/x', 'GET /models']);
  });

  it.each([{ built_in: false }, { name: 'other' }])('is not requested for %j', async (fields) => {
    const fake = await fakeOf('deepseek');
    await check({ ...fake.provider, ...fields });
    expect(fake.paths()).toEqual(['GET /models']);
  });
});

describe('the message of a check', () => {
  it.each([
    [{ 'retry-after-ms': '12345', 'retry-after': '13' }, 'after 13 s'],
    [{ 'retry-after-ms': '12345' }, 'after 13 s'],
    [{ 'retry-after': '30' }, 'after 30 s'],
    [{ 'retry-after': '0.2' }, 'after 1 s'],
    [{ 'retry-after': '0' }, 'later'],
    [{ 'retry-after': '-5' }, 'later'],
    [{ 'retry-after': `soon ${KEY}` }, 'later'],
    [{ 'retry-after': '1e9' }, 'later'],
    [{ 'retry-after': '31536000' }, 'later'],
    [{ 'retry-after-ms': 'NaN', 'retry-after': '4' }, 'after 4 s'],
    [{ 'retry-after': new Date(Date.now() - 60_000).toUTCString() }, 'later'],
    [{}, 'later'],
  ])('contains for the headers %j the advice to check again %s', async (headers, when) => {
    const fake = await fakeOf('openai');
    fake.on('*', json(429, {}, headers));
    const [result] = await check(fake.provider);
    expect(result?.message).toBe(`openai received too many requests; check again ${when}`);
  });

  it('contains the seconds until a Retry-After date', async () => {
    const fake = await fakeOf('openai');
    fake.on('*', json(429, {}, { 'retry-after': new Date(Date.now() + 90_000).toUTCString() }));
    const [result] = await check(fake.provider);
    expect(Number(/after (\d+) s$/.exec(result?.message ?? '')?.[1])).toBeGreaterThan(80);
  });

  it('contains a listed name in printable form and without the key', async () => {
    const fake = await fakeOf('openai');
    const near = `model-${KEY}-\u0007\u2028-a`;
    fake.on('/v1/models', json(200, { object: 'list', data: [{ id: near }, { id: 'x'.repeat(5000) }] }));
    const [result] = await check(fake.provider, [`${near}b`]);
    expect(result?.message).toBe(
      'openai accepted the key and does not have the model "model-[key]- -ab"; choose one of its models',
    );
  });

  it('contains a listed name in printable form', async () => {
    const fake = await fakeOf('openai');
    fake.on('/v1/models', json(200, { object: 'list', data: [{ id: 'model-\u0007\u2028-a' }] }));
    const [result] = await check(fake.provider, ['model--a']);
    expect(result?.message).toMatch(/; did you mean "model- -a"\?$/);
  });

  it.each([KEY, KEY.toUpperCase(), KEY.toLowerCase()])('suggests no name that contains the key %s', async (echo) => {
    const fake = await fakeOf('openai');
    fake.on('/v1/models', json(200, { object: 'list', data: [{ id: `${echo}-a` }] }));
    const [result] = await check(fake.provider, [`${echo}-b`]);
    expect(result?.message).toBe(
      'openai accepted the key and does not have the model "[key]-b"; choose one of its models',
    );
    const [listed] = await check(fake.provider, [`${echo}-a`]);
    expect(listed?.message).toBe('openai accepted the key and has the model "[key]-a"');
  });

  it('contains no key with characters that are special in a regular expression', async () => {
    const fake = await fakeOf('openai');
    fake.on('*', json(200, { data: [{ id: 'a' }] }));
    const key = 'a.*+?^$()|[]{}\\-/b';
    const [result] = await check(fake.provider, [`${key.toUpperCase()}, not aXXXXXXXX`], key);
    expect(result?.message).toContain('the model "[key], not aXXXXXXXX"');
  });

  it('contains no suggestion when the list has too many names', async () => {
    const fake = await fakeOf('openai');
    const data = Array.from({ length: limits.maxSuggestionNames + 1 }, (_, n) => ({ id: `model-${n}` }));
    fake.on('/v1/models', json(200, { data }));
    const none = 'openai accepted the key and does not have the model "model-x"; choose one of its models';
    expect((await check(fake.provider, ['model-x']))[0]?.message).toBe(none);
    fake.on('/v1/models', json(200, { data: [...data, { id: 'one' }, { id: 'the-last' }] }));
    const results = await check(fake.provider, ['model-x', 'the-last']);
    expect(results.map(({ message }) => message)).toEqual([
      none,
      'openai accepted the key and has the model "the-last"',
    ]);
    fake.on('/v1/models', json(200, { data: data.slice(1) }));
    expect((await check(fake.provider, ['model-x']))[0]?.message).toContain('did you mean "model-1"?');
  });

  // A backslash is escaped in quotes, so it takes two characters.
  it.each([
    ['m', /; did you mean "m{79}…"\?$/],
    ['\\', /…$/],
  ])('keeps within its maximum length for the longest names, of %s', async (letter, end) => {
    const fake = await fakeOf('openai');
    const model = letter.repeat(limits.modelName);
    fake.on('/v1/models', json(200, { object: 'list', data: [{ id: model.slice(1) }] }));
    const [result] = await checkProvider({ ...fake.provider, name: 'p'.repeat(limits.provider) }, KEY, [model], {
      allowed: local,
      timeoutMs: 5000,
    });
    expect([...(result?.message ?? '')].length).toBeLessThanOrEqual(limits.providerMessage);
    expect(result?.message).toMatch(end);
  });
});

describe('a check of a provider with an unknown dialect', () => {
  it.each(['DIALECT_UNSPECIFIED', 'UNRECOGNIZED'] as const)(
    'returns UNSUPPORTED without a request: %s',
    async (dialect) => {
      const fake = await fakeOf('openai');
      expect(await check({ ...fake.provider, dialect }, ['a', 'b'])).toEqual(
        Array(2).fill({
          status: 'CHECK_STATUS_UNSUPPORTED',
          message: 'openai was not contacted, because its dialect is not known; set it in the catalogue',
          latencyMs: undefined,
        }),
      );
      expect(fake.seen).toEqual([]);
    },
  );
});
