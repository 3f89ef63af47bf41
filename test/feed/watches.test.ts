import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { newAgent } from '../../src/domain/agent.js';
import { State } from '../../src/domain/state.js';
import { ServiceError } from '../../src/errors.js';
import { type Filter, filterOf } from '../../src/feed/filter.js';
import type { MessageEncoder, Sink } from '../../src/feed/watch.js';
import { Watches } from '../../src/feed/watches.js';
import { limits } from '../../src/limits.js';
import type { Database } from '../../src/store/database.js';
import type { RevisionListener } from '../../src/store/replica_state.js';
import { Store } from '../../src/store/store.js';
import { timeSlice } from '../../src/time_slice.js';
import { withLimits } from './support.js';

/*
 * The watches of a replica with fake streams and a fake clock, so that a test of timeouts does not wait.
 */

/** A stream whose reads are controlled by the test. */
class FakeSink implements Sink {
  closed = false;
  waitingSince: number | undefined;
  error: ServiceError | undefined;
  /** Every message that was written. */
  readonly written: string[] = [];
  private waiting = 0;
  private readonly resolvers: (() => void)[] = [];
  private readonly onClosed: (() => void)[] = [];

  constructor(
    private isReading = true,
    private readonly capacity = 16,
  ) {}

  write(bytes: Buffer): boolean {
    expect(this.closed).toBe(false);
    this.written.push(bytes.toString());
    if (this.isReading) return true;
    this.waiting++;
    this.waitingSince ??= performance.now();
    return this.waiting < this.capacity;
  }

  drained(): Promise<void> {
    if (this.waiting === 0 || this.closed) return Promise.resolve();
    return new Promise((resolve) => this.resolvers.push(resolve));
  }

  end(thrown: unknown): void {
    this.error = thrown as ServiceError;
    this.close();
  }

  onClose(callback: () => void): void {
    this.onClosed.push(callback);
  }

  /** Reads the given number of pending messages, by default all. */
  take(count = this.waiting): void {
    this.waiting -= Math.min(count, this.waiting);
    this.waitingSince = this.waiting > 0 ? performance.now() : undefined;
    if (this.waiting === 0) for (const resolve of this.resolvers.splice(0)) resolve();
  }

  stall(): void {
    this.isReading = false;
  }

  read(): void {
    this.isReading = true;
    this.take();
  }

  close(): void {
    this.closed = true;
    for (const resolve of this.resolvers.splice(0)) resolve();
    for (const callback of this.onClosed.splice(0)) callback();
  }
}

const encoder: MessageEncoder = {
  budgetStates: () => Buffer.from('budget states'),
  started: (_, resumed, revision) => Buffer.from(`started ${resumed ? 'again ' : ''}${revision}`),
  snapshot: ({ revision }) => [Buffer.from(`snapshot ${revision} 1`), Buffer.from(`snapshot ${revision} 2`)],
  changes: ({ revision, agents }, { all, names }) => {
    const watched = agents.filter(({ name }) => all || names.has(name));
    const [first] = watched;
    if (!first) return [];
    return first.name === 'big'
      ? [1, 2, 3].map((part) => Buffer.from(`part ${part} of ${revision}`))
      : [Buffer.from(`change ${revision}`)];
  },
  bookmark: (revision) => Buffer.from(`bookmark ${revision}`),
};

const ALL = filterOf(true, new Set(), new Set());
const named = (name: string): Filter => filterOf(false, new Set([name]), new Set());

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout', 'performance', 'Date'] });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function start(beforeDelivery: RevisionListener = {}) {
  // The database is unavailable.
  const knex = () => {
    throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' });
  };
  const store = new Store({ kind: 'embedded', knex } as unknown as Database);
  const watches = new Watches(store, encoder, beforeDelivery);
  let clients = 0;
  const open = (sink: FakeSink, filter = ALL, resumeAt?: { revision: number; nonce: string }) =>
    watches.open(filter, { client_id: `client ${clients++}`, client_name: '', client_version: '' }, sink, resumeAt);
  /** Writes an agent and returns the new revision. */
  const write = (name = 'an agent') => {
    const { state } = store;
    const revision = state.revision + 1;
    const id = state.agentNamed(name)?.id ?? state.agents.size + 1;
    const now = new Date();
    const row = { ...newAgent(), id, name, agent_type: 'x', revision, created_at: now, updated_at: now };
    const after = { ...row, chain_revision: 0 } as never;
    const before = state.agentNamed(name);
    const cause = { actor: '', method: '', reason: '', created_at: now };
    store.apply(state, {
      revision,
      nonce: `${revision}`,
      changes: [{ entity: 'agent', id, before, after }],
      cause,
    });
    return revision;
  };
  /** Runs the pending promises. */
  const settle = () => vi.advanceTimersByTimeAsync(0);
  return { store, watches, open, write, settle };
}

