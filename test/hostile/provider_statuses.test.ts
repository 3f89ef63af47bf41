import { beforeAll, describe, expect, it } from 'vitest';
import { generateKey } from '../../src/domain/fernet.js';
import { newConfig, present } from '../api/handlers/support.js';
import {
  claudeList,
  type FakeProvider,
  type Handler,
  json,
  KEY,
  KINDS,
  type Kind,
  text as plain,
  startFakeProvider,
  startTcp,
  wire,
} from '../providers/fake_provider.js';
import {
  checked,
  configAt,
  environment,
  OWN_KEY,
  provide,
  short,
  text,
  validated,
} from '../support/checked_provider.js';
import { useDirectories } from '../support/command.js';
import { type Clients, failure, startService, unique, useService } from '../support/service.js';

const MODEL: Readonly<Record<Kind, string>> = {
  openai: 'gpt-4o',
  deepseek: 'deepseek-chat',
  grok: 'grok-4',
  claude: 'claude-sonnet-4-5-20250929',
};
const directory = useDirectories();

/** What no message may contain: a key, the text of a provider's body, or an internal error. */
const FORBIDDEN_TEXT =
  /sk-|api key provided|platform\.openai|console\.x\.ai|Authentication Fails|Missing scopes|exceeded your current|Insufficient Balance|req_011|purchase|overloaded_error|too busy|<html|SELECT|ECONN|ENOTFOUND|127\.0\.0\.1/i;

function expectCleanMessage(message: string): void {
  expect(message).not.toBe('');
  expect(message).not.toMatch(FORBIDDEN_TEXT);
  expect(message).not.toContain('\n');
}

function expectOnlyReads(fake: FakeProvider): void {
  for (const { method, path } of fake.seen)
    expect(`${method} ${path}`).toMatch(/^GET \/(v1\/)?(models|api-key|user\/balance)(\/|\?|$)/);
}

/** Returns a function that runs both check methods, which must return the same status, and returns that status. */
function statusChecker(service: () => Clients) {
  return async function statusOf(fake: FakeProvider, model = MODEL[fake.kind], key = KEY): Promise<string> {
    const provider = await provide(service(), fake);
    const config = await configAt(service(), provider, model, key);
    const health = await checked(service(), config.id);
    const check = await validated(service(), provider, key, model);
    const [hop] = health.hops;
    expect(health.hops).toHaveLength(1);
    expect(hop).toMatchObject({ status: health.status, key_source: 'KEY_SOURCE_CONFIG', key_name: '', provider });
    expect([check.status, health.status]).toEqual([health.status, health.status]);
    expectCleanMessage(present(hop).message);
    expectCleanMessage(check.message);
    expect(hop?.latency_ms).toBeGreaterThanOrEqual(0);
    expect(check.latency_ms).toBeGreaterThanOrEqual(0);
    expect(text([health, check])).not.toContain(key);
    expectOnlyReads(fake);
    return short(health.status);
  };
}

// ValidateApiKey allows 60 calls per minute, so each group has a separate service.
describe('a check of a provider', () => {
  const statusOf = statusChecker(useService('embedded', environment));

  it.each(KINDS)('returns the status of each situation of %s', async (kind) => {
    const working = await startFakeProvider(kind);
    expect(await statusOf(working)).toBe('OK');
    expect(await statusOf(working, 'no-such-model')).toBe('MODEL_MISSING');
    expect(await statusOf(working, MODEL[kind], OWN_KEY)).toBe('INVALID');
    const cases = [
      ['rateLimit', 'RATE_LIMITED'],
      ['noCredit', 'NO_CREDIT'],
      ['restricted', 'FORBIDDEN'],
      ['overloaded', 'PROVIDER_ERROR'],
    ] as const;
    for (const [situation, expected] of cases) {
      const fake = await startFakeProvider(kind);
      fake.on('*', wire[kind][situation]);
      expect([situation, await statusOf(fake)]).toEqual([situation, expected]);
    }
  });
});

