import { describe, expect, it } from 'vitest';
import { Status } from '../../../gen/ts/google/rpc/status.js';
import { statusOf } from '../../../src/api/messages/status.js';
import { ServiceError } from '../../../src/errors.js';
import { limits } from '../../../src/limits.js';

/** The bytes of an error on the wire: the details in base64, and the escaped message. */
function wireBytes(error: ServiceError): number {
  const status = statusOf(error);
  const details = Buffer.from(Status.encode(status).finish()).toString('base64');
  return details.length + encodeURI(status.message).length;
}

const errorsWith = (text: string): ServiceError[] => [
  ServiceError.of('AGENT_NOT_FOUND', { agent: `name ${text}`, suggestion: text }),
  ServiceError.of('MODEL_NOT_FOUND', { provider: text, model: text, suggestion: text }),
  ServiceError.of('INVALID_FIELDS', { violations: text }, { violations: [{ field: text, description: text }] }),
  ServiceError.of(
    'KEY_PROVIDER_MISMATCH',
    { key_provider: text, provider: text, remedy: text },
    { resources: Array.from({ length: 5 }, () => ({ type: 'agent', name: text })) },
  ),
];

describe('a status', () => {
  const characters = { ASCII: 'a', 'white space': ' ', Latin: 'é', Chinese: '模', emoji: '😀' };

  it.each(Object.entries(characters))(`has at most ${limits.maxStatusBytes} bytes for %s of any length`, (_, one) => {
    for (let length = 1; length <= 1000; length += 7)
      for (const error of errorsWith(`x${one.repeat(length)}x`))
        expect(wireBytes(error), `${error.reason}, ${length}`).toBeLessThanOrEqual(limits.maxStatusBytes);
  });

  it('has the whole message when it is short enough', () => {
    const agent = '模'.repeat(100);
    expect(statusOf(ServiceError.of('AGENT_NOT_FOUND', { agent })).message).toBe(`No agent has the ${agent}`);
  });
});
