import { describe, expect, it } from 'vitest';
import { AttemptTimers, type TimerLimits } from '../../../src/client/runtime/attempt_timers.js';
import type { Clock } from '../../../src/client/runtime/clock.js';

/** A clock that runs only when a test advances it. */
class ManualClock implements Clock {
  private time = 0;
  private readonly timers = new Map<object, { readonly at: number; readonly callback: () => void }>();

  now(): number {
    return this.time;
  }

  date(): Date {
    return new Date(this.time);
  }

  after(ms: number, callback: () => void): () => void {
    const key = {};
    this.timers.set(key, { at: this.time + ms, callback });
    return () => this.timers.delete(key);
  }

  advance(ms: number): void {
    this.time += ms;
    for (const [key, { at, callback }] of this.timers)
      if (at <= this.time) {
        this.timers.delete(key);
        callback();
      }
  }

  get pending(): number {
    return this.timers.size;
  }
}

function started(limits: Partial<TimerLimits>, isStream = true) {
  const clock = new ManualClock();
  const expired: string[] = [];
  const none = { firstTokenMs: undefined, idleMs: undefined, totalMs: undefined };
  const timers = new AttemptTimers(clock, { ...none, ...limits }, (reason) => expired.push(reason));
  timers.start(isStream);
  return { clock, expired, timers };
}

describe('AttemptTimers', () => {
  it('expire without content within the first-token limit, and not after the first content', () => {
    const late = started({ firstTokenMs: 100 });
    late.clock.advance(100);
    expect(late.expired).toEqual(['no content within 100 ms']);
    const early = started({ firstTokenMs: 100 });
    early.timers.content();
    early.clock.advance(1000);
    expect(early.expired).toEqual([]);
  });

  it('have no first-token limit for a call without a stream', () => {
    const { clock, expired } = started({ firstTokenMs: 100 }, false);
    clock.advance(1000);
    expect(expired).toEqual([]);
  });

  it('expire when the waits without content together exceed the idle limit', () => {
    const { clock, expired, timers } = started({ idleMs: 100 });
    timers.content();
    // Three pings, each after a wait.
    for (let ping = 0; ping < 3; ping++) {
      timers.wait();
      clock.advance(30);
      timers.resume();
      clock.advance(500);
    }
    expect(expired).toEqual([]);
    timers.wait();
    clock.advance(10);
    expect(expired).toEqual(['no further content within 100 ms']);
  });

  it('begin a new idle limit with each content', () => {
    const { clock, expired, timers } = started({ idleMs: 100 });
    for (let part = 0; part < 5; part++) {
      timers.content();
      timers.wait();
      clock.advance(90);
      timers.resume();
    }
    expect(expired).toEqual([]);
  });

  it('measure the idle time from the last content, not from the start of their timer', () => {
    const { clock, expired, timers } = started({ idleMs: 100 });
    timers.content();
    timers.wait();
    clock.advance(60);
    timers.resume();
    timers.content();
    timers.wait();
    clock.advance(90);
    expect(expired).toEqual([]);
    clock.advance(10);
    expect(expired).toEqual(['no further content within 100 ms']);
  });

  it('expire at the total limit whatever arrives, and never after they are stopped', () => {
    const { clock, expired, timers } = started({ totalMs: 100, idleMs: 500 });
    timers.content();
    clock.advance(100);
    expect(expired).toEqual(['no complete response within 100 ms']);
    const stopped = started({ totalMs: 100, firstTokenMs: 50, idleMs: 50 });
    stopped.timers.content();
    stopped.timers.stop();
    stopped.timers.wait();
    stopped.clock.advance(1000);
    expect(stopped.expired).toEqual([]);
    expect(stopped.clock.pending).toBe(0);
  });
});
