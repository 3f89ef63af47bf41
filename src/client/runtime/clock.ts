import { limits } from '../../limits.js';

/** The time source of the runtime; tests inject one that they advance themselves. */
export interface Clock {
  /** Milliseconds since an arbitrary start; never goes back. */
  now(): number;
  /** The time of day. */
  date(): Date;
  /** Calls `callback` once after `ms`. The returned function cancels it. */
  after(ms: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  date: () => new Date(),
  after(ms, callback) {
    const timer = setTimeout(callback, Math.min(ms, limits.maxTimerMs));
    return () => clearTimeout(timer);
  },
};

/** Like the system clock, but its timers do not keep the process alive. */
export const backgroundClock: Clock = {
  ...systemClock,
  after(ms, callback) {
    const timer = setTimeout(callback, Math.min(ms, limits.maxTimerMs)).unref();
    return () => clearTimeout(timer);
  },
};
