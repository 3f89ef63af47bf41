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
/** Waits in the service until its deadline: nobody writes a revision this high. */
const waiting = request({ ...trader, min_revision: 1_000_000n });

const EXCEEDED = 'grpc DEADLINE_EXCEEDED DEADLINE_EXCEEDED';
const NOT_REACHED = 'grpc UNAVAILABLE REVISION_NOT_REACHED';
const INVALID = 'grpc INVALID_ARGUMENT INVALID_HEADER';

// What answers a call that waits, and what a call whose request has not come: the first is for the service to end, a
// little before its deadline, with a reason; the second only grpc-js can end.
// What answers a call that waits, and what a call whose request does not come: the first is for the service to end, a
// little before its deadline, with a reason; the second only grpc-js can end.
const table: readonly (readonly [timeout: string, waiting: string, withoutRequest: string])[] = [
  ['300m', NOT_REACHED, EXCEEDED],
  ['1S', NOT_REACHED, EXCEEDED],
  ['999999u', NOT_REACHED, EXCEEDED],
  ['0m', EXCEEDED, EXCEEDED],
  ['0S', EXCEEDED, EXCEEDED],
  ['1n', EXCEEDED, EXCEEDED],
  // No unit, no number, no sense.
  ['x', INVALID, INVALID],
  ['', INVALID, INVALID],
  ['1', INVALID, INVALID],
  ['S', INVALID, INVALID],
  ['1s', INVALID, INVALID],
  // grpc-js would take the first number that has a unit.
  ['-1S', INVALID, INVALID],
  ['1e300m', INVALID, INVALID],
  ['1S, 2S', INVALID, INVALID],
];

// What a call that waits has heard after 500 ms.
const long: readonly (readonly [timeout: string, answer: string])[] = [
  ['1H', 'nothing'],
  // 24 days.
  ['576H', 'nothing'],
  // 25 days are more than setTimeout's 2^31-1 ms: they pass at once.
  ['600H', EXCEEDED],
  // What 32 bits keep of 11 415 years in ms is another time, and still a long one.
  ['99999999H', 'nothing'],
];

describe('grpc-timeout', () => {
  afterEach(async () => {
    expect((await service.agents.getAgent(trader)).agent?.name).toBe('trader');
  });

  const call = async (timeout: string, rest: RawCall) =>
    (await rawCall(service.port, { headers: { 'grpc-timeout': timeout }, ...rest })).result;

  it.each(table)('%j ends a call that waits with %s', async (timeout, expected) => {
    expect(await call(timeout, { body: waiting })).toBe(expected);
  });

  it.each(table)('%j ends a call whose request does not come (%s) with %s', async (timeout, _, expected) => {
    expect(await call(timeout, { open: true })).toBe(expected);
  });

  it.each(long)('%s gives a call that waits %s for now', async (timeout, expected) => {
    expect(await call(timeout, { body: waiting, waitMs: 500 })).toBe(expected);
  });

  it.each(['300m', '1H', '576H', '99999999H'])('%s is enough for an ordinary call', async (timeout) => {
    expect(await call(timeout, { body: request(trader) })).toBe('grpc OK');
  });
});
