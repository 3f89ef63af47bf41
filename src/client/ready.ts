import { setTimeout as sleep } from 'node:timers/promises';
import { type Connection, checkDeadline, refusing } from './connection.js';
import { AgentLLMError, type Code } from './error.js';

/** Check of grpc.health.v1 without its generated code: the answer of a service that serves is field 1 with value 1. */
const CHECK = {
  path: '/grpc.health.v1.Health/Check',
  responseDeserialize: (bytes: Buffer) => bytes.equals(Buffer.from([8, 1])),
};
const PAUSE_MS = 100;
/** What waiting may change. */
const PASSING: readonly Code[] = ['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED'];

/** Asks the service whether it serves until it does, or the time is over. */
export async function waitUntilReady(connection: Connection, address: string, ms: number): Promise<void> {
  const end = Date.now() + refusing(CHECK.path.slice(1), 'call', () => checkDeadline(ms));
  for (;;) {
    const failed = await ask(connection, end - Date.now());
    if (failed === undefined) return;
    if (failed instanceof AgentLLMError && !PASSING.includes(failed.code)) throw failed;
    if (Date.now() + PAUSE_MS >= end) {
      const facts = { code: 'UNAVAILABLE', method: CHECK.path.slice(1), cause: failed } as const;
      throw AgentLLMError.here(`No service is ready at ${address} within ${ms} ms: ${failed.message}`, facts);
    }
    await sleep(PAUSE_MS);
  }
}

/** Why it does not serve, or undefined. */
async function ask(connection: Connection, deadlineMs: number): Promise<Error | undefined> {
  try {
    const serves = await connection.call(CHECK, () => ({ bytes: Buffer.alloc(0) }), { deadlineMs });
    return serves ? undefined : new Error('it does not take calls');
  } catch (error) {
    // Somebody between who knows nothing of health answers for a service that is there.
    return error instanceof AgentLLMError && error.code === 'UNIMPLEMENTED' ? undefined : (error as Error);
  }
}
