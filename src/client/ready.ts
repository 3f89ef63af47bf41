import { setTimeout as sleep } from 'node:timers/promises';
import { asCallError, type Connection, checkDeadline } from './connection.js';
import { AgentLLMError, type Code } from './error.js';

/** Check of grpc.health.v1 without generated code: the response of a serving service is field 1 with value 1. */
const CHECK = {
  path: '/grpc.health.v1.Health/Check',
  responseDeserialize: (bytes: Buffer) => bytes.equals(Buffer.from([8, 1])),
};
const PAUSE_MS = 100;
/** Failures after which the health check is repeated, because they may be temporary. */
const TRANSIENT: readonly Code[] = ['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED'];

/** Repeats the health check until the service serves or the time is over. */
export async function waitUntilReady(connection: Connection, address: string, ms: number): Promise<void> {
  const end = Date.now() + asCallError(CHECK.path.slice(1), 'call', () => checkDeadline(ms));
  for (;;) {
    const failure = await checkHealth(connection, end - Date.now());
    if (failure === undefined) return;
    if (failure instanceof AgentLLMError && !TRANSIENT.includes(failure.code)) throw failure;
    if (Date.now() + PAUSE_MS >= end) {
      const facts = { code: 'UNAVAILABLE', method: CHECK.path.slice(1), cause: failure } as const;
      throw AgentLLMError.here(`No service is ready at ${address} within ${ms} ms: ${failure.message}`, facts);
    }
    await sleep(PAUSE_MS);
  }
}

/** The reason why the service does not serve; undefined if it does. */
async function checkHealth(connection: Connection, deadlineMs: number): Promise<Error | undefined> {
  try {
    const serves = await connection.call(CHECK, () => ({ bytes: Buffer.alloc(0) }), { deadlineMs });
    return serves ? undefined : new Error('it does not accept calls');
  } catch (error) {
    // A proxy that does not implement the health service responds only if the service is reachable.
    return error instanceof AgentLLMError && error.code === 'UNIMPLEMENTED' ? undefined : (error as Error);
  }
}
