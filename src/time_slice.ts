/** How long loops run in one turn of the event loop, in ms; other callers wait for this time. */
const SLICE_MS = 5;
/** Maximum number of loops that are resumed in one turn, in addition to the first. */
const MAX_RESUMED = 100;

/**
 * Limits the share of the event loop that long loops use. An `await` of a resolved promise does not yield to the event
 * loop, so such a loop stalls every caller until it ends. A loop whose length a caller determines therefore checks
 * `isSpent` before each step, and awaits `next()` if it is true. All loops of the process share one slice per turn and
 * are resumed in the order in which they began to wait.
 */
class TimeSlice {
  private startedAt: number | undefined;
  private readonly waiting: (() => void)[] = [];

  /** Whether the loops have used up their share of this turn of the event loop. */
  get isSpent(): boolean {
    const now = performance.now();
    if (this.startedAt !== undefined) return now - this.startedAt >= SLICE_MS;
    this.startedAt = now;
    setImmediate(this.turn);
    return false;
  }

  /** Resolves in a later turn of the event loop, after the loops that already wait. */
  next(): Promise<void> {
    // Reading `isSpent` starts a slice if there is none, and schedules the turn that ends the slice.
    void this.isSpent;
    return new Promise((resolve) => void this.waiting.push(resolve));
  }

  /**
   * Starts a new slice and resumes the loops that wait, each in an immediate of its own: Node runs the microtasks of
   * one before the next, so `isSpent` sees how long a resumed step took. With one loop per turn, 1 000 watches waited
   * for seconds.
   */
  private readonly turn = (): void => {
    this.startedAt = undefined;
    if (this.waiting.length === 0) return;
    void this.isSpent;
    this.waiting.shift()?.();
    for (let remaining = Math.min(this.waiting.length, MAX_RESUMED); remaining > 0; remaining--)
      setImmediate(this.resume);
  };

  private readonly resume = (): void => {
    if (this.waiting.length > 0 && !this.isSpent) this.waiting.shift()?.();
  };
}

export const timeSlice = new TimeSlice();

/** Iterates over items and yields to other work between them; ends as soon as `isOver` returns true. */
export async function* inSlices<T>(items: Iterable<T>, isOver: () => boolean = () => false): AsyncGenerator<T> {
  for (const item of items) {
    if (timeSlice.isSpent) await timeSlice.next();
    if (isOver()) return;
    yield item;
  }
}
