import { connect as connectHttp2 } from 'node:http2';
import { Client, credentials, type ServiceError as GrpcError, Metadata, status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ListAgentsRequest } from '../../../gen/ts/agentllm/v1/agent_service.js';
import { ServerReflectionRequest, ServerReflectionResponse } from '../../../gen/ts/grpc/reflection/v1/reflection.js';
import { limits } from '../../../src/limits.js';
import { withLimits } from '../../feed/support.js';
import { frame, rawCall } from '../../grpc/http2_client.js';
import { errorOf, raw, send } from '../../http/support.js';
import { grant } from '../../support/access.js';
import { callsOf, eventually, type Replica, startReplica, useReplica, watchAs } from '../../support/access_replica.js';

/* How callers show who they are, and what stands open to those who show nothing. */

const LIST = '/agentllm.v1.AgentService/ListAgents';
const body = frame(ListAgentsRequest.encode(ListAgentsRequest.fromPartial({ page_size: 1 })).finish());

const service = useReplica({ reflection: 'authenticated' });
const viewer = async () => (await grant(service().store, { role: 'ROLE_VIEWER' })).text;

type Headers = Readonly<Record<string, string>>;

/** What a call with such headers comes to, over HTTP/2 as it stands on the wire. */
const grpc = async (headers: Headers) => (await rawCall(service().port, { path: LIST, headers, body })).result;
/** The same over HTTP. */
async function http(headers: Headers): Promise<string> {
  const answer = await send(service().http, 'GET', '/v1/agents?page_size=1', { headers });
  return answer.status === 200 ? '200' : `${answer.status} ${errorOf(answer).reason}`;
}

