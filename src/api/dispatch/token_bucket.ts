import { ServiceError } from '../../errors.js';

/** Limits a rate: `perMinute` events per minute, and a burst of at most `burst` events. */
export class TokenBucket {
  private available: number;
  private last = performance.now();

  constructor(
    readonly perMinute: number,
    private readonly burst = perMinute,
  ) {
    this.available = burst;
  }

  /** Takes one event; returns false if the limit is reached. */
  take(): boolean {
    const now = performance.now();
    this.available = Math.min(this.burst, this.available + ((now - this.last) / 60_000) * this.perMinute);
    this.last = now;
    if (this.available < 1) return false;
    this.available -= 1;
    return true;
  }
}

/** Takes one provider check; throws TOO_MANY_CHECKS if the limit is reached. */
export function takeCheck(bucket: TokenBucket): void {
  if (!bucket.take()) throw ServiceError.of('TOO_MANY_CHECKS', { checks: String(bucket.perMinute) });
}
