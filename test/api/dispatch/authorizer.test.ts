import { connect as connectHttp2 } from 'node:http2';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, credentials, type ServiceError as GrpcError, Metadata, status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ListAgentsRequest } from '../../../gen/ts/agentllm/v1/agent_service.js';
import { ServerReflectionRequest, ServerReflectionResponse } from '../../../gen/ts/grpc/reflection/v1/reflection.js';
import { limits } from '../../../src/limits.js';
import { withLimits } from '../../feed/support.js';
import { frame, rawCall } from '../../grpc/http2_client.js';
import { errorOf, raw, send } from '../../http/support.js';
import { grant, type Outcome } from '../../support/access.js';
import { callsOf, type Replica, startReplica, useReplica, watchAs } from '../../support/access_replica.js';
import { until } from '../../support/until.js';

/* Authentication of callers, and what is open to anonymous callers. */

const LIST = '/agentllm.v1.AgentService/ListAgents';
const body = frame(ListAgentsRequest.encode(ListAgentsRequest.fromPartial({ page_size: 1 })).finish());

const service = useReplica({ reflection: 'authenticated' });
const viewer = async () => (await grant(service().store, { role: 'ROLE_VIEWER' })).text;

type Headers = Readonly<Record<string, string>>;

/** The result of a call with these headers, sent as HTTP/2 frames. */
const grpc = async (headers: Headers) => (await rawCall(service().port, { path: LIST, headers, body })).result;
/** The result of the same call over HTTP. */
async function http(headers: Headers): Promise<string> {
  const response = await send(service().http, 'GET', '/v1/agents?page_size=1', { headers });
  return response.status === 200 ? '200' : `${response.status} ${errorOf(response).reason}`;
}