describe('a check of an OpenAI endpoint', () => {
  const statusOf = statusChecker(useService('embedded', environment));
  const chunk = Buffer.alloc(1 << 20, 'x');
  const endless: Handler = (_, response) => {
    response.writeHead(200, { 'content-type': 'application/json' });
    const more = () => {
      if (!response.destroyed) response.write(chunk, () => setImmediate(more));
    };
    more();
  };
  it.each<[string, Handler, RegExp]>([
    ['500', plain(500, 'boom'), /^PROVIDER_ERROR$/],
    ['502 html', plain(502, '<html>bad gateway</html>', { 'content-type': 'text/html' }), /^PROVIDER_ERROR$/],
    ['504', plain(504, ''), /^PROVIDER_ERROR$/],
    ['529', plain(529, ''), /^PROVIDER_ERROR$/],
    ['599', plain(599, ''), /^PROVIDER_ERROR$/],
    ['301', plain(301, '', { location: 'http://127.0.0.1:1/v1/models' }), /^PROVIDER_ERROR$/],
    ['302 without location', plain(302, ''), /^PROVIDER_ERROR$/],
    ['307', plain(307, '', { location: '/v1/elsewhere' }), /^PROVIDER_ERROR$/],
    ['308', plain(308, '', { location: 'https://example.com/' }), /^PROVIDER_ERROR$/],
    ['304', plain(304, ''), /^PROVIDER_ERROR$/],
    [
      'an HTML page instead of a list',
      plain(200, '<html>hello</html>', { 'content-type': 'text/html' }),
      /^PROVIDER_ERROR$/,
    ],
    ['an empty body', plain(200, ''), /^PROVIDER_ERROR$/],
    ['204', plain(204, ''), /^PROVIDER_ERROR$/],
    ['null', json(200, null), /^PROVIDER_ERROR$/],
    ['a number', json(200, 7), /^PROVIDER_ERROR$/],
    ['an array', json(200, ['gpt-4o']), /^PROVIDER_ERROR$|^OK$/],
    ['another object', json(200, { hello: 'world' }), /^PROVIDER_ERROR$/],
    ['a list of numbers', json(200, { object: 'list', data: [1, 2, null] }), /^PROVIDER_ERROR$|^MODEL_MISSING$/],
    ['data of type string', json(200, { object: 'list', data: 'gpt-4o' }), /^PROVIDER_ERROR$/],
    ['broken JSON', plain(200, '{"data":[{"id":"gpt-4o"}', { 'content-type': 'application/json' }), /^PROVIDER_ERROR$/],
    ['bytes that are not UTF-8', plain(200, Buffer.from([0xff, 0xfe, 0, 1, 2]), {}), /^PROVIDER_ERROR$/],
    [
      'deep JSON',
      plain(200, `{"data":${'['.repeat(100_000)}${']'.repeat(100_000)}}`),
      /^PROVIDER_ERROR$|^MODEL_MISSING$/,
    ],
    ['an endless body', endless, /^PROVIDER_ERROR$|^UNREACHABLE$/],
    ['an error with status 200', json(200, { error: { message: KEY } }), /^PROVIDER_ERROR$|^INVALID$/],
    ['404', plain(404, 'not found'), /^UNSUPPORTED$/],
    ['405', plain(405, ''), /^UNSUPPORTED$|^PROVIDER_ERROR$/],
    ['401 without a body', plain(401, ''), /^INVALID$/],
    ['403 without a body', plain(403, ''), /^FORBIDDEN$/],
    ['402', plain(402, ''), /^NO_CREDIT$/],
    ['429 without a body', plain(429, ''), /^RATE_LIMITED$/],
    ['429 with Retry-After of an hour', plain(429, '', { 'retry-after': '3600' }), /^RATE_LIMITED$/],
    ['429 with an invalid Retry-After', plain(429, '\u0000', { 'retry-after': '-1e99' }), /^RATE_LIMITED$/],
    ['418', plain(418, 'teapot'), /^PROVIDER_ERROR$/],
    ['a list in __proto__', plain(200, '{"__proto__":{"data":[{"id":"gpt-4o"}]}}'), /^PROVIDER_ERROR$/],
  ])('returns the expected status for the response: %s', async (_, handler, expected) => {
    const fake = await startFakeProvider('openai');
    fake.on('*', handler);
    expect(await statusOf(fake)).toMatch(expected);
    // Redirects are not followed, and failed requests are not repeated without bound.
    expect(fake.seen.length).toBeLessThanOrEqual(8);
  });
});