describe('a token', () => {
  it.each<[string, (token: string) => Headers]>([
    ['as Bearer', (token) => ({ authorization: `Bearer ${token}` })],
    ['as bearer', (token) => ({ authorization: `bearer ${token}` })],
    ['as BEARER', (token) => ({ authorization: `BEARER ${token}` })],
    ['after several spaces', (token) => ({ authorization: `Bearer   ${token}` })],
    ['beside headers that say nothing', (token) => ({ authorization: `Bearer ${token}`, 'x-api-key': 'wrong' })],
  ])('%s is heard', async (_, headers) => {
    const token = await viewer();
    expect(await grpc(headers(token))).toBe('grpc OK');
    expect(await http(headers(token))).toBe('200');
  });

  it.each<[string, (token: string) => Headers]>([
    ['of another scheme', (token) => ({ authorization: `Basic ${token}` })],
    ['in Basic', (token) => ({ authorization: `Basic ${Buffer.from(`x:${token}`).toString('base64')}` })],
    ['without a scheme', (token) => ({ authorization: token })],
    ['right behind the scheme', (token) => ({ authorization: `Bearer${token}` })],
    ['behind another', (token) => ({ authorization: `Bearer x Bearer ${token}` })],
    ['with a space in it', (token) => ({ authorization: `Bearer ${token.slice(0, 20)} ${token.slice(20)}` })],
    ['in quotes', (token) => ({ authorization: `Bearer "${token}"` })],
    ['with a letter more', (token) => ({ authorization: `Bearer ${token}A` })],
    ['with a letter less', (token) => ({ authorization: `Bearer ${token.slice(0, -1)}` })],
    ['in other cases', (token) => ({ authorization: `Bearer ${token.toUpperCase()}` })],
    ['before a comma and another', (token) => ({ authorization: `Bearer ${token}, Bearer wrong` })],
    ['behind a comma and another', (token) => ({ authorization: `Bearer wrong, Bearer ${token}` })],
    ['twice, by a comma', (token) => ({ authorization: `Bearer ${token},Bearer ${token}` })],
    ['by its id', (token) => ({ authorization: `Bearer ${token.slice(0, 13)}` })],
    ['of nothing', () => ({ authorization: '' })],
    ['by its hash', () => ({ authorization: `Bearer ${'0'.repeat(64)}` })],
  ])('%s is none', async (_, headers) => {
    const token = await viewer();
    expect(await grpc(headers(token))).toBe('grpc UNAUTHENTICATED TOKEN_UNKNOWN');
    expect(await http(headers(token))).toBe('401 TOKEN_UNKNOWN');
  });

  it.each<[string, (token: string) => Headers]>([
    ['behind a tab', (token) => ({ authorization: `Bearer\t${token}` })],
    ['of 8-bit letters', (token) => ({ authorization: `Bearer ${token}\u00e9` })],
    ['of no letters', () => ({ authorization: 'Bearer ' })],
  ])('%s does not let in either', async (_, headers) => {
    const token = await viewer();
    // grpc-js drops a header that it does not understand.
    expect(await grpc(headers(token))).toMatch(/^grpc UNAUTHENTICATED TOKEN_(UNKNOWN|REQUIRED)$/);
    expect(await http(headers(token))).toBe('401 TOKEN_UNKNOWN');
  });

  // grpc-js writes headers that it drops to console.error, with their values, unless it is given a logger of ours.
  it('in a header that cannot be read is not written to standard error', async () => {
    const token = await viewer();
    const said: unknown[] = [];
    const spy = vi.spyOn(console, 'error').mockImplementation((...given) => void said.push(...given));
    onTestFinished(() => spy.mockRestore());
    await grpc({ authorization: `Bearer ${token}\t` });
    await grpc({ authorization: `Bearer\t${token}` });
    await grpc({ 'x-mine': `${token}\u00e9` });
    expect(said.map(String).filter((line) => line.includes(token.slice(14)))).toEqual([]);
  });

  it.each<[string, (token: string) => Headers]>([
    ['x-authorization', (token) => ({ 'x-authorization': `Bearer ${token}` })],
    ['proxy-authorization', (token) => ({ 'proxy-authorization': `Bearer ${token}` })],
    ['authorization-bin', (token) => ({ 'authorization-bin': Buffer.from(`Bearer ${token}`).toString('base64') })],
    ['grpc-authorization', (token) => ({ 'grpc-authorization': `Bearer ${token}` })],
    ['a cookie', (token) => ({ cookie: `authorization=Bearer ${token}` })],
    ['x-api-key', (token) => ({ 'x-api-key': token })],
  ])('in %s is not looked at', async (_, headers) => {
    const token = await viewer();
    expect(await grpc(headers(token))).toBe('grpc UNAUTHENTICATED TOKEN_REQUIRED');
    expect(await http(headers(token))).toBe('401 TOKEN_REQUIRED');
  });

  it('in the query is not looked at', async () => {
    const token = await viewer();
    for (const query of [`access_token=${token}`, `authorization=Bearer%20${token}`]) {
      const answer = await send(service().http, 'GET', `/v1/agents?${query}`);
      expect([answer.status, errorOf(answer).reason]).toEqual([401, 'TOKEN_REQUIRED']);
      expect(answer.text).not.toContain(token);
    }
  });

  it('with a line break or NUL in its header never comes in', async () => {
    const token = await viewer();
    for (const letter of ['\0', '\r', '\n', '\r\n ', '\x7f']) {
      const request = `GET /v1/agents HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer ${token}${letter}x\r\n\r\n`;
      expect(await raw(service().http, request), JSON.stringify(letter)).not.toMatch(/^HTTP\/1.1 200/);
    }
  });

  // Node drops a second one before anybody sees it; src/http/server.ts could look into rawHeaders.
  it('is none when there are two headers of it, over HTTP', async () => {
    const token = await viewer();
    const two = (first: string, second: string) =>
      `GET /v1/agents HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\nauthorization: Bearer ${first}\r\nauthorization: Bearer ${second}\r\n\r\n`;
    expect(await raw(service().http, two('wrong', token))).toMatch(/^HTTP\/1.1 401/);
    expect(await raw(service().http, two(token, 'wrong'))).toMatch(/^HTTP\/1.1 401/);
  });

  it.each([20_000, 1_000_000])('of %i letters is refused, and the service goes on', async (length) => {
    const headers = { authorization: `Bearer ${'x'.repeat(length)}` };
    const result = await grpc(headers).catch((error: Error) => error.message);
    expect(result).not.toBe('grpc OK');
    const status = await send(service().http, 'GET', '/v1/agents', { headers }).then(
      (answer) => answer.status,
      () => 'cut',
    );
    expect([431, 401, 'cut']).toContain(status);
    expect(await grpc({ authorization: `Bearer ${await viewer()}` })).toBe('grpc OK');
  });
});

