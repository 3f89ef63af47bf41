import { onAbort } from '../abort.js';

/** Limits the number of concurrent holders. Waiters acquire it in the order of their calls. */
export class Semaphore {
  #free: number;
  /** A set keeps the order of insertion. */
  readonly #waiting = new Set<() => void>();

  constructor(slots: number) {
    this.#free = slots;
  }

  /** Waits for a free slot, which `release` frees again; rejects with the reason of the signal when it aborts first. */
  async acquire(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free--;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const go = () => {
        release();
        resolve();
      };
      const release = onAbort(signal, () => {
        this.#waiting.delete(go);
        reject(signal.reason);
      });
      this.#waiting.add(go);
    });
  }

  /** Frees a slot, or passes it to the caller that has waited longest. */
  release(): void {
    const [next] = this.#waiting;
    if (!next) this.#free++;
    else {
      this.#waiting.delete(next);
      next();
    }
  }
}