describe('a check', () => {
  const service = useService('embedded', environment);
  const statusOf = statusChecker(service);

  it('returns UNREACHABLE for a closed port, a reset, an early end, a truncated body and a timeout', async () => {
    const reset = await startTcp((socket) => socket.once('data', () => socket.resetAndDestroy()));
    const closing = await startTcp((socket) => socket.end());
    const truncated = await startTcp((socket) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"data":[');
      socket.once('data', () => socket.end());
    });
    const silent = await startTcp(() => undefined);
    const garbage = await startTcp((socket) => socket.once('data', () => socket.end('SSH-2.0-OpenSSH_9.6\r\n')));
    const found: string[] = [];
    const urls = [
      'http://127.0.0.1:1/v1',
      `http://127.0.0.1:${reset.port}`,
      `http://127.0.0.1:${closing.port}`,
      `http://127.0.0.1:${truncated.port}`,
      `https://127.0.0.1:${closing.port}`,
      `http://127.0.0.1:${garbage.port}`,
    ];
    for (const url of urls) {
      const provider = await provide(service(), url);
      const config = await configAt(service(), provider, 'gpt-4o', OWN_KEY);
      const health = await checked(service(), config.id);
      expectCleanMessage(present(health.hops[0]).message);
      found.push(short(health.status));
    }
    expect(found.slice(0, 5)).toEqual(Array(5).fill('UNREACHABLE'));
    expect(found[5]).toMatch(/UNREACHABLE|PROVIDER_ERROR/);
    const provider = await provide(service(), `http://127.0.0.1:${silent.port}`);
    const { id } = await configAt(service(), provider, 'gpt-4o', OWN_KEY);
    expect((await checked(service(), id, 2_000)).status).toBe('CHECK_STATUS_UNREACHABLE');
  });

  it('returns UNREACHABLE for an unknown host name and still checks the other hops', async () => {
    const fake = await startFakeProvider('openai');
    const unknownHost = await provide(service(), 'https://nobody.invalid/v1');
    const working = await provide(service(), fake);
    const config = await newConfig(service(), {
      provider: unknownHost,
      model_name: 'gpt-4o',
      fallback_provider: working,
      fallback_model: 'gpt-4o',
    });
    const health = await checked(service(), config.id);
    expect(health.hops.map((hop) => short(hop.status))).toEqual(['UNREACHABLE', 'OK']);
    expect(health.status).toBe('CHECK_STATUS_UNREACHABLE');
  });

  it('returns NO_KEY without a request when the variables of the provider are not set', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake, ['YOURS_API_KEY', 'THEIRS_API_KEY']);
    const { id } = await configAt(service(), provider);
    const [hop] = (await checked(service(), id)).hops;
    expect(hop).toMatchObject({ status: 'CHECK_STATUS_NO_KEY', key_source: 'KEY_SOURCE_NONE', key_name: '' });
    expect(hop?.latency_ms).toBeUndefined();
    expect(fake.seen).toEqual([]);
  });

  it('sends no key to a provider without variables, and returns OK or NO_KEY by its response', async () => {
    const open = await startFakeProvider('openai');
    open.on('*', wire.openai.list);
    const closed = await startFakeProvider('openai');
    closed.on('*', json(401, { error: { message: "You didn't provide an API key.", type: 'invalid_request_error' } }));
    const statuses: string[] = [];
    for (const fake of [open, closed]) {
      const { id } = await configAt(service(), await provide(service(), fake, []));
      const [hop] = (await checked(service(), id)).hops;
      expect(hop?.key_source).toBe('KEY_SOURCE_NONE');
      expect(hop?.latency_ms).toBeGreaterThanOrEqual(0);
      statuses.push(short(present(hop).status));
      for (const { headers } of fake.seen) expect(headers['authorization']).toBeUndefined();
    }
    expect(statuses).toEqual(['OK', 'NO_KEY']);
  });

  it('returns PROVIDER_DISABLED without a request for a disabled fallback, and still checks the first hop', async () => {
    const [on, off] = [await startFakeProvider('openai'), await startFakeProvider('openai')];
    const [provider, fallback_provider] = [await provide(service(), on), await provide(service(), off)];
    const config = await newConfig(service(), {
      provider,
      model_name: 'gpt-4o',
      fallback_provider,
      fallback_model: 'gpt-4o',
    });
    await service().providers.updateProvider({ provider: { name: fallback_provider, enabled: false } });
    const health = await checked(service(), config.id);
    expect(health.hops.map((hop) => [short(hop.status), hop.index, hop.source])).toEqual([
      ['OK', 0, 'HOP_SOURCE_CONFIG'],
      ['PROVIDER_DISABLED', 1, 'HOP_SOURCE_FALLBACK'],
    ]);
    expect(health.status).toBe('CHECK_STATUS_OK');
    expect(health.hops[1]?.latency_ms).toBeUndefined();
    expect(off.seen).toEqual([]);
    // ValidateApiKey with a disabled provider returns either status, and the status must match what was requested.
    const check = await validated(service(), fallback_provider, KEY);
    expect(['CHECK_STATUS_OK', 'CHECK_STATUS_PROVIDER_DISABLED']).toContain(check.status);
    expect(off.seen.length > 0).toBe(check.status === 'CHECK_STATUS_OK');
  });

  it('checks a disabled config too', async () => {
    const fake = await startFakeProvider('openai');
    const provider = await provide(service(), fake);
    const { id } = await newConfig(service(), { provider, model_name: 'gpt-4o', enabled: false });
    expect((await checked(service(), id)).status).toBe('CHECK_STATUS_OK');
  });

  it('finds a model on a later page of an Anthropic list and stops in an endless list', async () => {
    const fake = await startFakeProvider('claude');
    fake.on('/v1/models', (request, response) => {
      const after = new URL(request.url ?? '', 'http://x').searchParams.get('after_id');
      if (after === null) return claudeList(['claude-a', 'claude-b'], true)(request, response);
      return claudeList(['claude-c', 'claude-d'], false)(request, response);
    });
    expect(await statusOf(fake, 'claude-d')).toBe('OK');
    expect(await statusOf(fake, 'claude-e')).toBe('MODEL_MISSING');
    let page = 0;
    const loop = await startFakeProvider('claude');
    loop.on('/v1/models', (request, response) => claudeList([`m-${page++ % 3}`], true)(request, response));
    expect(await statusOf(loop, 'claude-e')).toMatch(/MODEL_MISSING|PROVIDER_ERROR|UNREACHABLE/);
    expect(loop.seen.length).toBeLessThan(500);
  });

  it('matches exactly a model name that needs escaping', async () => {
    const fake = await startFakeProvider('openai');
    const names = ['org/model:free', 'a?b=c#d', '../../user/balance', 'gpt-4o%2f', 'модель', '%', "x'--", '__proto__'];
    fake.on('/v1/models', json(200, { object: 'list', data: [...names, 'gpt-4o'].map((id) => ({ id })) }));
    const provider = await provide(service(), fake);
    for (const name of names) {
      expect([name, short((await validated(service(), provider, KEY, name)).status)]).toEqual([name, 'OK']);
      const missing = await validated(service(), provider, KEY, `${name}x`);
      expect([name, short(missing.status)]).toEqual([name, 'MODEL_MISSING']);
    }
    for (const name of ['constructor', 'toString', 'GPT-4O', 'gpt-4'])
      expect([name, short((await validated(service(), provider, KEY, name)).status)]).toEqual([name, 'MODEL_MISSING']);
    expectOnlyReads(fake);
  });
});

