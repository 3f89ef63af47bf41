import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { AcknowledgeRevisionRequest } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { AckBatcher } from '../../src/client/ack_batcher.js';
import type { Connection } from '../../src/client/connection.js';
import { AgentLLMError } from '../../src/client/error.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const cancelled = () => AgentLLMError.here('This connection was closed', { code: 'CANCELLED', method: 'x' });

/** A connection whose calls fail, succeed, or wait until their signal aborts; and the revisions that it received. */
function connectionThat(behaviour: 'is closed' | 'works' | 'is silent') {
  const received: bigint[][] = [];
  const call = (_: unknown, make: () => { bytes: Buffer }, { signal }: { signal: AbortSignal }) => {
    if (behaviour === 'is closed') return Promise.reject(cancelled());
    const { acknowledgements } = AcknowledgeRevisionRequest.decode(make().bytes);
    received.push(acknowledgements.map(({ revision }) => revision));
    if (behaviour === 'works') return Promise.resolve();
    return new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(cancelled())));
  };
  return { connection: { call } as unknown as Connection, received };
}

const ack = (client_id: string, revision: bigint) => ({ client_id, revision });

it('a batch is sent over the connection of any client that stays', async () => {
  const batcher = new AckBatcher();
  const [first, stays, last] = [connectionThat('is closed'), connectionThat('works'), connectionThat('is closed')];
  const sent = Promise.all([
    batcher.send(first.connection, ack('a', 1n), 5_000),
    batcher.send(stays.connection, ack('b', 2n), 5_000),
    batcher.send(last.connection, ack('c', 3n), 5_000),
  ]);
  await vi.advanceTimersByTimeAsync(50);
  await sent;
  expect(stays.received).toEqual([[1n, 2n, 3n]]);
});

it('a client that leaves does not wait for any of its calls', async () => {
  const batcher = new AckBatcher();
  const { connection } = connectionThat('is silent');
  const one = batcher.send(connection, ack('a', 1n), 5_000).catch((error) => error.code);
  await vi.advanceTimersByTimeAsync(50);
  const other = batcher.send(connection, ack('a', 2n), 5_000).catch((error) => error.code);
  await vi.advanceTimersByTimeAsync(50);
  batcher.leave(connection);
  expect(await Promise.all([one, other])).toEqual(['CANCELLED', 'CANCELLED']);
});

it('a call without a response within its time limit is not repeated over other connections', async () => {
  const batcher = new AckBatcher();
  const [silent, other] = [connectionThat('is silent'), connectionThat('works')];
  const sent = Promise.allSettled([
    batcher.send(silent.connection, ack('a', 1n), 1_000),
    batcher.send(other.connection, ack('b', 1n), 1_000),
  ]);
  await vi.advanceTimersByTimeAsync(1_050);
  const late = expect.objectContaining({ code: 'DEADLINE_EXCEEDED' });
  expect(await sent).toEqual([
    { status: 'rejected', reason: late },
    { status: 'rejected', reason: late },
  ]);
  expect(other.received).toEqual([]);
});