describe('over HTTP', () => {
  it('refusals look like every other error, and reads need what they need over gRPC', async () => {
    const text = await viewer();
    const asked = (verb: string, path: string, token?: string) =>
      send(service().http, verb, path, {
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        ...(verb === 'POST' && { body: {} }),
      });
    const cases = [
      [await asked('GET', '/v1/agents'), 401, 'UNAUTHENTICATED', 'TOKEN_REQUIRED'],
      [await asked('GET', '/v1/agents', 'x'), 401, 'UNAUTHENTICATED', 'TOKEN_UNKNOWN'],
      [await asked('POST', '/v1/agents', text), 403, 'PERMISSION_DENIED', 'PERMISSION_DENIED'],
      [await asked('GET', '/v1/tokens', text), 403, 'PERMISSION_DENIED', 'PERMISSION_DENIED'],
      [await asked('GET', '/metrics'), 401, 'UNAUTHENTICATED', 'TOKEN_REQUIRED'],
      [await asked('GET', '/openapi.json'), 401, 'UNAUTHENTICATED', 'TOKEN_REQUIRED'],
    ] as const;
    for (const [answer, status, code, reason] of cases) {
      expect(answer.status).toBe(status);
      expect(answer.headers['content-type']).toContain('application/json');
      const { reason: said, ...error } = errorOf(answer);
      expect([error.code, error.status, said]).toEqual([status, code, reason]);
      expect(error.message).not.toBe('');
      expect(answer.headers['cache-control']).toBe('no-store');
    }
    for (const path of ['/v1/agents', '/metrics', '/openapi.json', '/v1/caller'])
      expect((await asked('GET', path, text)).status, path).toBe(200);
    for (const path of ['/healthz', '/readyz']) {
      expect((await asked('GET', path)).status, path).toBe(200);
      expect((await asked('GET', path, 'wrong')).status, path).toBe(200);
    }
    const agent = (await grant(service().store, { role: 'ROLE_AGENT', agents: ['trader'] })).text;
    expect((await asked('GET', '/metrics', agent)).status).toBe(403);
    expect((await asked('GET', '/openapi.json', agent)).status).toBe(200);
    expect((await asked('HEAD', '/metrics')).status).toBe(401);
    expect((await asked('HEAD', '/v1/agents')).status).toBe(401);
  });

  // RFC 9110, 15.5.2: a 401 must have it. src/http/failure.ts.
  it('a 401 says by which scheme to come', async () => {
    const answer = await send(service().http, 'GET', '/v1/agents');
    expect(answer.headers['www-authenticate']).toMatch(/^Bearer\b/);
  });

  it('a body that cannot be read tells nothing to whom the method is closed', async () => {
    await viewer();
    const headers = { 'content-type': 'application/json' };
    for (const wrong of ['{', '{"nothing": 1}', '[]', '{"agent": 7}']) {
      const answer = await send(service().http, 'POST', '/v1/agents', { headers, body: wrong });
      expect([answer.status, errorOf(answer).reason], wrong).toEqual([401, 'TOKEN_REQUIRED']);
    }
  });
});

