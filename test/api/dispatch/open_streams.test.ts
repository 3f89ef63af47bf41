import { expect, it, onTestFinished, vi } from 'vitest';
import { OpenStreams } from '../../../src/api/dispatch/open_streams.js';
import { anonymous } from '../../../src/domain/access.js';
import type { Sink } from '../../../src/feed/watch.js';

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
