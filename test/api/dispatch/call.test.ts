import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import { AgentServiceService, UpdateAgentRequest } from '../../../gen/ts/agentllm/v1/agent_service.js';
import { apiServiceOf, invokerOf, type UnaryMethod } from '../../../src/api/dispatch/api_service.js';
import { CallLimiter } from '../../../src/api/dispatch/call_limiter.js';
import { readContract } from '../../../src/api/dispatch/contract.js';
import type { DispatchContext } from '../../../src/api/dispatch/method.js';
import { anonymous } from '../../../src/domain/access.js';
import { ServiceError } from '../../../src/errors.js';

const { getAgent, updateAgent } = AgentServiceService;

/** GetAgent and UpdateAgent with another handler, and their log. */
function methodsWith(handler: () => Promise<never>) {
  const currentPrincipal = vi.fn(() => anonymous);
  const log = { error: vi.fn(), isLevelEnabled: () => false };
  const context = {
    contract: readContract(),
    log,
    metrics: { forMethod: () => () => {} },
    limiter: new CallLimiter(),
    authorizer: { admit: () => anonymous, checkAgents: () => {}, currentPrincipal },
    unreadResponses: { connectionOf: () => undefined },
  } as unknown as DispatchContext;
  const { unary } = apiServiceOf({ getAgent, updateAgent }, { getAgent: handler, updateAgent: handler }, context);
  const invoke = (name: 'getAgent' | 'updateAgent') => invokerOf(unary.get(name) as UnaryMethod);
  return { read: invoke('getAgent'), write: invoke('updateAgent'), log, currentPrincipal };
}

const request = getAgent.requestSerialize({ agent: { name: 'trader' }, min_revision: 0n });

it('an unexpected error is logged, also when the caller has cancelled', async () => {
  let fail = () => {};
  const failing = new Promise<never>((_, reject) => {
    fail = () => reject(new TypeError('a defect'));
  });
  const { read, log } = methodsWith(() => failing);
  const cancellation = new AbortController();
  const call = read(request, { signal: cancellation.signal });
  cancellation.abort();
  await nextTurn();
  expect(log.error).not.toHaveBeenCalled();
  fail();
  await expect(call).rejects.toMatchObject({ reason: 'INTERNAL' });
  expect(log.error).toHaveBeenCalledExactlyOnceWith(
    expect.objectContaining({ method: 'agentllm.v1.AgentService/GetAgent', err: new TypeError('a defect') }),
    'call failed inside the service',
  );
});

it('an error for the caller is not logged', async () => {
  const { read, log } = methodsWith(() => Promise.reject(ServiceError.of('CANCELLED', {})));
  await expect(read(request)).rejects.toMatchObject({ reason: 'CANCELLED' });
  expect(log.error).not.toHaveBeenCalled();
});

it('a caller that has lost access during a read receives no response, and one of a committed write does', async () => {
  const response = new Promise<never>((resolve) => setImmediate(() => resolve(new Uint8Array([1]) as never)));
  const { read, write, currentPrincipal } = methodsWith(() => response);
  const reading = read(request);
  const writing = write(updateAgent.requestSerialize(UpdateAgentRequest.fromPartial({})));
  currentPrincipal.mockImplementation(() => {
    throw ServiceError.of('TOKEN_REVOKED', { token: 'al_k3x9q2m7wd' });
  });
  await expect(reading).rejects.toMatchObject({ reason: 'TOKEN_REVOKED' });
  expect(Buffer.from(await writing)).toEqual(Buffer.from([1]));
});