describe('a watch', () => {
  it('receives its snapshot and then each change immediately', async () => {
    const { open, write, settle } = start();
    const sink = new FakeSink();
    write();
    open(sink);
    await settle();
    expect(sink.written).toEqual(['started 1', 'snapshot 1 1', 'snapshot 1 2']);
    write();
    write();
    expect(sink.written.slice(3)).toEqual(['change 2', 'change 3']);
  });

  it('receives the changes that are written during its snapshot once, after the snapshot', async () => {
    const { open, write, settle } = start();
    const sink = new FakeSink(false);
    write();
    open(sink);
    write();
    await settle();
    sink.take();
    write();
    await settle();
    sink.read();
    await settle();
    write();
    await settle();
    expect(sink.written).toEqual([
      'started 1',
      'snapshot 1 1',
      'snapshot 1 2',
      'change 2',
      'change 3',
      'bookmark 3',
      'change 4',
    ]);
  });

  it('receives a bookmark every 10 s when no change concerns it', async () => {
    const { open, write, settle } = start();
    const sink = new FakeSink();
    open(sink, named('nobody'));
    await settle();
    sink.written.length = 0;
    const revision = write();
    await vi.advanceTimersByTimeAsync(limits.bookmarkPromiseMs);
    expect(sink.written).toEqual([`bookmark ${revision}`]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(sink.written.length).toBeGreaterThanOrEqual(5);
    expect(sink.error).toBeUndefined();
  });

  it('receives a bookmark of its position every 10 s when the log that it needs is unavailable', async () => {
    withLimits({ ringRevisions: 2 });
    const { open, write, settle, watches } = start();
    for (let at = 0; at < 10; at++) write();
    const sink = new FakeSink();
    open(sink, ALL, { revision: 3, nonce: '3' });
    await settle();
    expect(sink.written).toEqual(['started again 10']);
    await vi.advanceTimersByTimeAsync(35_000);
    expect(sink.written.slice(1)).toEqual(['bookmark 3', 'bookmark 3', 'bookmark 3']);
    expect([sink.error, watches.lagging]).toEqual([undefined, 1]);
    sink.close();
  });

  it('receives no bookmark before its first message when it waits to be started', async () => {
    const { open, write, settle } = start();
    for (let at = 0; at < 3; at++) write();
    let proceed = () => {};
    vi.spyOn(timeSlice, 'isSpent', 'get').mockReturnValueOnce(true);
    vi.spyOn(timeSlice, 'next').mockReturnValueOnce(
      new Promise((resolve) => {
        proceed = resolve;
      }),
    );
    const sink = new FakeSink();
    open(sink, ALL, { revision: 3, nonce: '3' });
    await vi.advanceTimersByTimeAsync(2 * limits.bookmarkMs);
    expect(sink.written).toEqual([]);
    proceed();
    await settle();
    expect(sink.written).toEqual(['started again 3', 'bookmark 3']);
  });

  it('queues at most the capacity of its stream, and delays no other watch, when it stops reading', async () => {
    const { open, write, settle, watches } = start();
    const [stalled, healthy] = [new FakeSink(), new FakeSink()];
    open(stalled);
    open(healthy);
    await settle();
    stalled.stall();
    for (let at = 0; at < 500; at++) write();
    expect(healthy.written.filter((one) => one.startsWith('change'))).toHaveLength(500);
    expect(stalled.written.filter((one) => one.startsWith('change'))).toHaveLength(16);
    expect(watches.lagging).toBe(1);
    // When it reads again, it receives every change.
    stalled.read();
    await settle();
    expect(stalled.written.filter((one) => one.startsWith('change'))).toEqual(
      healthy.written.filter((one) => one.startsWith('change')),
    );
    expect(watches.lagging).toBe(0);
  });

  it('receives a revision of several parts one part at a time', async () => {
    const { open, write, settle } = start();
    const sink = new FakeSink();
    open(sink);
    await settle();
    sink.stall();
    write('big');
    write();
    await settle();
    expect(sink.written.filter((one) => /part|change/.test(one))).toEqual(['part 1 of 1']);
    sink.take();
    await settle();
    sink.read();
    await settle();
    expect(sink.written.filter((one) => /part|change/.test(one))).toEqual([
      'part 1 of 1',
      'part 2 of 1',
      'part 3 of 1',
      'change 2',
    ]);
  });

  describe('of a client that reads slowly or not at all', () => {
    const reasonAfter = async (sink: FakeSink, ms: number) => {
      await vi.advanceTimersByTimeAsync(ms);
      return sink.error?.reason;
    };

    it.each([
      ['at its first message', 0],
      ['within its snapshot', 1],
    ])('ends with SLOW_CONSUMER after 60 s without a read %s', async (_, taken) => {
      const { open, write, settle, watches } = start();
      const sink = new FakeSink(false);
      write();
      open(sink);
      for (let at = 0; at < taken; at++) {
        await settle();
        sink.take();
      }
      await settle();
      expect(await reasonAfter(sink, 59_000)).toBeUndefined();
      expect(await reasonAfter(sink, 3_000)).toBe('SLOW_CONSUMER');
      expect(watches.count).toBe(0);
    });

    it.each([
      ['with many pending changes', 40],
      ['with a single pending change', 1],
    ])('ends with SLOW_CONSUMER after 60 s without a read %s', async (_, changes) => {
      const { open, write, settle, watches } = start();
      const [stalled, healthy] = [new FakeSink(), new FakeSink()];
      open(stalled);
      open(healthy);
      await settle();
      stalled.stall();
      for (let at = 0; at < changes; at++) write();
      expect(await reasonAfter(stalled, 59_000)).toBeUndefined();
      expect(await reasonAfter(stalled, 3_000)).toBe('SLOW_CONSUMER');
      expect(healthy.error).toBeUndefined();
      expect(watches.count).toBe(1);
      write();
      expect(stalled.written.filter((one) => one.startsWith('change')).length).toBeLessThanOrEqual(16);
    });

    it('stays open when the client reads one message every 50 s', async () => {
      const { open, write, settle } = start();
      const sink = new FakeSink();
      open(sink);
      await settle();
      sink.stall();
      for (let at = 0; at < 100; at++) write();
      for (let at = 0; at < 10; at++) {
        await vi.advanceTimersByTimeAsync(50_000);
        sink.take(1);
      }
      expect(sink.error).toBeUndefined();
    });

    it('stays open when no message is pending', async () => {
      const { open, settle } = start();
      const sink = new FakeSink();
      open(sink);
      await settle();
      await vi.advanceTimersByTimeAsync(600_000);
      expect(sink.error).toBeUndefined();
    });
  });

  it.each(['applied', 'replaced'] as const)('ends when the step before the delivery fails: %s', async (step) => {
    const failure = new Error('the step failed');
    const fail = () => {
      throw failure;
    };
    const { open, write, settle, store, watches } = start({ [step]: fail });
    const sink = new FakeSink();
    open(sink);
    await settle();
    if (step === 'applied') write();
    else expect(() => store.replaceState(new State())).toThrow(failure);
    expect(sink.written).toEqual(['started 0', 'snapshot 0 1', 'snapshot 0 2']);
    expect(sink.error).toEqual(step === 'applied' ? failure : expect.objectContaining({ reason: 'STORE_CHANGED' }));
    expect(watches.count).toBe(0);
  });

  it('is removed and not written to when its client has disconnected', async () => {
    const { open, write, settle, watches } = start();
    const sinks = [new FakeSink(), new FakeSink(false), new FakeSink()];
    for (const sink of sinks) open(sink);
    await settle();
    for (const sink of sinks) sink.close();
    await settle();
    expect([watches.count, watches.lagging]).toEqual([0, 0]);
    write();
    await vi.advanceTimersByTimeAsync(30_000);
  });

  it('has its place from its reservation on, and takes no second place when it is opened', async () => {
    withLimits({ maxWatches: 2 });
    const { open, watches } = start();
    const [first, second, third] = [new FakeSink(), new FakeSink(), new FakeSink()];
    const release = watches.reserve(first);
    open(second);
    const full = expect.objectContaining({ reason: 'TOO_MANY_WATCHES', metadata: { watches: '2' } });
    expect(() => watches.reserve(third)).toThrow(full);
    expect(() => open(third)).toThrow(full);
    open(first);
    release();
    expect(watches.count).toBe(2);
    expect(() => open(third)).toThrow(full);
    second.close();
    const releaseThird = watches.reserve(third);
    releaseThird();
    open(new FakeSink());
  });

  it('is ended when the server shuts down between its reservation and its opening', () => {
    const { open, watches } = start();
    const sink = new FakeSink();
    watches.reserve(sink);
    watches.close(() => ServiceError.of('SERVER_SHUTTING_DOWN', {}));
    expect(sink.error?.reason).toBe('SERVER_SHUTTING_DOWN');
    expect(() => open(sink)).toThrow(expect.objectContaining({ reason: 'SERVER_SHUTTING_DOWN' }));
    expect(() => watches.reserve(new FakeSink())).toThrow(expect.objectContaining({ reason: 'SERVER_SHUTTING_DOWN' }));
  });

  it('is rejected beyond the limit, and accepted when another watch has ended', async () => {
    withLimits({ maxWatches: 2 });
    const { open, watches } = start();
    const first = new FakeSink();
    open(first);
    open(new FakeSink());
    expect(() => open(new FakeSink())).toThrow(expect.objectContaining({ reason: 'TOO_MANY_WATCHES' }));
    expect(watches.count).toBe(2);
    first.close();
    open(new FakeSink());
  });

  it('is ended with its own error when the server shuts down, and a later one is rejected', async () => {
    const { open, settle, watches } = start();
    const sinks = [new FakeSink(), new FakeSink(false), new FakeSink()];
    for (const sink of sinks) open(sink);
    await settle();
    let errors = 0;
    watches.close(() => ServiceError.of('SERVER_SHUTTING_DOWN', {}, { retryAfterMs: ++errors }));
    expect(sinks.map(({ error }) => error?.retryAfterMs)).toEqual([1, 2, 3]);
    expect(() => open(new FakeSink())).toThrow(expect.objectContaining({ reason: 'SERVER_SHUTTING_DOWN' }));
  });
});
