import { createServer } from 'node:http';
import { inspect } from 'node:util';
import { credentials, status } from '@grpc/grpc-js';
import { describe, expect, it, onTestFinished } from 'vitest';
import { AgentServiceClient } from '../../gen/ts/agentllm/v1/agent_service.js';
import { BadRequest, ErrorInfo, ResourceInfo, RetryInfo } from '../../gen/ts/google/rpc/error_details.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { AgentLLMError } from '../../src/client/index.js';
import { freePort } from '../support/ports.js';
import { useService } from '../support/service.js';
import { connectTo, failed, failWith, startFake } from './support.js';

const any = (type: string, value: Uint8Array) => ({
  type_url: `type.googleapis.com/google.rpc.${type}`,
  value: Buffer.from(value),
});
const trailer = (...details: { type_url: string; value: Buffer }[]) =>
  Buffer.from(Status.encode(Status.fromPartial({ code: 3, message: 'no', details })).finish());
const info = (reason: string, domain = 'agentllm', metadata = {}) =>
  any('ErrorInfo', ErrorInfo.encode({ reason, domain, metadata }).finish());

describe('an error of the service', () => {
  const service = useService('embedded');
  const client = () => connectTo(`127.0.0.1:${service().port}`);

  it('names every invalid field', async () => {
    const error = await failed(
      client().configs.createConfig({
        agent: { name: 'trader' },
        config: { provider: 'opnai', model_name: 'gpt-4', temperature: 5 },
      }),
    );
    expect(error).toMatchObject({
      name: 'AgentLLMError',
      code: 'INVALID_ARGUMENT',
      reason: 'INVALID_FIELDS',
      method: 'agentllm.v1.AgentLLMConfigService/CreateConfig',
    });
    expect(error.violations.map(({ field }) => field).sort()).toEqual(['config.provider', 'config.temperature']);
    expect(error.violations.map(({ description }) => description).join()).toContain('must be a number between 0 and 2');
    expect(error.retryAfterMs).toBeUndefined();
    expect(error.requestId).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('names the missing resource and suggests a similar name', async () => {
    const error = await failed(client().configs.getPrimaryConfig({ agent: { name: 'trador' } }));
    expect(error).toMatchObject({ code: 'NOT_FOUND', reason: 'AGENT_NOT_FOUND', requestId: undefined });
    expect(error.resources).toEqual([{ type: 'agent', name: expect.stringContaining('trador') }]);
    expect(error.metadata).toMatchObject({ suggestion: 'trader' });
    expect(error.message).toBe('No agent has the name "trador"; did you mean "trader"?');
  });

  it('contains the retry delay when a retry may succeed', async () => {
    const options = { retry: false, deadlineMs: 300 };
    const { agents } = connectTo(`127.0.0.1:${service().port}`, options);
    const error = await failed(agents.listAgents({ min_revision: 1_000_000n }));
    expect(error).toMatchObject({
      code: 'UNAVAILABLE',
      reason: 'REVISION_NOT_REACHED',
      retryAfterMs: 500,
      unsent: false,
    });
  });

  it('is an Error whose message contains no code, with a cause, a stack and fields for inspect and JSON', async () => {
    const { agents } = client();
    async function callerOfMine() {
      await agents.getAgent({ agent: { id: 4711 } });
    }
    const error = await failed(callerOfMine());
    expect(error).toBeInstanceOf(Error);
    expect(error).toBeInstanceOf(AgentLLMError);
    expect(error.message).not.toMatch(/^\d+ [A-Z_]+:/);
    expect(String(error)).toBe(`AgentLLMError: ${error.message}`);
    expect((error.cause as Error).message).toBe(`5 NOT_FOUND: ${error.message}`);
    expect(inspect(error)).toContain('callerOfMine');
    expect(inspect(error)).toContain("reason: 'AGENT_NOT_FOUND'");
    expect(JSON.parse(JSON.stringify(error))).toMatchObject({ message: error.message, reason: 'AGENT_NOT_FOUND' });
  });

  it('can be created from an error of the generated stubs', async () => {
    const stub = new AgentServiceClient(`127.0.0.1:${service().port}`, credentials.createInsecure());
    const error = await new Promise<AgentLLMError>((resolve) =>
      stub.getAgent({ agent: { id: 4711, name: undefined }, min_revision: 0n }, (failure) =>
        resolve(AgentLLMError.from(failure as NonNullable<typeof failure>, 'GetAgent')),
      ),
    );
    stub.close();
    expect(error).toMatchObject({ reason: 'AGENT_NOT_FOUND', method: 'GetAgent' });
  });
});

describe('a transport error', () => {
  it('has no reason when nothing listens at the address', async () => {
    const port = await freePort();
    const error = await failed(connectTo(`127.0.0.1:${port}`, { retry: false }).agents.listAgents());
    expect(error).toMatchObject({
      code: 'UNAVAILABLE',
      reason: undefined,
      violations: [],
      resources: [],
      metadata: {},
    });
    expect(error.message).toBe(`No connection to the service: connect ECONNREFUSED 127.0.0.1:${port}`);
  });

  it('names the deadline and the last connection failure in one sentence', async () => {
    const address = `127.0.0.1:${await freePort()}`;
    const error = await failed(connectTo(address, { deadlineMs: 600 }).agents.listAgents());
    const message = `No response from ${address} within 600 ms; last failure: connect ECONNREFUSED ${address}`;
    expect(error).toMatchObject({ code: 'DEADLINE_EXCEEDED', reason: undefined, unsent: true, message });
    const fake = await startFake(() => {});
    const silent = await failed(connectTo(fake.address, { deadlineMs: 300 }).agents.listAgents());
    expect(silent).toMatchObject({ unsent: false, message: `No response from ${fake.address} within 300 ms` });
  });

  it('states that the listener is not a gRPC service when it is an HTTP server', async () => {
    const server = createServer((_, response) => response.end());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void server.close());
    const address = `127.0.0.1:${(server.address() as { port: number }).port}`;
    const { message } = await failed(connectTo(address, { retry: false }).agents.listAgents());
    expect(message).toBe(
      `No connection to the service: what listens at ${address} is no gRPC service; is it the HTTP port?`,
    );
  });

  it('is UNAVAILABLE or DEADLINE_EXCEEDED when the host name does not resolve', async () => {
    const { agents } = connectTo('agentllm.invalid:50051', { retry: false, deadlineMs: 3_000 });
    expect(['UNAVAILABLE', 'DEADLINE_EXCEEDED']).toContain((await failed(agents.listAgents())).code);
  });

  it.each(Object.entries(status).filter(([name]) => Number.isNaN(Number(name)) && name !== 'OK'))(
    'keeps the code %s and the message of the status',
    async (name, code) => {
      const fake = await startFake((_, done) => done(failWith(code as number, 'somebody between')));
      const error = await failed(connectTo(fake.address, { retry: false }).agents.listAgents());
      expect(error).toMatchObject({ code: name, reason: undefined, message: 'somebody between' });
    },
  );

  it('has its code as message when the status has none', async () => {
    const fake = await startFake((_, done) => done(failWith(status.ABORTED, '')));
    expect((await failed(connectTo(fake.address).agents.listAgents())).message).toBe('ABORTED');
  });

  it('is INTERNAL when the response cannot be decoded', async () => {
    const fake = await startFake((_, done) => done(null, Buffer.from([0x0a, 0xff])));
    const error = await failed(connectTo(fake.address, { retry: false }).agents.listAgents());
    expect(error.code).toBe('INTERNAL');
  });
});

describe('an error trailer', () => {
  const error = async (bytes: Buffer) => {
    const fake = await startFake((_, done) => done(failWith(status.INVALID_ARGUMENT, 'no', bytes)));
    return failed(connectTo(fake.address, { retry: false }).agents.listAgents());
  };

  it('provides its details when it is valid', async () => {
    const bytes = trailer(
      info('INVALID_FIELDS', 'agentllm', { a: 'b' }),
      any(
        'BadRequest',
        BadRequest.encode(BadRequest.fromPartial({ field_violations: [{ field: 'x', description: 'y' }] })).finish(),
      ),
      any(
        'ResourceInfo',
        ResourceInfo.encode(
          ResourceInfo.fromPartial({ resource_type: 'agentllm.v1.config', resource_name: '7' }),
        ).finish(),
      ),
      any('RetryInfo', RetryInfo.encode({ retry_delay: { seconds: 1n, nanos: 500_000_000 } }).finish()),
      { type_url: 'type.googleapis.com/acme.Unknown', value: Buffer.from([1, 2, 3]) },
    );
    expect(await error(bytes)).toMatchObject({
      reason: 'INVALID_FIELDS',
      metadata: { a: 'b' },
      violations: [{ field: 'x', description: 'y' }],
      resources: [{ type: 'config', name: '7' }],
      retryAfterMs: 1500,
    });
  });

  it('provides no reason of another domain', async () => {
    expect((await error(trailer(info('AGENT_NOT_FOUND', 'googleapis.com')))).reason).toBeUndefined();
    const both = trailer(info('SERVICE_DISABLED', 'googleapis.com'), info('STALE_ETAG'));
    expect((await error(both)).reason).toBe('STALE_ETAG');
  });

  it.each([
    ['no bytes', Buffer.alloc(0)],
    ['garbage', Buffer.from('not protobuf at all, really')],
    ['an unterminated length', Buffer.from([0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f])],
    ['zeros', Buffer.alloc(2_000)],
    ['a malformed detail', trailer(info('STALE_ETAG'), any('BadRequest', Buffer.from([0x0a, 0xff])))],
    ['a detail without a type', trailer({ type_url: '', value: Buffer.from([0xff]) })],
    [
      'a negative retry delay',
      trailer(any('RetryInfo', RetryInfo.encode({ retry_delay: { seconds: -5n, nanos: -1 } }).finish())),
    ],
    ['a __proto__ key', trailer(info('INVALID_FIELDS', 'agentllm', JSON.parse('{"__proto__":"x"}')))],
  ])('leaves code and message unchanged when it contains %s', async (_, bytes) => {
    const { code, message, violations, retryAfterMs = 0 } = await error(bytes);
    expect({ code, message, violations }).toEqual({ code: 'INVALID_ARGUMENT', message: 'no', violations: [] });
    expect(retryAfterMs).toBeGreaterThanOrEqual(0);
    expect(Object.prototype).not.toHaveProperty('x');
  });

  it('leaves the code unchanged when any byte of it is changed or it is truncated', async () => {
    const bytes: Buffer[] = [];
    const fake = await startFake((_, done) => done(failWith(status.INVALID_ARGUMENT, 'no', bytes.shift())));
    const { agents } = connectTo(fake.address, { retry: false });
    const valid = trailer(info('INVALID_FIELDS'), any('BadRequest', Buffer.from([0x0a, 0x03, 0x0a, 0x01, 0x78])));
    for (let at = 0; at < valid.length; at++)
      for (const change of [0x00, 0x7f, 0x80, 0xff]) {
        const invalid = Buffer.from(valid);
        invalid[at] = change;
        bytes.push(invalid, valid.subarray(0, at));
      }
    while (bytes.length > 0) expect((await failed(agents.listAgents())).code).toBe('INVALID_ARGUMENT');
  });
});

describe('instanceof AgentLLMError', () => {
  it('is true for errors of this class only', () => {
    const error = AgentLLMError.here('no', { code: 'INTERNAL', method: 'x' });
    expect(error).toBeInstanceOf(AgentLLMError);
    for (const other of [new Error('no'), { name: 'AgentLLMError' }, null, undefined, 'AgentLLMError'])
      expect((other as unknown) instanceof AgentLLMError).toBe(false);
  });
});