describe('a token', () => {
  it.each<[string, (token: string) => Headers]>([
    ['with the scheme Bearer', (token) => ({ authorization: `Bearer ${token}` })],
    ['with the scheme bearer', (token) => ({ authorization: `bearer ${token}` })],
    ['with the scheme BEARER', (token) => ({ authorization: `BEARER ${token}` })],
    ['after several spaces', (token) => ({ authorization: `Bearer   ${token}` })],
    ['beside an unrelated header', (token) => ({ authorization: `Bearer ${token}`, 'x-api-key': 'wrong' })],
  ])('is accepted %s', async (_, headers) => {
    const token = await viewer();
    expect(await grpc(headers(token))).toBe('grpc OK');
    expect(await http(headers(token))).toBe('200');
  });

  it.each<[string, (token: string) => Headers]>([
    ['with another scheme', (token) => ({ authorization: `Basic ${token}` })],
    ['in Basic credentials', (token) => ({ authorization: `Basic ${Buffer.from(`x:${token}`).toString('base64')}` })],
    ['without a scheme', (token) => ({ authorization: token })],
    ['directly after the scheme', (token) => ({ authorization: `Bearer${token}` })],
    ['after another word', (token) => ({ authorization: `Bearer x Bearer ${token}` })],
    ['with a space in it', (token) => ({ authorization: `Bearer ${token.slice(0, 20)} ${token.slice(20)}` })],
    ['in quotes', (token) => ({ authorization: `Bearer "${token}"` })],
    ['with an extra letter', (token) => ({ authorization: `Bearer ${token}A` })],
    ['without its last letter', (token) => ({ authorization: `Bearer ${token.slice(0, -1)}` })],
    ['in upper case', (token) => ({ authorization: `Bearer ${token.toUpperCase()}` })],
    ['before a comma and another token', (token) => ({ authorization: `Bearer ${token}, Bearer wrong` })],
    ['after a comma and another token', (token) => ({ authorization: `Bearer wrong, Bearer ${token}` })],
    ['twice, separated by a comma', (token) => ({ authorization: `Bearer ${token},Bearer ${token}` })],
    ['when only its id is sent', (token) => ({ authorization: `Bearer ${token.slice(0, 13)}` })],
    ['when the header is empty', () => ({ authorization: '' })],
    ['when a hash is sent in its place', () => ({ authorization: `Bearer ${'0'.repeat(64)}` })],
  ])('is rejected as unknown %s', async (_, headers) => {
    const token = await viewer();
    expect(await grpc(headers(token))).toBe('grpc UNAUTHENTICATED TOKEN_UNKNOWN');
    expect(await http(headers(token))).toBe('401 TOKEN_UNKNOWN');
  });

  it.each<[string, (token: string) => Headers]>([
    ['after a tab', (token) => ({ authorization: `Bearer\t${token}` })],
    ['with a non-ASCII letter', (token) => ({ authorization: `Bearer ${token}\u00e9` })],
    ['when it is empty', () => ({ authorization: 'Bearer ' })],
  ])('is rejected %s', async (_, headers) => {
    const token = await viewer();
    // grpc-js drops a header that it cannot parse.
    expect(await grpc(headers(token))).toMatch(/^grpc UNAUTHENTICATED TOKEN_(UNKNOWN|REQUIRED)$/);
    expect(await http(headers(token))).toBe('401 TOKEN_UNKNOWN');
  });

  // grpc-js writes headers that it drops to console.error, with their values, unless the service sets a logger.
  it('is not written to standard error when its header cannot be parsed', async () => {
    const token = await viewer();
    const logged: unknown[] = [];
    const spy = vi.spyOn(console, 'error').mockImplementation((...values) => void logged.push(...values));
    onTestFinished(() => spy.mockRestore());
    await grpc({ authorization: `Bearer ${token}\t` });
    await grpc({ authorization: `Bearer\t${token}` });
    await grpc({ 'x-mine': `${token}\u00e9` });
    expect(logged.map(String).filter((line) => line.includes(token.slice(14)))).toEqual([]);
  });

  it.each<[string, (token: string) => Headers]>([
    ['x-authorization', (token) => ({ 'x-authorization': `Bearer ${token}` })],
    ['proxy-authorization', (token) => ({ 'proxy-authorization': `Bearer ${token}` })],
    ['authorization-bin', (token) => ({ 'authorization-bin': Buffer.from(`Bearer ${token}`).toString('base64') })],
    ['grpc-authorization', (token) => ({ 'grpc-authorization': `Bearer ${token}` })],
    ['a cookie', (token) => ({ cookie: `authorization=Bearer ${token}` })],
    ['x-api-key', (token) => ({ 'x-api-key': token })],
  ])('is ignored in %s', async (_, headers) => {
    const token = await viewer();
    expect(await grpc(headers(token))).toBe('grpc UNAUTHENTICATED TOKEN_REQUIRED');
    expect(await http(headers(token))).toBe('401 TOKEN_REQUIRED');
  });

  it('is ignored in the query string', async () => {
    const token = await viewer();
    for (const query of [`access_token=${token}`, `authorization=Bearer%20${token}`]) {
      const response = await send(service().http, 'GET', `/v1/agents?${query}`);
      expect([response.status, errorOf(response).reason]).toEqual([401, 'TOKEN_REQUIRED']);
      expect(response.text).not.toContain(token);
    }
  });

  it('is rejected when its header contains a control character', async () => {
    const token = await viewer();
    for (const letter of ['\0', '\r', '\n', '\r\n ', '\x7f']) {
      const request = `GET /v1/agents HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer ${token}${letter}x\r\n\r\n`;
      expect(await raw(service().http, request), JSON.stringify(letter)).not.toMatch(/^HTTP\/1.1 200/);
    }
  });

  // Node drops the second header; src/http/server.ts has to read rawHeaders to detect it.
  it('is rejected over HTTP when the request has two authorization headers', async () => {
    const token = await viewer();
    const two = (first: string, second: string) =>
      `GET /v1/agents HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer ${first}\r\nauthorization: Bearer ${second}\r\n\r\n`;
    expect(await raw(service().http, two('wrong', token))).toMatch(/^HTTP\/1.1 401/);
    expect(await raw(service().http, two(token, 'wrong'))).toMatch(/^HTTP\/1.1 401/);
  });

  it.each([20_000, 1_000_000])('of %i characters is rejected, and the service stays available', async (length) => {
    const headers = { authorization: `Bearer ${'x'.repeat(length)}` };
    const result = await grpc(headers).catch((error: Error) => error.message);
    expect(result).not.toBe('grpc OK');
    const status = await send(service().http, 'GET', '/v1/agents', { headers }).then(
      (response) => response.status,
      () => 'cut',
    );
    expect([431, 401, 'cut']).toContain(status);
    expect(await grpc({ authorization: `Bearer ${await viewer()}` })).toBe('grpc OK');
  });
});

