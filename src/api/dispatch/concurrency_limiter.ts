import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';

/** Lets calls in as long as there is room, and none once the server drains. */
export class ConcurrencyLimiter {
  private running = 0;
  /** Those of each token, by the id of its row. */
  private readonly counts = new Map<number, number>();
  private draining = false;
  private onEmpty: (() => void) | undefined;

  /** Throws when nobody is let in any more: for streams, which have a limit of their own. */
  checkOpen(): void {
    if (this.draining) throw ServiceError.of('SERVER_SHUTTING_DOWN', {});
  }

  /** @param token one may not take the place of all others; undefined: nobody in particular calls. */
  enter(token: number | undefined): void {
    this.checkOpen();
    const own = token === undefined ? 0 : (this.counts.get(token) ?? 0);
    if (this.running >= limits.maxConcurrentCalls || own >= limits.callsPerToken)
      throw ServiceError.of('TOO_MANY_CALLS', { calls: String(Math.max(own, this.running)) });
    this.running++;
    if (token !== undefined) this.counts.set(token, own + 1);
  }

  leave(token: number | undefined): void {
    this.running--;
    const own = token === undefined ? 0 : (this.counts.get(token) ?? 0);
    if (token !== undefined && own > 1) this.counts.set(token, own - 1);
    else if (token !== undefined) this.counts.delete(token);
    if (this.draining && this.running === 0) this.onEmpty?.();
  }

  /** Lets nobody in any more; resolves when everybody is out. */
  drain(): Promise<void> {
    this.draining = true;
    if (this.running === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.onEmpty = resolve;
    });
  }
}