/** Asks reflection which services there are. */
function reflect({ port }: Replica, token?: string): Promise<string> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  onTestFinished(() => client.close());
  const encode = (request: ServerReflectionRequest) => Buffer.from(ServerReflectionRequest.encode(request).finish());
  const decode = (bytes: Buffer) => ServerReflectionResponse.decode(bytes);
  const path = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
  return new Promise((resolve) => {
    const stream = client.makeBidiStreamRequest(path, encode, decode, metadataWith(token));
    stream.on('data', ({ list_services_response: list }: ServerReflectionResponse) => {
      resolve(list?.service.some(({ name }) => name === 'agentllm.v1.AccessService') ? 'told' : 'nothing');
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

/** Asks grpc.health.v1 how the whole service is: a request without a byte, an answer of two. */
function health({ port }: Replica): Promise<string> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  onTestFinished(() => client.close());
  const asIs = (bytes: Buffer) => bytes;
  return new Promise((resolve) => {
    client.makeUnaryRequest('/grpc.health.v1.Health/Check', asIs, asIs, Buffer.alloc(0), (error, bytes) =>
      resolve(error ? `error ${error.code}` : (bytes as Buffer).toString('hex')),
    );
  });
}
const SERVING = '0801';

describe('reflection', () => {
  const off = useReplica({ reflection: 'off' });
  const on = useReplica();

  it('for those who are let in tells nobody else', async () => {
    const token = await viewer();
    expect(await reflect(service())).toBe('error 16');
    expect(await reflect(service(), 'wrong')).toBe('error 16');
    expect(await reflect(service(), token)).toBe('told');
    expect(await health(service())).toBe(SERVING);
  });

  it('that is off tells nobody, not an administrator either', async () => {
    const { text } = await grant(off().store, { role: 'ROLE_ADMIN' });
    expect(await reflect(off(), text)).toBe('error 12');
    const headers = { authorization: `Bearer ${text}` };
    expect((await send(off().http, 'GET', '/openapi.json', { headers })).status).toBe(404);
    expect((await send(off().http, 'GET', '/openapi.json')).status).toBe(404);
    expect(await health(off())).toBe(SERVING);
  });

  it('that is on tells everybody what stands in the proto files anyway, and no more', async () => {
    await grant(on().store, { role: 'ROLE_ADMIN' });
    expect(await reflect(on())).toBe('told');
    expect((await send(on().http, 'GET', '/openapi.json')).status).toBe(200);
    expect((await send(on().http, 'GET', '/metrics')).status).toBe(401);
    expect(await health(on())).toBe(SERVING);
  });
});

describe('when everybody is let in', () => {
  const open = useReplica({ anonymous: 'allowed' });

  it('nobody in particular may still neither lease nor manage access; tokens count, and wrong ones do not', async () => {
    const nobody = callsOf(open());
    for (let round = 0; round < 2; round++) {
      expect((await nobody('AgentService/ListAgents')).code).toBe('OK');
      for (const name of [
        'CredentialService/LeaseApiKeys',
        'AccessService/CreateToken',
        'AccessService/RevokeToken',
        'AccessService/ListTokens',
        'AccessService/GetToken',
      ])
        expect(await nobody(name), name).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
      const wrong = await callsOf(open(), 'wrong')('AgentService/ListAgents');
      expect(wrong).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_UNKNOWN' });
      // The second round is with a token that was made, which changes nothing of that.
      const watch = await watchAs(open(), undefined, { all_agents: true }).ready();
      const { id, text } = await grant(open().store, { role: 'ROLE_VIEWER' });
      const bearer = callsOf(open(), text);
      expect((await bearer('AccessService/GetCaller')).answer).toMatchObject({
        role: 'ROLE_VIEWER',
        actor: `token:${id}`,
      });
      expect(await bearer('AgentService/CreateAgent')).toMatchObject({ code: 'PERMISSION_DENIED' });
      await new Promise((resolve) => setTimeout(resolve, 1_200));
      expect(watch.ended).toBe(false);
    }
    expect((await nobody('AccessService/GetCaller')).answer['actor']).toBe('anonymous');
    expect((await send(open().http, 'GET', '/metrics')).status).toBe(200);
  });
});

describe('when nobody is let in', () => {
  const closed = useReplica({ anonymous: 'never', reflection: 'authenticated' });

  it('without a token everything is refused but health', async () => {
    const nobody = callsOf(closed());
    for (const name of ['AgentService/ListAgents', 'AccessService/GetCaller', 'AccessService/CreateToken'])
      expect(await nobody(name), name).toMatchObject({ code: 'UNAUTHENTICATED', reason: 'TOKEN_REQUIRED' });
    expect(await watchAs(closed(), undefined, { all_agents: true }).end()).toMatchObject({ reason: 'TOKEN_REQUIRED' });
    expect(await reflect(closed())).toBe('error 16');
    for (const path of ['/v1/agents', '/metrics', '/openapi.json'])
      expect((await send(closed().http, 'GET', path)).status, path).toBe(401);
    for (const path of ['/healthz', '/readyz']) expect((await send(closed().http, 'GET', path)).status, path).toBe(200);
    expect(await health(closed())).toBe(SERVING);
  });
});

describe('more calls than a token may make', () => {
  it('are refused with when to come back, and nobody else is', async () => {
    withLimits({ callsAtOnce: 50, callsPerSecond: 2 });
    const [greedy, other] = [await viewer(), await viewer()];
    const calls = callsOf(service(), greedy);
    const outcomes = await Promise.all(Array.from({ length: 150 }, () => calls('AccessService/GetCaller')));
    const fine = outcomes.filter(({ code }) => code === 'OK');
    const late = outcomes.filter(({ reason }) => reason === 'RATE_LIMITED');
    expect(fine.length).toBeGreaterThanOrEqual(50);
    expect(fine.length).toBeLessThan(60);
    expect(late.length).toBe(150 - fine.length);
    for (const { code, error } of late) {
      expect(code).toBe('RESOURCE_EXHAUSTED');
      expect(error?.retry).toBeGreaterThan(0);
    }
    expect((await callsOf(service(), other)('AccessService/GetCaller')).code).toBe('OK');
    expect(await health(service())).toBe(SERVING);
    // Over HTTP it is the same rate, also of what the token may not do.
    const answer = await send(service().http, 'POST', '/v1/tokens', {
      headers: { authorization: `Bearer ${greedy}` },
      body: {},
    });
    expect([answer.status, errorOf(answer).reason]).toEqual([429, 'RATE_LIMITED']);
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    expect(await watchAs(service(), greedy, { all_agents: true }).end()).toMatchObject({ reason: 'RATE_LIMITED' });
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect((await calls('AccessService/GetCaller')).code).toBe('OK');
  });

  it('at the limits as they are, no fewer than what is allowed at once', async () => {
    const token = await viewer();
    const { access } = service();
    const credentials = { authorization: `Bearer ${token}` };
    const asked = { method: 'x', rule: { permission: 'PERMISSION_CALLER_READ', agentRefs: undefined } } as const;
    let passed = 0;
    try {
      for (; passed < limits.callsAtOnce * 3; passed++) access.admit(credentials, asked);
    } catch (error) {
      expect(error).toMatchObject({ reason: 'RATE_LIMITED' });
    }
    expect(passed).toBeGreaterThanOrEqual(limits.callsAtOnce);
    expect(passed).toBeLessThan(limits.callsAtOnce * 2);
  });
});

describe('what one token has at once', () => {
  it('is part of the room for calls, also of those that only wait', async () => {
    withLimits({ callsPerToken: 5, maxCallMs: 1_500 });
    const [greedy, other] = [await viewer(), await viewer()];
    const waits = { minRevision: '1000000000' };
    const calls = callsOf(service(), greedy);
    const outcomes = await Promise.all(Array.from({ length: 8 }, () => calls('AccessService/GetCaller', waits)));
    expect(outcomes.filter(({ reason }) => reason === 'TOO_MANY_CALLS')).toHaveLength(3);
    expect(outcomes.filter(({ reason }) => reason === 'REVISION_NOT_REACHED')).toHaveLength(5);
    expect((await callsOf(service(), other)('AccessService/GetCaller')).code).toBe('OK');
    expect((await calls('AccessService/GetCaller')).code).toBe('OK');
  });

  it('is part of the room for streams', async () => {
    withLimits({ streamsPerToken: 2 });
    const [greedy, other] = [await viewer(), await viewer()];
    const first = watchAs(service(), greedy, { all_agents: true });
    await first.ready();
    await watchAs(service(), greedy, { all_agents: true }).ready();
    expect(await watchAs(service(), greedy, { all_agents: true }).end()).toMatchObject({ reason: 'TOO_MANY_WATCHES' });
    await watchAs(service(), other, { all_agents: true }).ready();
    first.close();
    await eventually(async () => {
      const again = watchAs(service(), greedy, { all_agents: true });
      return again.ready().then(
        () => true,
        () => false,
      );
    }, 'there is room again');
  });
});

describe('a stranger, where a network can reach the service', () => {
  /** What comes back for headers alone, while the body is still to come. */
  function knock(port: number, headers: Readonly<Record<string, string>>): Promise<string | undefined> {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    onTestFinished(() => session.destroy());
    const call = session.request({
      ':method': 'POST',
      ':path': '/agentllm.v1.AgentService/ListAgents',
      'content-type': 'application/grpc',
      te: 'trailers',
      ...headers,
    });
    // A message of 4 MiB, of which only the beginning ever comes.
    call.write(Buffer.from([0, 0, 64, 0, 0, 1, 2, 3]));
    return new Promise((resolve) => {
      const heard = (seen: { 'grpc-status'?: unknown }) => {
        if (seen['grpc-status'] !== undefined) resolve(String(seen['grpc-status']));
      };
      call
        .on('response', heard)
        .on('trailers', heard)
        .on('error', () => resolve('reset'));
      setTimeout(() => resolve(undefined), 1_000);
    });
  }

  it('is sent away before what it sends is kept, and who has a token is not', async () => {
    const closed = await startReplica({ anonymous: 'never' });
    onTestFinished(() => closed.stop());
    const { text } = await grant(closed.store, { role: 'ROLE_ADMIN' });
    expect(await knock(closed.port, {})).toBe(`${status.UNAUTHENTICATED}`);
    expect(await knock(closed.port, { authorization: 'Bearer al_wrong' })).toBe(`${status.UNAUTHENTICATED}`);
    expect(await knock(closed.port, { authorization: `Bearer ${text}` })).toBeUndefined();
  });
});
