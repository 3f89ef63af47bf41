/** Bounds of the pause before another attempt. */
const LEAST_MS = 100;
export const LONGEST_MS = 5_000;
/** A service that asks for a longer pause is not believed: it may be something else that answers. */
const MOST_ASKED_MS = 60_000;

/**
 * Pauses before attempts: each a random time up to a bound that doubles with every failure, so that many clients that
 * lost the same service do not come back in step.
 */
export class Backoff {
  private failures = 0;

  /** In ms. @param askedMs the least that the service asks for. */
  next(askedMs = 0): number {
    const bound = Math.min(LONGEST_MS, 2 * LEAST_MS * 2 ** this.failures);
    this.failures = Math.min(this.failures + 1, 10);
    const pause = LEAST_MS + Math.random() * (bound - LEAST_MS);
    return Math.max(pause, Math.min(askedMs, MOST_ASKED_MS));
  }

  /** For what time alone will not mend. */
  longest(): number {
    return LONGEST_MS * (0.8 + 0.2 * Math.random());
  }

  reset(): void {
    this.failures = 0;
  }
}