describe('a stored key that cannot be decrypted', () => {
  it('gives KEY_UNREADABLE without a request and without a key of the environment', async () => {
    const DATA_DIR = await directory.started();
    const fake = await startFakeProvider('openai');
    const before = await startService({ ...environment, DATA_DIR });
    const provider = await provide(before, fake);
    const own = await configAt(before, provider, 'gpt-4o', KEY);
    const name = unique('desk');
    await before.credentials.createCredential({ credential: { name, provider }, api_key: KEY });
    const named = await newConfig(before, { provider, model_name: 'gpt-4o', credential_name: name });
    const elsewhere = await startFakeProvider('openai');
    const other = await provide(before, elsewhere);
    const mixed = await newConfig(before, {
      provider,
      model_name: 'gpt-4o',
      credential_name: name,
      fallback_provider: other,
      fallback_model: 'gpt-4o',
    });
    await before.stop();
    const after = await startService({ ...environment, ENCRYPTION_KEY: generateKey(), DATA_DIR });
    try {
      for (const [id, key_source, key_name] of [
        [own.id, 'KEY_SOURCE_CONFIG', ''],
        [named.id, 'KEY_SOURCE_CREDENTIAL', name],
      ] as const) {
        const [hop] = (await checked(after, id)).hops;
        expect(hop).toMatchObject({ status: 'CHECK_STATUS_KEY_UNREADABLE', key_source, key_name });
        expect(hop?.latency_ms).toBeUndefined();
      }
      // The credential belongs to the first provider, so the fallback uses a key of the environment.
      const { hops } = await checked(after, mixed.id);
      expect(hops.map((hop) => [short(hop.status), hop.key_source])).toEqual([
        ['KEY_UNREADABLE', 'KEY_SOURCE_CREDENTIAL'],
        ['OK', 'KEY_SOURCE_ENVIRONMENT'],
      ]);
      expect(fake.seen).toEqual([]);
    } finally {
      await after.stop();
    }
    // Without ENCRYPTION_KEY no stored key can be decrypted.
    const { ENCRYPTION_KEY: _, ...bare } = environment;
    const without = await startService({ ...bare, DATA_DIR });
    try {
      expect(short((await checked(without, own.id)).status)).toBe('KEY_UNREADABLE');
    } finally {
      await without.stop();
    }
    // With the original ENCRYPTION_KEY the key is valid again.
    const again = await startService({ ...environment, DATA_DIR });
    try {
      expect(short((await checked(again, own.id)).status)).toBe('OK');
    } finally {
      await again.stop();
    }
  });
});

