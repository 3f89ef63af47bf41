/** How long loops work in one turn of the event loop, in ms: what other callers wait for them. */
const SLICE_MS = 5;

/**
 * The share of the event loop that long loops have. An `await` of something that is resolved already does not give the
 * event loop a turn: such a loop stalls every caller until it ends. A loop whose length a caller decides therefore asks
 * `isSpent` before each step and awaits `next()` when it is. All loops of the process share one slice per turn and are
 * resumed in the order in which they began to wait.
 */
class TimeSlice {
  private began: number | undefined;
  private readonly waiting: (() => void)[] = [];

  /** Whether the loops have used up their share of this turn of the event loop. */
  get isSpent(): boolean {
    const now = performance.now();
    if (this.began !== undefined) return now - this.began >= SLICE_MS;
    this.began = now;
    setImmediate(this.turn);
    return false;
  }

  /** Resolves in a later turn of the event loop, after the loops that wait already. */
  next(): Promise<void> {
    // Begins a slice where there is none, and with it the turn that ends it.
    void this.isSpent;
    return new Promise((resolve) => void this.waiting.push(resolve));
  }

  /** Resumes one loop in each turn: what it does first runs in later microtasks, so how long it takes is not known yet. */
  private readonly turn = (): void => {
    this.began = undefined;
    const resume = this.waiting.shift();
    if (!resume) return;
    void this.isSpent;
    resume();
  };
}

export const timeSlice = new TimeSlice();

/** The items of a loop that yields to other work, and that ends as soon as `isOver` holds. */
export async function* inSlices<T>(items: Iterable<T>, isOver: () => boolean = () => false): AsyncGenerator<T> {
  for (const item of items) {
    if (timeSlice.isSpent) await timeSlice.next();
    if (isOver()) return;
    yield item;
  }
}
