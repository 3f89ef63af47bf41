import { describe, expect, it } from 'vitest';
import { systemClock, VirtualClock } from '../../src/fake_provider/clock.js';

describe('VirtualClock', () => {
  it('runs timers in the order of their times, at their times', () => {
    const clock = new VirtualClock(0);
    const ran: string[] = [];
    for (const [name, ms] of [
      ['c', 30],
      ['a', 10],
      ['b', 10],
      ['late', 100],
    ] as const)
      clock.schedule(ms, () => ran.push(`${name} ${clock.now()}`));
    clock.advance(50);
    expect(ran).toEqual(['a 10', 'b 10', 'c 30']);
    expect([clock.now(), clock.untilNext]).toEqual([50, 50]);
  });

  it('runs timers that other timers start, when they become due in the same advance', () => {
    const clock = new VirtualClock(0);
    const ran: number[] = [];
    clock.schedule(10, () => clock.schedule(10, () => ran.push(clock.now())));
    clock.advance(19);
    expect(ran).toEqual([]);
    clock.advance(1);
    expect(ran).toEqual([20]);
  });

  it('does not run a cancelled timer', () => {
    const clock = new VirtualClock(0);
    const ran: string[] = [];
    const cancel = clock.schedule(10, () => ran.push('cancelled'));
    clock.schedule(10, () => ran.push('kept'));
    cancel();
    clock.advance(10);
    expect(ran).toEqual(['kept']);
    expect(clock.untilNext).toBeUndefined();
  });
});

describe('systemClock', () => {
  it('calls back after the time, unless it is cancelled', async () => {
    const ran: string[] = [];
    const cancel = systemClock.schedule(1, () => ran.push('cancelled'));
    cancel();
    await new Promise<void>((resolve) => {
      systemClock.schedule(5, () => {
        ran.push('kept');
        resolve();
      });
    });
    expect(ran).toEqual(['kept']);
  });
});