describe('ValidateApiKey', () => {
  const service = useService('embedded', environment);
  let provider = '';
  beforeAll(async () => {
    provider = await provide(service(), 'http://127.0.0.1:1/v1');
  });

  it.each([
    ['', 'api_key'],
    ['x'.repeat(287), 'api_key'],
    ['two words', 'api_key'],
    ['tab\there', 'api_key'],
    ['line\r\nInjected: yes', 'api_key'],
    ['nul\u0000', 'api_key'],
    ['ключ', 'api_key'],
    ['\u007f', 'api_key'],
    [' lead', 'api_key'],
  ])('rejects the key %j with the name of the field', async (api_key, field) => {
    const error = await failure(service().providers.validateApiKey({ provider, api_key }));
    expect(error.fields).toEqual([field]);
    if (api_key.length > 4) expect(text([error.message, error.violations])).not.toContain(api_key);
  });

  it('accepts a key of 286 and a model name of 100 characters and rejects a longer model name', async () => {
    await service().providers.validateApiKey({ provider, api_key: '~'.repeat(286), model_name: '𝕏'.repeat(100) });
    const error = await failure(
      service().providers.validateApiKey({ provider, api_key: KEY, model_name: '𝕏'.repeat(101) }),
    );
    expect(error.fields).toEqual(['model_name']);
  });

  it('accepts an alias in any case and suggests a similar provider name', async () => {
    const fake = await startFakeProvider('openai');
    const name = unique('aliased');
    await service().providers.createProvider({
      provider: { name, dialect: 'DIALECT_OPENAI', base_url: fake.provider.base_url, aliases: [`${name}-too`] },
    });
    expect(short((await validated(service(), `${name}-TOO`.toUpperCase(), KEY)).status)).toBe('OK');
    const error = await failure(service().providers.validateApiKey({ provider: 'opnai', api_key: KEY }));
    expect([error.reason, error.message]).toEqual(['PROVIDER_NOT_FOUND', expect.stringContaining('openai')]);
    expect(error.message).not.toContain(KEY);
  });
});
