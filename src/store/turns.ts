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

  async take<T>(work: () => Promise<T>): Promise<T> {
    await this.enter();
    try {
      return await work();
    } finally {
      this.leave();
    }
  }

  private enter(): Promise<void> {
    if (this.running < this.limit) {
      this.running++;
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const next = () => {
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(() => {
        this.waiting.splice(this.waiting.indexOf(next), 1);
        reject(ServiceError.of('WRITE_CONFLICT', {}));
      }, this.longestWaitMs);
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
