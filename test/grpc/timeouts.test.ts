import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { GetAgentRequest } from '../../gen/ts/agentllm/v1/agent_service.js';
import { startService, type TestService } from '../support/service.js';
import { frame, type RawCall, rawCall } from './http2_client.js';

let service: TestService;

beforeAll(async () => {
  service = await startService();
});

afterAll(async () => {
  await service.stop();
});

const request = (fields: Parameters<typeof GetAgentRequest.fromPartial>[0]) =>
  frame(GetAgentRequest.encode(GetAgentRequest.fromPartial(fields)).finish());
const trader = { agent: { name: 'trader' } };
/** Waits in the service until its deadline: no write reaches a revision this high. */
const waiting = request({ ...trader, min_revision: 1_000_000n });

const EXCEEDED = 'grpc DEADLINE_EXCEEDED DEADLINE_EXCEEDED';
const NOT_REACHED = 'grpc UNAVAILABLE REVISION_NOT_REACHED';
const INVALID = 'grpc INVALID_ARGUMENT INVALID_HEADER';

// The result of a waiting call, and of a call whose request does not arrive. The service ends the first one with a
// reason, a little before its deadline; only grpc-js can end the second one.
const table: readonly (readonly [timeout: string, waiting: string, withoutRequest: string])[] = [
  ['300m', NOT_REACHED, EXCEEDED],
  ['1S', NOT_REACHED, EXCEEDED],
  ['999999u', NOT_REACHED, EXCEEDED],
  ['0m', EXCEEDED, EXCEEDED],
  ['0S', EXCEEDED, EXCEEDED],
  ['1n', EXCEEDED, EXCEEDED],
  // No unit, no number, or an invalid format.
  ['x', INVALID, INVALID],
  ['', INVALID, INVALID],
  ['1', INVALID, INVALID],
  ['S', INVALID, INVALID],
  ['1s', INVALID, INVALID],
  // grpc-js would use the first number that has a unit.
  ['-1S', INVALID, INVALID],
  ['1e300m', INVALID, INVALID],
  ['1S, 2S', INVALID, INVALID],
];

// The result of a waiting call: at its timeout, or nothing within 500 ms.
const long: readonly (readonly [timeout: string, result: string])[] = [
  ['1H', 'nothing'],
  // 24 days.
  ['576H', 'nothing'],
  // 25 days are more than setTimeout's 2^31-1 ms: the timer fires at once.
  ['600H', EXCEEDED],
  // 11 415 years in ms, truncated to 32 bits, are another time, which is still long.
  ['99999999H', 'nothing'],
];

describe('a grpc-timeout', () => {
  afterEach(async () => {
    expect((await service.agents.getAgent(trader)).agent?.name).toBe('trader');
  });

  const call = async (timeout: string, rest: RawCall) =>
    (await rawCall(service.port, { headers: { 'grpc-timeout': timeout }, ...rest })).result;

  it.each(table)('of %j ends a waiting call with %s', async (timeout, expected) => {
    expect(await call(timeout, { body: waiting })).toBe(expected);
  });

  it.each(table)(
    'of %j, which ends a waiting call with %s, ends a call without a request with %s',
    async (timeout, _, expected) => {
      expect(await call(timeout, { open: true })).toBe(expected);
    },
  );

  it.each(long)('of %s gives a waiting call "%s"', async (timeout, expected) => {
    expect(await call(timeout, { body: waiting, ...(expected === 'nothing' && { waitMs: 500 }) })).toBe(expected);
  });

  it.each(['300m', '1H', '576H', '99999999H'])('of %s is long enough for an ordinary call', async (timeout) => {
    expect(await call(timeout, { body: request(trader) })).toBe('grpc OK');
  });
});