describe('an HTTP request', () => {
  it('is rejected in the standard error format and needs the same permissions as over gRPC', async () => {
    const text = await viewer();
    const request = (verb: string, path: string, token?: string) =>
      send(service().http, verb, path, {
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        ...(verb === 'POST' && { body: {} }),
      });
    const cases = [
      [await request('GET', '/v1/agents'), 401, 'UNAUTHENTICATED', 'TOKEN_REQUIRED'],
      [await request('GET', '/v1/agents', 'x'), 401, 'UNAUTHENTICATED', 'TOKEN_UNKNOWN'],
      [await request('POST', '/v1/agents', text), 403, 'PERMISSION_DENIED', 'PERMISSION_DENIED'],
      [await request('GET', '/v1/tokens', text), 403, 'PERMISSION_DENIED', 'PERMISSION_DENIED'],
      [await request('GET', '/metrics'), 401, 'UNAUTHENTICATED', 'TOKEN_REQUIRED'],
      [await request('GET', '/openapi.json'), 401, 'UNAUTHENTICATED', 'TOKEN_REQUIRED'],
    ] as const;
    for (const [response, status, code, reason] of cases) {
      expect(response.status).toBe(status);
      expect(response.headers['content-type']).toContain('application/json');
      const { reason: returnedReason, ...error } = errorOf(response);
      expect([error.code, error.status, returnedReason]).toEqual([status, code, reason]);
      expect(error.message).not.toBe('');
      expect(response.headers['cache-control']).toBe('no-store');
    }
    for (const path of ['/v1/agents', '/metrics', '/openapi.json', '/v1/caller'])
      expect((await request('GET', path, text)).status, path).toBe(200);
    for (const path of ['/healthz', '/readyz']) {
      expect((await request('GET', path)).status, path).toBe(200);
      expect((await request('GET', path, 'wrong')).status, path).toBe(200);
    }
    const agent = (await grant(service().store, { role: 'ROLE_AGENT', agents: ['trader'] })).text;
    expect((await request('GET', '/metrics', agent)).status).toBe(403);
    expect((await request('GET', '/openapi.json', agent)).status).toBe(200);
    expect((await request('HEAD', '/metrics')).status).toBe(401);
    expect((await request('HEAD', '/v1/agents')).status).toBe(401);
  });

  // RFC 9110, 15.5.2: a 401 must have this header. src/http/failure.ts.
  it('without a token is rejected with a www-authenticate header', async () => {
    const response = await send(service().http, 'GET', '/v1/agents');
    expect(response.headers['www-authenticate']).toMatch(/^Bearer\b/);
  });

  it('with an invalid body is rejected for its missing token before the body is parsed', async () => {
    await viewer();
    const headers = { 'content-type': 'application/json' };
    for (const wrong of ['{', '{"nothing": 1}', '[]', '{"agent": 7}']) {
      const response = await send(service().http, 'POST', '/v1/agents', { headers, body: wrong });
      expect([response.status, errorOf(response).reason], wrong).toEqual([401, 'TOKEN_REQUIRED']);
    }
  });
});

