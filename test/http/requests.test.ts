import { beforeAll, describe, expect, it } from 'vitest';
import { limits } from '../../src/limits.js';
import { useService } from '../support/service.js';
import { errorOf, type HttpRequest, send as sendTo } from './support.js';

const service = useService('embedded');
const port = () => service().running.httpPort as number;
const send = (method: string, path: string, options?: HttpRequest) => sendTo(port(), method, path, options);
const json = { 'content-type': 'application/json' };
let config = 0;

beforeAll(async () => {
  config = Number((await service().configs.getPrimaryConfig({ agent: { name: 'trader' } })).config?.id);
  await service().agents.createAgent({ agent: { name: 'grüße/ 100%:reorder', agent_type: 'analyst' } });
  await service().agents.createAgent({ agent: { name: 'configs', agent_type: 'analyst' } });
});

describe('a path', () => {
  it.each([
    ['/v1/agents/by-name/gr%C3%BC%C3%9Fe%2F%20100%25:reorder', 'grüße/ 100%:reorder'],
    ['/v1/agents/by-name/gr%C3%BC%C3%9Fe%2F%20100%25%3Areorder', 'grüße/ 100%:reorder'],
    ['/v1/agents/by-name/configs', 'configs'],
  ])('finds one agent: %s', async (path, name) => {
    expect((await send('GET', path)).json).toMatchObject({ agent: { name } });
  });

  it('accepts slashes in a model name both encoded and not encoded', async () => {
    const model = { provider: 'openai', name: 'a/b%2Fc' };
    await service().providers.createModel({ model });
    for (const path of ['a/b%252Fc', 'a%2Fb%252Fc'])
      expect((await send('GET', `/v1/providers/openai/models/${path}`)).json).toMatchObject({ model });
  });

  it.each([
    '/',
    '/v1',
    '/v1/agents/',
    '/v1//agents',
    '/v1/agents/1/',
    '/v1/agents/1/primary-config/x',
    '/v1/providers/openai/models/',
    '/V1/agents',
    '/v1/configs:nothing',
    '/v1/../v1/agents',
    '/__proto__',
    '/constructor',
    '/healthz/',
  ])('returns 404 when it is unknown: %s', async (path) => {
    const response = await send('GET', path);
    expect(response.status).toBe(404);
    expect(errorOf(response)).toMatchObject({ code: 404, status: 'NOT_FOUND' });
  });

  it.each([
    ['/v1/agents/%zz', 'agent.id'],
    ['/v1/agents/by-name/%ff', 'agent.name'],
    ['/v1/agents/by-name/%ED%A0%80', 'agent.name'],
    ['/v1/agents/by-name/%00', 'agent.name'],
    ['/v1/agents/1.0', 'agent.id'],
    ['/v1/agents/0x1', 'agent.id'],
    ['/v1/agents/01', 'agent.id'],
    ['/v1/agents/%201', 'agent.id'],
    ['/v1/agents/2147483648', 'agent.id'],
    ['/v1/agents/0', 'agent.id'],
    ['/v1/configs/configs', 'id'],
  ])('is rejected when a variable is invalid: %s, field %s', async (path, field) => {
    const response = await send('GET', path);
    expect(response.status).toBe(400);
    expect(errorOf(response)).toMatchObject({ status: 'INVALID_ARGUMENT', reason: 'INVALID_FIELDS', fields: [field] });
  });
});

