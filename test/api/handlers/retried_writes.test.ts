import { randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import {
  AgentLLMConfigServiceService,
  DeleteConfigRequest,
  UpdateConfigRequest,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import {
  AgentServiceService,
  CreateAgentRequest,
  DeleteAgentRequest,
} from '../../../gen/ts/agentllm/v1/agent_service.js';
import { CredentialServiceService } from '../../../gen/ts/agentllm/v1/credential_service.js';
import { ProviderServiceService } from '../../../gen/ts/agentllm/v1/provider_service.js';
import { frame, rawCall } from '../../grpc/http2_client.js';
import { environment } from '../../support/checked_provider.js';
import { unique, useService } from '../../support/service.js';
import { getAgent, newAgent, newConfig } from './support.js';

interface Method {
  readonly path: string;
}
/** A request that contains nothing except an optional request_id: field 10 of every write. */
const emptyRequest = (request_id = '') =>
  request_id === ''
    ? Buffer.alloc(0)
    : Buffer.concat([Buffer.from([0x52, request_id.length]), Buffer.from(request_id)]);
const services = [AgentServiceService, AgentLLMConfigServiceService, CredentialServiceService, ProviderServiceService];
const methods: Method[] = services.flatMap((one) => Object.values(one) as unknown as Method[]);
const nameOf = ({ path }: Method) => path.split('/').at(-1) ?? '';
const isWrite = (method: Method) =>
  /^(Create|Update|Delete|Upsert|Bulk|Reorder|Rollback|Set|Import)/.test(nameOf(method));
const method = (name: string) => methods.find((one) => nameOf(one) === name) as Method;

describe.each(['embedded', 'postgres'] as const)('a call with grpc-previous-rpc-attempts on %s', (backend) => {
  const service = useService(backend, environment);
  type Attempts = string | readonly string[];
  async function call(one: Method, request: Uint8Array, attempts: Attempts | undefined) {
    return rawCall(service().port, {
      path: one.path,
      body: frame(request),
      headers: attempts === undefined ? {} : { 'grpc-previous-rpc-attempts': attempts },
      waitMs: 10_000,
    });
  }
  const create = method('CreateAgent');
  const agentOf = (name: string, more: { request_id?: string; validate_only?: boolean } = {}) =>
    CreateAgentRequest.encode(
      CreateAgentRequest.fromPartial({ agent: { name, agent_type: 'analyst' }, ...more }),
    ).finish();
  const exists = async (name: string) =>
    service()
      .agents.getAgent({ agent: { name } })
      .then(
        () => true,
        () => false,
      );

  it.each(methods.filter(isWrite).map((one) => [nameOf(one), one] as const))(
    'is rejected for %s without a request_id, unless it is the first attempt',
    async (_, one) => {
      expect((await call(one, emptyRequest(), '1')).result).toBe('grpc FAILED_PRECONDITION RETRY_WITHOUT_REQUEST_ID');
      expect((await call(one, emptyRequest(randomUUID()), '1')).result).not.toContain('RETRY_WITHOUT_REQUEST_ID');
      expect((await call(one, emptyRequest(), undefined)).result).not.toContain('RETRY_WITHOUT_REQUEST_ID');
    },
  );

  it.each(methods.filter((one) => !isWrite(one)).map((one) => [nameOf(one), one] as const))(
    'is accepted for the read %s',
    async (_, one) => {
      const { result } = await call(one, emptyRequest(), '3');
      expect(result).not.toContain('RETRY_WITHOUT_REQUEST_ID');
      // Leases and tokens require a token.
      expect(result).toMatch(/^grpc (OK|INVALID_ARGUMENT|NOT_FOUND|UNIMPLEMENTED|UNAUTHENTICATED TOKEN_REQUIRED)/);
    },
  );

  it('writes nothing when it is rejected, and writes once with a request_id', async () => {
    const refused = unique('again');
    expect((await call(create, agentOf(refused), '1')).result).toBe(
      'grpc FAILED_PRECONDITION RETRY_WITHOUT_REQUEST_ID',
    );
    expect(await exists(refused)).toBe(false);
    const name = unique('again');
    const request_id = randomUUID();
    const request = agentOf(name, { request_id });
    const first = await call(create, request, undefined);
    const second = await call(create, request, '1');
    const third = await call(create, request, '2');
    expect([first.result, second.result, third.result]).toEqual(['grpc OK', 'grpc OK', 'grpc OK']);
    expect(second.body).toEqual(first.body);
    expect(third.body).toEqual(first.body);
    // A reused id is still reported, and an invalid UUID is a violation and does not count as absent.
    expect((await call(create, agentOf(unique('other'), { request_id }), '1')).result).toBe(
      'grpc INVALID_ARGUMENT REQUEST_ID_REUSED',
    );
    expect((await call(create, agentOf(unique('other'), { request_id: 'x' }), '1')).result).toBe(
      'grpc INVALID_ARGUMENT INVALID_FIELDS',
    );
  });

  it('writes nothing with validate_only', async () => {
    const name = unique('only');
    const { result } = await call(create, agentOf(name, { validate_only: true }), '1');
    expect(result).toMatch(/^grpc (OK|FAILED_PRECONDITION RETRY_WITHOUT_REQUEST_ID)$/);
    expect(await exists(name)).toBe(false);
  });

  it('is rejected when any of several header values is above 0', async () => {
    for (const attempts of [
      ['1', '2'],
      ['0', '1'],
      ['1', '0'],
      '1, 2',
      '2147483648',
      '99999999999999999999',
    ] as Attempts[]) {
      const name = unique('many');
      expect([attempts, (await call(create, agentOf(name), attempts)).result]).toEqual([
        attempts,
        'grpc FAILED_PRECONDITION RETRY_WITHOUT_REQUEST_ID',
      ]);
      expect(await exists(name)).toBe(false);
    }
  });

  it('causes no other error when the value is 0 or not a number', async () => {
    const name = unique('zero');
    expect((await call(create, agentOf(name), '0')).result).toMatch(
      /^grpc (OK|FAILED_PRECONDITION RETRY_WITHOUT_REQUEST_ID)$/,
    );
    for (const attempts of ['', 'x', '-1', '1e3', ' ', '%00', '\t1', 'NaN', '1'.repeat(500)]) {
      const { result } = await call(create, agentOf(unique('odd')), attempts);
      expect([attempts, result]).toEqual([
        attempts,
        expect.stringMatching(/^grpc (OK|FAILED_PRECONDITION RETRY_WITHOUT_REQUEST_ID|INVALID_ARGUMENT.*)$/),
      ]);
    }
    expect((await newAgent(service())).id).toBeGreaterThan(0);
  });

  it('is rejected without further information when the message is malformed', async () => {
    const { result } = await rawCall(service().port, {
      path: create.path,
      body: frame(Buffer.from([0x0a, 0xff, 0x01])),
      headers: { 'grpc-previous-rpc-attempts': '1' },
    });
    expect(result).toMatch(/MALFORMED_REQUEST|RETRY_WITHOUT_REQUEST_ID/);
  });

  it('changes and deletes nothing when it is rejected', async () => {
    const config = await newConfig(service());
    const agent = await getAgent(service(), config.agent_id);
    const rejection = 'grpc FAILED_PRECONDITION RETRY_WITHOUT_REQUEST_ID';
    const retry = async (name: string, request: Uint8Array) => (await call(method(name), request, '1')).result;
    const deletion = DeleteConfigRequest.fromPartial({ id: config.id });
    expect(await retry('DeleteConfig', DeleteConfigRequest.encode(deletion).finish())).toBe(rejection);
    const cascade = DeleteAgentRequest.fromPartial({ agent: { id: agent.id }, cascade: true });
    expect(await retry('DeleteAgent', DeleteAgentRequest.encode(cascade).finish())).toBe(rejection);
    const change = UpdateConfigRequest.fromPartial({ config: { id: config.id, temperature: 1.5 } });
    expect(await retry('UpdateConfig', UpdateConfigRequest.encode(change).finish())).toBe(rejection);
    const after = (await service().configs.getConfig({ id: config.id })).config;
    expect(after).toEqual(config);
  });
});