/** Lists the services through reflection. */
function reflect({ port }: Replica, token?: string): Promise<string> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  onTestFinished(() => client.close());
  const encode = (request: ServerReflectionRequest) => Buffer.from(ServerReflectionRequest.encode(request).finish());
  const decode = (bytes: Buffer) => ServerReflectionResponse.decode(bytes);
  const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
  return new Promise((resolve) => {
    const stream = client.makeBidiStreamRequest(path, encode, decode, metadataWith(token));
    stream.on('data', ({ list_services_response: list }: ServerReflectionResponse) => {
      resolve(list?.service.some(({ name }) => name === 'agentllm.v1.AccessService') ? 'listed' : 'nothing');
      stream.end();
    });
    stream.on('error', ({ code }: GrpcError) => resolve(`error ${code}`));
    stream.write(ServerReflectionRequest.fromPartial({ list_services: '' }));
  });
}

function metadataWith(token: string | undefined): Metadata {
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  return metadata;
}

/** Calls grpc.health.v1 for the whole service: an empty request, a response of two bytes. */
function health({ port }: Replica): Promise<string> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  onTestFinished(() => client.close());
  const identity = (bytes: Buffer) => bytes;
  return new Promise((resolve) => {
    client.makeUnaryRequest('/grpc.health.v1.Health/Check', identity, identity, Buffer.alloc(0), (error, bytes) =>
      resolve(error ? `error ${error.code}` : (bytes as Buffer).toString('hex')),
    );
  });
}
const SERVING = '0801';

describe('reflection', () => {
  const off = useReplica({ reflection: 'off' });
  const on = useReplica();

  it('with the setting `authenticated` responds only to callers with a valid token', async () => {
    const token = await viewer();
    expect(await reflect(service())).toBe('error 16');
    expect(await reflect(service(), 'wrong')).toBe('error 16');
    expect(await reflect(service(), token)).toBe('listed');
    expect(await health(service())).toBe(SERVING);
  });

  it('with the setting `off` responds to no caller, including an administrator', async () => {
    const { text } = await grant(off().store, { role: 'ROLE_ADMIN' });
    expect(await reflect(off(), text)).toBe('error 12');
    const headers = { authorization: `Bearer ${text}` };
    expect((await send(off().http, 'GET', '/openapi.json', { headers })).status).toBe(404);
    expect((await send(off().http, 'GET', '/openapi.json')).status).toBe(404);
    expect(await health(off())).toBe(SERVING);
  });

  it('with the setting `on` lists the services to anonymous callers, and opens no other endpoint', async () => {
    await grant(on().store, { role: 'ROLE_ADMIN' });
    expect(await reflect(on())).toBe('listed');
    expect((await send(on().http, 'GET', '/openapi.json')).status).toBe(200);
    expect((await send(on().http, 'GET', '/metrics')).status).toBe(401);
    expect(await health(on())).toBe(SERVING);
  });
});

describe('a service that allows anonymous callers', () => {
  const open = useReplica({ anonymous: 'allowed' });

  it('denies them leases and access management, accepts valid tokens and rejects wrong ones', async () => {
    const anonymous = callsOf(open());
    for (let round = 0; round < 2; round++) {
      expect((await anonymous('AgentService/ListAgents')).code).toBe('OK');
      for (const name of [
        'CredentialService/LeaseApiKeys',
        'AccessService/CreateToken',
        'AccessService/RevokeToken',
        'AccessService/ListTokens',
        'AccessService/GetToken',
      ])
        expect(await anonymous(name), name).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
      const wrong = await callsOf(open(), 'wrong')('AgentService/ListAgents');
      expect(wrong).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_UNKNOWN' });
      // The second round runs after a token was created, which must not change the result.
      const watch = await watchAs(open(), undefined, { all_agents: true }).ready();
      const { id, text } = await grant(open().store, { role: 'ROLE_VIEWER' });
      const bearer = callsOf(open(), text);
      expect((await bearer('AccessService/GetCaller')).response).toMatchObject({
        role: 'ROLE_VIEWER',
        actor: `token:${id}`,
      });
      expect(await bearer('AgentService/CreateAgent')).toMatchObject({ code: 'PERMISSION_DENIED' });
      await sleep(1_200);
      expect(watch.ended).toBe(false);
    }
    expect((await anonymous('AccessService/GetCaller')).response['actor']).toBe('anonymous');
    expect((await send(open().http, 'GET', '/metrics')).status).toBe(200);
  });
});

