import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { AckBatcher } from '../../src/client/ack_batcher.js';
import { Acknowledger } from '../../src/client/acknowledgements.js';
import type { Connection } from '../../src/client/connection.js';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

/** An acknowledger, and the revisions that it has sent. */
function setup(): { acknowledger: Acknowledger; sent: bigint[] } {
  const sent: bigint[] = [];
  const batcher: Pick<AckBatcher, 'send' | 'leave'> = {
    async send(_, { revision }) {
      sent.push(revision);
    },
    leave: () => undefined,
  };
  return { acknowledger: new Acknowledger({} as Connection, 'client', batcher as AckBatcher), sent };
}

it.each([
  [0, 50],
  [1, 300],
])('a revision is acknowledged after a random time between 50 and 300 ms (%d)', async (random, ms) => {
  vi.spyOn(Math, 'random').mockReturnValue(random);
  const { acknowledger, sent } = setup();
  acknowledger.apply(10n, false);
  await vi.advanceTimersByTimeAsync(ms - 1);
  expect(sent).toEqual([]);
  await vi.advanceTimersByTimeAsync(1);
  expect(sent).toEqual([10n]);
});

it('the newest of many revisions is acknowledged one second after the previous acknowledgement', async () => {
  const { acknowledger, sent } = setup();
  acknowledger.apply(10n, false);
  await vi.advanceTimersByTimeAsync(300);
  expect(sent).toEqual([10n]);
  for (let revision = 11n; revision <= 60n; revision++) acknowledger.apply(revision, false);
  await vi.advanceTimersByTimeAsync(699);
  expect(sent).toEqual([10n]);
  await vi.advanceTimersByTimeAsync(301);
  expect(sent).toEqual([10n, 60n]);
});

it('a revision that contains nothing for the client is acknowledged ten seconds after the previous one', async () => {
  const { acknowledger, sent } = setup();
  acknowledger.apply(10n, false);
  await vi.advanceTimersByTimeAsync(300);
  acknowledger.apply(11n, true);
  await vi.advanceTimersByTimeAsync(9_699);
  expect(sent).toEqual([10n]);
  await vi.advanceTimersByTimeAsync(301);
  expect(sent).toEqual([10n, 11n]);
});

it('a change is acknowledged without the delay of an earlier revision that contains nothing for the client', async () => {
  const { acknowledger, sent } = setup();
  acknowledger.apply(10n, false);
  await vi.advanceTimersByTimeAsync(300);
  acknowledger.apply(11n, true);
  acknowledger.apply(12n, false);
  await vi.advanceTimersByTimeAsync(1_000);
  expect(sent).toEqual([10n, 12n]);
});

it('a revision is acknowledged again on a new stream, also if its acknowledgement was in progress', async () => {
  const received: (() => void)[] = [];
  const sent: bigint[] = [];
  const batcher: Pick<AckBatcher, 'send' | 'leave'> = {
    send: (_, { revision }) => {
      sent.push(revision);
      return new Promise((resolve) => received.push(resolve));
    },
    leave: () => undefined,
  };
  const acknowledger = new Acknowledger({} as Connection, 'client', batcher as AckBatcher);
  acknowledger.apply(10n, false);
  await vi.advanceTimersByTimeAsync(300);
  expect(sent).toEqual([10n]);
  acknowledger.restart();
  received[0]?.();
  await vi.advanceTimersByTimeAsync(0);
  acknowledger.apply(10n, true);
  await vi.advanceTimersByTimeAsync(300);
  expect(sent).toEqual([10n, 10n]);
});
