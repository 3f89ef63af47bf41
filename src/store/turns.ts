import { ServiceError } from '../errors.js';

/**
 * Lets so many writes at a time near the database and keeps the others in line.
 * They would only wait for the counter row there, each holding a connection that
 * the feed and the other calls need.
 */
export class Turns {
  private running = 0;
  private readonly waiting: (() => void)[] = [];

  constructor(
    private readonly limit: number,
    private readonly longestWaitMs: number,
  ) {}

  /** Does the work when its turn comes; a caller who gives up meanwhile leaves the line and nothing is done. */
  async take<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    await this.enter(signal);
    try {
      signal?.throwIfAborted();
      return await work();
    } finally {
      this.leave();
    }
  }

  private enter(signal: AbortSignal | undefined): Promise<void> {
    if (this.running < this.limit) {
      this.running++;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const settle = (done: () => void) => () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', giveUp);
        const at = this.waiting.indexOf(next);
        if (at >= 0) this.waiting.splice(at, 1);
        done();
      };
      const next = settle(resolve);
      const giveUp = settle(() => reject(signal?.reason));
      const timer = setTimeout(
        settle(() => reject(ServiceError.of('WRITE_CONFLICT', {}))),
        this.longestWaitMs,
      );
      signal?.addEventListener('abort', giveUp);
      this.waiting.push(next);
    });
  }

  /** Hands the place on: `running` only falls when nobody waits for it. */
  private leave(): void {
    const next = this.waiting.shift();
    if (next) next();
    else this.running--;
  }
}
