/** Bounds of the pause before a retry. */
const MIN_MS = 100;
export const MAX_MS = 5_000;
/** Upper bound of the pause that a service can request; a longer one is probably not from an agentllm service. */
const MAX_RETRY_AFTER_MS = 60_000;

/**
 * Exponential backoff with jitter: each pause is a random time up to a bound that doubles with every failure, so that
 * many clients of the same service do not reconnect simultaneously.
 */
export class Backoff {
  private failures = 0;

  /** The next pause in ms. @param retryAfterMs the minimum that the service requests. */
  next(retryAfterMs = 0): number {
    const bound = Math.min(MAX_MS, 2 * MIN_MS * 2 ** this.failures);
    this.failures = Math.min(this.failures + 1, 10);
    const pause = MIN_MS + Math.random() * (bound - MIN_MS);
    return Math.max(pause, Math.min(retryAfterMs, MAX_RETRY_AFTER_MS));
  }

  /** The pause in ms after a failure that persists until someone changes the configuration. */
  longest(): number {
    return MAX_MS * (0.8 + 0.2 * Math.random());
  }

  reset(): void {
    this.failures = 0;
  }
}