describe('a service that never allows anonymous callers', () => {
  const closed = useReplica({ anonymous: 'never', reflection: 'authenticated' });

  it('rejects every call without a token except health checks', async () => {
    const anonymous = callsOf(closed());
    for (const name of ['AgentService/ListAgents', 'AccessService/GetCaller', 'AccessService/CreateToken'])
      expect(await anonymous(name), name).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
    expect(await watchAs(closed(), undefined, { all_agents: true }).end()).toMatchObject({ reason: 'TOKEN_REQUIRED' });
    expect(await reflect(closed())).toBe('error 16');
    for (const path of ['/v1/agents', '/metrics', '/openapi.json'])
      expect((await send(closed().http, 'GET', path)).status, path).toBe(401);
    for (const path of ['/healthz', '/readyz']) expect((await send(closed().http, 'GET', path)).status, path).toBe(200);
    expect(await health(closed())).toBe(SERVING);
  });
});

describe('the rate limit of a token', () => {
  const admit = (token: string) =>
    service().access.admit(
      { authorization: `Bearer ${token}` },
      { method: 'x', rule: { permission: 'PERMISSION_CALLER_READ', agentRefs: undefined } },
    );

  it('rejects excess calls with a retry delay, and does not affect other tokens', async () => {
    withLimits({ callBurst: 50, callsPerSecond: 0.01 });
    const [limited, other] = [await viewer(), await viewer()];
    const calls = callsOf(service(), limited);
    const outcomes = await Promise.all(Array.from({ length: 150 }, () => calls('AccessService/GetCaller')));
    const admitted = outcomes.filter(({ code }) => code === 'OK');
    const rejected = outcomes.filter(({ reason }) => reason === 'RATE_LIMITED');
    expect(admitted.length).toBe(50);
    expect(rejected.length).toBe(100);
    for (const { code, error } of rejected) {
      expect(code).toBe('RESOURCE_EXHAUSTED');
      expect(error?.retry).toBeGreaterThan(0);
    }
    expect((await callsOf(service(), other)('AccessService/GetCaller')).code).toBe('OK');
    expect(await health(service())).toBe(SERVING);
    // HTTP shares the rate, and so do calls that the token has no permission for.
    const response = await send(service().http, 'POST', '/v1/tokens', {
      headers: { authorization: `Bearer ${limited}` },
      body: {},
    });
    expect([response.status, errorOf(response).reason]).toEqual([429, 'RATE_LIMITED']);
    expect(Number(response.headers['retry-after'])).toBeGreaterThan(0);
    expect(await watchAs(service(), limited, { all_agents: true }).end()).toMatchObject({ reason: 'RATE_LIMITED' });
    const later = performance.now() + 100_000;
    const clock = vi.spyOn(performance, 'now').mockReturnValue(later);
    const admitted100sLater = () => {
      try {
        return admit(limited).token?.role;
      } finally {
        clock.mockRestore();
      }
    };
    expect(admitted100sLater()).toBe('ROLE_VIEWER');
  });

  it('admits callBurst calls with the default limits', async () => {
    const token = await viewer();
    vi.spyOn(performance, 'now').mockReturnValue(performance.now());
    onTestFinished(() => void vi.restoreAllMocks());
    for (let passed = 0; passed < limits.callBurst; passed++) admit(token);
    expect(() => admit(token)).toThrow(expect.objectContaining({ reason: 'RATE_LIMITED' }));
  });
});

