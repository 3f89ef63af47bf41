import { setTimeout as delay } from 'node:timers/promises';
import { onAbort } from '../abort.js';
import type { Clock as EngineClock } from '../client/runtime/clock.js';
import { type Clock as ProviderClock, VirtualClock } from '../fake_provider/clock.js';

/** How often the event loop must turn without a change before the time advances, and the least real time for it in ms. */
const QUIET_TURNS = 25;
const QUIET_MS = 2;
/** Real time without a change after which the time advances in any case, so that a rehearsal cannot hang. */
const STUCK_MS = 5_000;

/**
 * The time of a rehearsal, which the chain and the fake provider share. It stands still while they work and jumps to the
 * next timer when both wait for one, so that a backoff of seconds and a timeout of minutes take milliseconds.
 */
export class VirtualTime {
  private readonly clock = new VirtualClock(Date.now());
  /** Timers of the fake provider, and attempts that wait for a response. */
  private providerTimers = 0;
  private attempts = 0;
  /** Counts what happens, to notice that nothing does. */
  private changes = 0;

  /** The clock of the chain. */
  readonly engine: EngineClock = {
    now: () => this.clock.now(),
    date: () => new Date(this.clock.now()),
    after: (ms, callback) => this.schedule(ms, callback),
  };

  /** The clock of the fake provider. */
  readonly provider: ProviderClock = {
    now: () => this.clock.now(),
    schedule: (ms, callback) => {
      const ended = this.counted('providerTimers');
      const cancel = this.schedule(ms, () => {
        ended();
        callback();
      });
      return () => {
        ended();
        cancel();
      };
    },
  };

  /** Counts an attempt until its end: the returned function, or the signal. */
  attempt(signal: AbortSignal): () => void {
    const ended = this.counted('attempts');
    onAbort(signal, ended);
    return ended;
  }

  /** Runs work to its end and lets the time pass that it takes. */
  async run<T>(work: Promise<T>): Promise<T> {
    let isDone = false;
    const done = () => {
      isDone = true;
    };
    work.then(done, done);
    while (!isDone) {
      await this.quiet(() => isDone);
      const next = this.clock.untilNext;
      if (!isDone && next !== undefined) this.clock.advance(next);
    }
    return work;
  }

  private schedule(ms: number, callback: () => void): () => void {
    this.changes++;
    const cancel = this.clock.schedule(ms, () => {
      this.changes++;
      callback();
    });
    return () => {
      this.changes++;
      cancel();
    };
  }

  /** Adds one to a number; the returned function subtracts it once. */
  private counted(of: 'providerTimers' | 'attempts'): () => void {
    this[of]++;
    let isCounted = true;
    return () => {
      if (!isCounted) return;
      isCounted = false;
      this[of]--;
      this.changes++;
    };
  }

  /**
   * Waits until nothing but a timer can continue the work: no attempt waits, or the fake provider does. What was sent over
   * the loopback interface arrives within a few turns of the event loop.
   */
  private async quiet(isDone: () => boolean): Promise<void> {
    const start = performance.now();
    for (;;) {
      const { changes } = this;
      await delay(QUIET_MS);
      for (let turn = 0; turn < QUIET_TURNS && changes === this.changes; turn++) await new Promise(setImmediate);
      if (isDone()) return;
      if (changes !== this.changes) continue;
      if (this.attempts === 0 || this.providerTimers > 0 || performance.now() - start > STUCK_MS) return;
    }
  }
}
