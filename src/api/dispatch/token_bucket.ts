import { ServiceError } from '../../errors.js';

/** Lets so many through in a minute, and so many of them at once. */
export class TokenBucket {
  private left: number;
  private last = performance.now();

  constructor(
    readonly perMinute: number,
    private readonly atOnce = perMinute,
  ) {
    this.left = atOnce;
  }

  /** Whether one more may pass now. */
  take(): boolean {
    const now = performance.now();
    this.left = Math.min(this.atOnce, this.left + ((now - this.last) / 60_000) * this.perMinute);
    this.last = now;
    if (this.left < 1) return false;
    this.left -= 1;
    return true;
  }
}

/** Refuses what would ask providers more often than they and we like. */
export function passRate(rate: TokenBucket): void {
  if (!rate.take()) throw ServiceError.of('TOO_MANY_CHECKS', { checks: String(rate.perMinute) });
}