describe('the concurrency limit of a token', () => {
  it('bounds its calls in progress, including calls that wait for a revision', async () => {
    withLimits({ callsPerToken: 5 });
    const [limited, other] = [await viewer(), await viewer()];
    const waits = { minRevision: String(service().store.state.revision + 1) };
    const calls = callsOf(service(), limited);
    const outcomes: Outcome[] = [];
    const waiting = Array.from({ length: 8 }, () =>
      calls('AccessService/GetCaller', waits).then((outcome) => outcomes.push(outcome)),
    );
    await until(() => outcomes.length === 3, 'three calls are rejected');
    expect(outcomes.map(({ reason }) => reason)).toEqual(Array(3).fill('TOO_MANY_CALLS'));
    expect(outcomes[0]?.message).toContain('The token or certificate of this caller already has 5 calls in progress');
    // The write lets the waiting calls continue.
    await viewer();
    await Promise.all(waiting);
    expect(outcomes.slice(3).map(({ code }) => code)).toEqual(Array(5).fill('OK'));
    expect((await callsOf(service(), other)('AccessService/GetCaller')).code).toBe('OK');
    expect((await calls('AccessService/GetCaller')).code).toBe('OK');
  });

  it('bounds its open streams', async () => {
    withLimits({ streamsPerToken: 2 });
    const [limited, other] = [await viewer(), await viewer()];
    const first = watchAs(service(), limited, { all_agents: true });
    await first.ready();
    await watchAs(service(), limited, { all_agents: true }).ready();
    expect(await watchAs(service(), limited, { all_agents: true }).end()).toMatchObject({
      reason: 'TOO_MANY_WATCHES',
      message: expect.stringContaining('The token or certificate of this caller already has 2 open streams'),
    });
    await watchAs(service(), other, { all_agents: true }).ready();
    first.close();
    await until(async () => {
      const again = watchAs(service(), limited, { all_agents: true });
      return again.ready().then(
        () => true,
        () => false,
      );
    }, 'a stream of the token has ended');
  });
});

describe('a caller without a valid token', () => {
  /** A call whose body lacks its last byte, and the status that it ends with. */
  function openCall(port: number, headers: Readonly<Record<string, string>>) {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    onTestFinished(() => session.destroy());
    const call = session.request({
      ':method': 'POST',
      ':path': '/agentllm.v1.AgentService/ListAgents',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    call.write(body.subarray(0, -1));
    const ended = new Promise<string>((resolve) => {
      const onHeaders = (seen: { 'grpc-status'?: unknown }) => {
        if (seen['grpc-status'] !== undefined) resolve(String(seen['grpc-status']));
      };
      call
        .on('response', onHeaders)
        .on('trailers', onHeaders)
        .on('error', () => resolve('reset'));
    });
    return { ended, complete: () => call.end(body.subarray(-1)) };
  }

  it('is rejected before its request body arrives, while a caller with a token is not', async () => {
    const closed = await startReplica({ anonymous: 'never' });
    onTestFinished(() => closed.stop());
    const { text } = await grant(closed.store, { role: 'ROLE_ADMIN' });
    expect(await openCall(closed.port, {}).ended).toBe(`${status.UNAUTHENTICATED}`);
    const wrong = openCall(closed.port, { authorization: 'Bearer al_wrong' });
    expect(await wrong.ended).toBe(`${status.UNAUTHENTICATED}`);
    const { ended, complete } = openCall(closed.port, { authorization: `Bearer ${text}` });
    expect(await Promise.race([ended, sleep(1_000, 'no response')])).toBe('no response');
    complete();
    expect(await ended).toBe(`${status.OK}`);
  });
});
