import { limits } from '../limits.js';

/** A source of time and timers. Tests replace it, so that they do not wait. */
export interface Clock {
  /** The current time in ms since 1970. */
  now(): number;
  /** Calls `callback` once after `ms`; the returned function cancels it. */
  schedule(ms: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  schedule(ms, callback) {
    const timer = setTimeout(callback, Math.min(ms, limits.maxTimerMs));
    return () => clearTimeout(timer);
  },
};

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

/** A clock that stands still until a test advances it. */
export class VirtualClock implements Clock {
  private timers: Timer[] = [];

  /** @param time the time at the start, in ms since 1970. */
  constructor(private time: number = Date.UTC(2026, 0, 1)) {}

  now(): number {
    return this.time;
  }

  schedule(ms: number, callback: () => void): () => void {
    const timer = { at: this.time + Math.max(0, ms), callback };
    // Timers with the same time run in the order in which they were started.
    const later = this.timers.findIndex(({ at }) => at > timer.at);
    this.timers.splice(later < 0 ? this.timers.length : later, 0, timer);
    return () => {
      this.timers = this.timers.filter((one) => one !== timer);
    };
  }

  /** How long it is until the next timer, in ms; undefined: there is none. */
  get untilNext(): number | undefined {
    const [next] = this.timers;
    return next && next.at - this.time;
  }

  /** Advances the time by `ms` and runs the timers that become due, including those that they start, in order. */
  advance(ms: number): void {
    const end = this.time + ms;
    for (let next = this.timers[0]; next && next.at <= end; next = this.timers[0]) {
      this.timers.shift();
      this.time = next.at;
      next.callback();
    }
    this.time = end;
  }
}