describe('a query', () => {
  it.each([
    ['pageSize=1', 1],
    ['page_size=2', 2],
    ['page_size=2&is_active=true&agentType=analyst', 2],
    ['agent_type=no+such%20type', 0],
    ['', 14],
    ['&&', 14],
  ])('selects agents: ?%s returns %i', async (query, count) => {
    const response = await send('GET', `/v1/agents?${query}`);
    expect(response.json['agents']).toHaveLength(count);
  });

  it.each(['agent.id=8', 'agent.name=trader'])('can set a field of a nested message: ?%s', async (query) => {
    const { configs } = (await send('GET', `/v1/configs?${query}`)).json as { configs: { agentName: string }[] };
    expect(configs.map((one) => one.agentName)).toEqual(['trader']);
  });

  it.each([
    ['/v1/agents?nonsense=1', 'nonsense'],
    ['/v1/agents?__proto__=1', '__proto__'],
    ['/v1/agents?page_size=1&pageSize=1', 'page_size'],
    ['/v1/agents?page_size=', 'page_size'],
    ['/v1/agents?page_size=1e1', 'page_size'],
    ['/v1/agents?is_active=yes', 'is_active'],
    ['/v1/agents?is_active', 'is_active'],
    ['/v1/agents?role=%', 'role'],
    ['/v1/configs?agent=1', 'agent'],
    ['/v1/configs?agent.id=1&agent.name=trader', 'agent.name'],
    ['/v1/agents/8/configs?agent.id=8', 'agent.id'],
    ['/v1/agents/8/configs?agent.name=trader', 'agent.name'],
    ['/v1/agents?page_size.x=1', 'page_size.x'],
    ['/v1/configs?min_revision=9223372036854775808', 'min_revision'],
  ])('is rejected when a parameter is invalid: %s, field %s', async (path, field) => {
    const response = await send('GET', path);
    expect(response.status).toBe(400);
    expect(errorOf(response)).toMatchObject({ reason: 'INVALID_FIELDS', fields: [field] });
  });

  it('is rejected for a method with a body', async () => {
    const response = await send('POST', '/v1/agents?reason=x', { body: {} });
    expect(errorOf(response)).toMatchObject({ code: 400, fields: ['reason'] });
  });
});

