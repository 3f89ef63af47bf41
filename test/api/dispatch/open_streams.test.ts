import { expect, it, onTestFinished, vi } from 'vitest';
import { OpenStreams } from '../../../src/api/dispatch/open_streams.js';
import { anonymous, type Principal } from '../../../src/domain/access.js';
import type { Sink } from '../../../src/feed/watch.js';
import { limits } from '../../../src/limits.js';
import type { CommittedRevision } from '../../../src/store/replica_state.js';

it('an open stream ends within a second after its token has expired', () => {
  vi.useFakeTimers();
  const streams = new OpenStreams();
  onTestFinished(() => {
    streams.close();
    vi.useRealTimers();
  });
  const sink = { onClose: () => undefined, end: vi.fn() };
  let expired = false;
  const caller = () => {
    if (expired) throw new Error('expired');
  };
  streams.add(sink as unknown as Sink, anonymous, { caller, agents: () => undefined });
  vi.advanceTimersByTime(10_000);
  expect(sink.end).not.toHaveBeenCalled();
  expired = true;
  vi.advanceTimersByTime(1_000);
  expect(sink.end).toHaveBeenCalledWith(new Error('expired'));
});

/** Open streams of one caller, with the checks that have been made. */
function openStream() {
  const streams = new OpenStreams();
  onTestFinished(() => streams.close());
  const sink = { onClose: () => undefined, end: vi.fn() };
  const checks = { caller: vi.fn(), agents: vi.fn() };
  streams.add(sink as unknown as Sink, anonymous, checks);
  const made = () => Object.entries(checks).flatMap(([name, check]) => check.mock.calls.map(() => name));
  return { streams, sink, checks, made };
}

const revisionWith = (...changes: object[]) => ({ changes }) as unknown as CommittedRevision;
const renamed = { entity: 'agent', before: { name: 'a' }, after: { name: 'b' } };

it.each([
  ['a token changes', revisionWith({ entity: 'token' }), ['caller']],
  ['an agent is renamed', revisionWith(renamed), ['agents']],
  ['an agent is created', revisionWith({ entity: 'agent', before: null, after: { name: 'b' } }), ['agents']],
  ['an agent is deleted', revisionWith({ entity: 'agent', before: { name: 'a' }, after: null }), ['agents']],
  ['both happen in one revision', revisionWith(renamed, { entity: 'token' }), ['caller', 'agents']],
  ['an agent keeps its name', revisionWith({ entity: 'agent', before: { name: 'a' }, after: { name: 'a' } }), []],
  ['a config changes', revisionWith({ entity: 'config' }), []],
])('an open stream is checked when %s', (_, revision, expected) => {
  const { streams, made } = openStream();
  streams.applied(revision);
  expect(made()).toEqual(expected);
});

it.each(['caller', 'agents'] as const)(
  'an open stream ends when the %s check fails after a reload of the state',
  (name) => {
    const { streams, sink, checks } = openStream();
    checks[name].mockImplementation(() => {
      throw new Error('lost access');
    });
    streams.replaced();
    expect(sink.end).toHaveBeenCalledWith(new Error('lost access'));
  },
);

it('an open stream releases the place of its token exactly once when it closes', () => {
  const streams = new OpenStreams();
  onTestFinished(() => streams.close());
  const principal = { ...anonymous, token: { id: 7 } } as unknown as Principal;
  const checks = { caller: () => undefined, agents: () => undefined };
  const closers: (() => void)[] = [];
  const add = () =>
    streams.add(
      { onClose: (close: () => void) => closers.push(close), end: vi.fn() } as unknown as Sink,
      principal,
      checks,
    );
  for (let opened = 0; opened < limits.streamsPerToken; opened++) add();
  expect(add).toThrow(expect.objectContaining({ reason: 'TOO_MANY_WATCHES' }));
  closers[0]?.();
  add();
  expect(add).toThrow(expect.objectContaining({ reason: 'TOO_MANY_WATCHES' }));
});
