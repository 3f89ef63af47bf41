import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import { AgentServiceService } from '../../../gen/ts/agentllm/v1/agent_service.js';
import { apiServiceOf, invokerOf } from '../../../src/api/dispatch/api_service.js';
import { CallLimiter } from '../../../src/api/dispatch/call_limiter.js';
import { readContract } from '../../../src/api/dispatch/contract.js';
import type { DispatchContext } from '../../../src/api/dispatch/method.js';
import { anonymous } from '../../../src/domain/access.js';
import { ServiceError } from '../../../src/errors.js';

const { getAgent } = AgentServiceService;

/** GetAgent with another handler, and its log. */
function methodWith(handler: () => Promise<never>) {
  const log = { error: vi.fn(), isLevelEnabled: () => false };
  const context = {
    contract: readContract(),
    log,
    metrics: { forMethod: () => () => {} },
    limiter: new CallLimiter(),
    authorizer: { admit: () => anonymous, checkAgents: () => {} },
    unreadResponses: { connectionOf: () => undefined },
  } as unknown as DispatchContext;
  const method = apiServiceOf({ getAgent }, { getAgent: handler }, context).unary.get('getAgent');
  if (!method) throw new Error('there is no method getAgent');
  return { invoke: invokerOf(method), log };
}

const request = getAgent.requestSerialize({ agent: { name: 'trader' }, min_revision: 0n });

it('an unexpected error is logged, also when the caller has cancelled', async () => {
  let fail = () => {};
  const failing = new Promise<never>((_, reject) => {
    fail = () => reject(new TypeError('a defect'));
  });
  const { invoke, log } = methodWith(() => failing);
  const cancellation = new AbortController();
  const call = invoke(request, { signal: cancellation.signal });
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
  const { invoke, log } = methodWith(() => Promise.reject(ServiceError.of('CANCELLED', {})));
  await expect(invoke(request)).rejects.toMatchObject({ reason: 'CANCELLED' });
  expect(log.error).not.toHaveBeenCalled();
});