describe('a body', () => {
  const patch = (body: string | Buffer | object, headers?: Record<string, string>) =>
    send('PATCH', `/v1/configs/${config}`, { body, ...(headers && { headers }) });

  it.each(['costPer1kInputTokens', 'cost_per_1k_input_tokens', ' temperature , costPer1kInputTokens'])(
    'can contain the update mask %s',
    async (updateMask) => {
      const response = await patch({ config: { costPer1kInputTokens: 0.5, temperature: 1 }, updateMask });
      expect(response.json).toMatchObject({ config: { costPer1kInputTokens: 0.5, id: config } });
    },
  );

  it('is rejected with the spelling of the request when the mask has an unknown path', async () => {
    const response = await patch({ config: {}, update_mask: 'temperatur,createdAt' });
    expect(errorOf(response)).toMatchObject({ code: 400, reason: 'INVALID_FIELDS' });
    expect(errorOf(response).message).toContain('temperatur');
  });

  it('can contain both forms of field names, null for absent fields, and the id of the path', async () => {
    const response = await patch({
      config: { id: config, topP: 0.5, max_tokens: 2000 },
      reason: null,
      validate_only: true,
    });
    expect(response.json).toMatchObject({ config: { topP: 0.5, maxTokens: 2000 } });
  });

  it('is rejected when a null would clear nothing, and accepted when the mask names the field', async () => {
    const body = { config: { maxTokens: null, extraParams: { seed: null } }, validateOnly: true };
    const response = await patch(body);
    expect(errorOf(response).fields).toEqual(['config.max_tokens', 'config.extra_params.seed']);
    const cleared = await patch({ ...body, updateMask: 'maxTokens' });
    expect(cleared.json).toMatchObject({ config: { id: config } });
    expect((cleared.json as { config: object }).config).not.toHaveProperty('maxTokens');
  });

  it('can contain non-ASCII text with a charset of UTF-8', async () => {
    const body = JSON.stringify({ agent: { description: 'größer 🚀' }, validateOnly: true });
    const headers = { 'content-type': 'application/json; charset=UTF-8' };
    const response = await send('PATCH', '/v1/agents/8', { body, headers });
    expect(response.json).toMatchObject({ agent: { description: 'größer 🚀' } });
  });

  it('can be absent for an empty request', async () => {
    expect((await send('POST', '/v1/configs:batchGetPrimary')).status).toBe(200);
  });

  const malformed: [string, string | Buffer][] = [
    ['incomplete JSON', '{'],
    ['a duplicate key', '{"config":{"temperature":1,"temperature":2}}'],
    ['a duplicate key, once escaped', '{"config":{},"con\\u0066ig":{}}'],
    ['an unquoted word', 'hello'],
    ['unclosed deep nesting', '['.repeat(200_000)],
    ['closed deep nesting', `${'['.repeat(5000)}${']'.repeat(5000)}`],
    ['deep nesting of a field', `${'{"config":'.repeat(5000)}1${'}'.repeat(5000)}`],
    ['invalid UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    ['UTF-16', Buffer.from('{}', 'utf16le')],
  ];
  it.each(malformed)('is rejected with MALFORMED_JSON when it has %s', async (_, body) => {
    const response = await patch(body, json);
    expect(errorOf(response)).toMatchObject({
      code: 400,
      status: 'INVALID_ARGUMENT',
      reason: 'MALFORMED_JSON',
    });
  });

  const invalid: [string, string[]][] = [
    ['[]', ['body']],
    ['null', ['body']],
    ['1', ['body']],
    ['{"config":{"maxTokens":"0x10"}}', ['config.max_tokens']],
    ['{"config":{"maxTokens":" 5"}}', ['config.max_tokens']],
    ['{"config":{"temperature":"1 ","maxTokens":"+5"}}', ['config.temperature', 'config.max_tokens']],
    ['{"config":{"extraParams":{"seed":"0b1"}}}', ['config.extra_params.seed']],
    ['{"updateMask":"\\ud800"}', ['update_mask']],
    ['{"config":[]}', ['config']],
    ['{"config":{"temperature":"warm"}}', ['config.temperature']],
    ['{"config":{"temperature":1e400}}', ['config.temperature']],
    ['{"config":{"maxTokens":1.5}}', ['config.max_tokens']],
    ['{"config":{"enabled":"true"}}', ['config.enabled']],
    ['{"config":{"provider":7,"model_name":{}}}', ['config.provider', 'config.model_name']],
    ['{"config":{"provider":"\\ud800"}}', ['config.provider']],
    ['{"config":{"maxTokens":1,"max_tokens":1}}', ['config.max_tokens']],
    ['{"config":{"nope":1},"also":2}', ['also', 'config.nope']],
    ['{"__proto__":{"a":1},"constructor":{},"config":{"toString":1}}', ['__proto__', 'constructor', 'config.toString']],
    ['{"updateMask":["temperature"]}', ['update_mask']],
    ['{"updateMask":"a","update_mask":"b"}', ['update_mask']],
    ['{"waitForAdoption":{"timeout":"soon"}}', ['wait_for_adoption.timeout']],
    ['{"config":{"id":1}}', ['config.id']],
  ];
  it.each(invalid)('is rejected: %.80s with fields %j', async (body, fields) => {
    const response = await patch(body, json);
    expect(errorOf(response)).toMatchObject({ code: 400, status: 'INVALID_ARGUMENT', fields });
    expect(({} as Record<string, unknown>)['a']).toBeUndefined();
  });

  it('is rejected with the index when a list element is invalid', async () => {
    const response = await send('POST', '/v1/configs:batchGetPrimary', {
      body: { agents: [{ id: 1 }, { id: 'x' }, 5, { id: 1, name: 'a' }] },
    });
    expect(errorOf(response).fields).toEqual(['agents[1].id', 'agents[2]', 'agents[3].name']);
  });

  it('is rejected when it names another agent than the path', async () => {
    const response = await send('POST', '/v1/agents/8/configs', { body: { agent: { name: 'trader' } } });
    expect(errorOf(response)).toMatchObject({ code: 400, fields: ['agent.id'] });
  });

  it('is rejected without repeating an API key', async () => {
    for (const body of ['{"apiKey":"sk-planted-key', '{"apiKey":["sk-planted-key"]}', '{"config":"sk-planted-key"}']) {
      const response = await patch(body, json);
      expect(response.status).toBe(400);
      expect(response.text).not.toContain('planted');
    }
  });
});

describe('an error', () => {
  const cases: [string, string, object | undefined, number, string, string][] = [
    ['GET', '/v1/agents/999', undefined, 404, 'NOT_FOUND', 'AGENT_NOT_FOUND'],
    ['GET', '/v1/agents/by-name/configs/primary-config', undefined, 404, 'NOT_FOUND', 'NO_ENABLED_CONFIG'],
    [
      'POST',
      '/v1/agents',
      { agent: { name: 'trader', agentType: 'trader' } },
      409,
      'ALREADY_EXISTS',
      'AGENT_NAME_TAKEN',
    ],
    ['DELETE', '/v1/agents/8', undefined, 400, 'FAILED_PRECONDITION', 'AGENT_RESERVED'],
    ['DELETE', '/v1/configs/8?etag=old', undefined, 409, 'ABORTED', 'STALE_ETAG'],
    ['PATCH', '/v1/agents/8', { waitForAdoption: { timeout: '61s' } }, 400, 'INVALID_ARGUMENT', 'INVALID_FIELDS'],
    ['GET', '/v1/agents?page_token=x', undefined, 400, 'INVALID_ARGUMENT', 'INVALID_PAGE_TOKEN'],
  ];
  it.each(cases)(
    'has the expected status and reason: %s %s %j returns %i %s %s',
    async (method, path, body, code, status, reason) => {
      const response = await send(method, path, { ...(body && { body }) });
      expect(response.status).toBe(code);
      expect(response.headers['content-type']).toBe('application/json; charset=utf-8');
      expect(errorOf(response)).toMatchObject({ code, status, reason });
    },
  );

  it('contains Retry-After and RetryInfo when the deadline passes before min_revision is reached', async () => {
    const headers = { 'grpc-timeout': '300m' };
    const response = await send('GET', '/v1/agents/8?min_revision=1000000', { headers });
    expect(response.status).toBe(503);
    expect(response.headers['retry-after']).toBe('1');
    expect(errorOf(response)).toMatchObject({ status: 'UNAVAILABLE', reason: 'REVISION_NOT_REACHED' });
    expect(response.text).toContain('"retryDelay":"0.500s"');
  });

  it.each(['', '1', '1s', '-1S', '123456789m'])('is INVALID_ARGUMENT for the grpc-timeout %j', async (timeout) => {
    const response = await send('GET', '/v1/agents/8', { headers: { 'grpc-timeout': timeout } });
    expect(errorOf(response)).toMatchObject({ code: 400, status: 'INVALID_ARGUMENT' });
  });

  it('within a response contains its details', async () => {
    const response = await send('POST', '/v1/configs:batchGetPrimary', { body: { agents: [{ name: 'nobody' }] } });
    expect(response.text).toContain('"@type":"type.googleapis.com/google.rpc.ErrorInfo"');
    expect(response.json).toMatchObject({
      results: [{ status: { code: 5, details: [{ reason: 'AGENT_NOT_FOUND' }, {}] } }],
    });
  });

  it('of an unreadable body is counted in the metrics', async () => {
    const count = async () => {
      const { text } = await send('GET', '/metrics');
      return Number(
        /^agentllm_calls_total\{method="agentllm.v1.AgentService\/CreateAgent",code="INVALID_ARGUMENT"\} (\d+)$/m.exec(
          text,
        )?.[1] ?? 0,
      );
    };
    const before = await count();
    await send('POST', '/v1/agents', { body: '{', headers: json });
    expect(await count()).toBe(before + 1);
  });
});

describe('an HTTP method', () => {
  it.each([
    ['POST', '/v1/agents/1', 'GET, PATCH, DELETE, HEAD, OPTIONS'],
    ['DELETE', '/v1/agents', 'POST, GET, HEAD, OPTIONS'],
    ['GET', '/v1/configs:validate', 'POST, OPTIONS'],
    ['TRACE', '/metrics', 'GET, HEAD, OPTIONS'],
    ['POST', '/openapi.json', 'GET, HEAD, OPTIONS'],
  ])('that a path does not support returns 405 with the allowed methods: %s %s', async (method, path, allow) => {
    const response = await send(method, path);
    expect(response.status).toBe(405);
    expect(response.headers['allow']).toBe(allow);
  });

  it('OPTIONS returns no CORS headers, and HEAD returns no body', async () => {
    const options = await send('OPTIONS', '/v1/agents/1');
    expect(options).toMatchObject({ status: 204, text: '', headers: { allow: 'GET, PATCH, DELETE, HEAD, OPTIONS' } });
    expect(Object.keys(options.headers).filter((name) => name.startsWith('access-control'))).toEqual([]);
    const get = await send('GET', '/v1/agents/1');
    const head = await send('HEAD', '/v1/agents/1');
    expect(head).toMatchObject({ status: 200, text: '' });
    expect(head.headers['content-length']).toBe(get.headers['content-length']);
  });
});

describe('the HTTP server', () => {
  const paths = ['/v1/agents', '/metrics', '/healthz', '/readyz', '/openapi.json', '/nothing'];

  it.each([
    'evil.example',
    'evil.example:80',
    '127.0.0.1.evil.example',
    '10.0.0.1',
    '0.0.0.0',
    '[::2]',
    'localhost:x',
    'a@localhost',
  ])('rejects Host %s on every path', async (host) => {
    for (const path of paths) expect((await send('GET', path, { headers: { host } })).status).toBe(421);
  });

  it.each(['localhost', 'LOCALHOST:1', '127.0.0.1:80', '127.1.2.3', '[::1]:80'])('accepts Host %s', async (host) => {
    expect((await send('GET', '/v1/agents', { headers: { host } })).status).toBe(200);
  });

  it('rejects foreign origins on every path and with every method', async () => {
    const foreign = [
      'http://evil.example',
      'null',
      'http://localhost:1',
      'https://127.0.0.1',
      'file://',
      'http://127.0.0.1.evil',
    ];
    for (const origin of foreign)
      for (const path of paths)
        for (const method of ['GET', 'POST', 'OPTIONS', 'DELETE'])
          expect((await send(method, path, { headers: { origin } })).status).toBe(403);
  });

  it('accepts the origin of the service', async () => {
    const headers = { origin: `http://localhost:${port()}`, host: `localhost:${port()}` };
    expect((await send('GET', '/v1/agents', { headers })).status).toBe(200);
  });

  it.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data',
    'application/json; charset=utf-16',
    'application/jsonp',
    '',
  ])('rejects a body of type %s', async (type) => {
    const headers: Record<string, string> = type ? { 'content-type': type } : {};
    const response = await send('POST', '/v1/agents', { body: '{}', headers });
    expect(response.status).toBe(415);
  });

  it('rejects a compressed body, and a body for a method without one', async () => {
    const headers = { ...json, 'content-encoding': 'gzip' };
    expect((await send('POST', '/v1/agents', { body: '{}', headers })).status).toBe(415);
    expect(errorOf(await send('DELETE', '/v1/agents/8', { body: {} }))).toMatchObject({ code: 400, fields: ['body'] });
  });

  it.each([true, false])('rejects a body over the size limit (length known: %s)', async (known) => {
    const body = `{"agent":{"description":"${'x'.repeat(limits.maxRequestBytes)}"}}`;
    const headers = { ...json, ...(!known && { 'transfer-encoding': 'chunked' }) };
    const response = await send('POST', '/v1/agents', { body, headers });
    expect(errorOf(response)).toMatchObject({ code: 413, status: 'RESOURCE_EXHAUSTED' });
    expect((await send('GET', '/healthz')).status).toBe(200);
  });

  it('accepts a body just below the size limit', async () => {
    const body = `{"agent":{"description":"${'x'.repeat(limits.maxRequestBytes - 100)}"}}`;
    expect(errorOf(await send('POST', '/v1/agents', { body, headers: json }))).toMatchObject({
      code: 400,
      reason: 'INVALID_FIELDS',
    });
  });
});
