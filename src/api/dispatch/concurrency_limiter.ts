import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';

/** Bounds the number of concurrent calls, in total and per token, and rejects all calls once the server drains. */
export class ConcurrencyLimiter {
  private running = 0;
  /** The running calls of each token, by the id of its row. */
  private readonly counts = new Map<number, number>();
  private draining = false;
  private onEmpty: (() => void) | undefined;

  /** Throws if the server drains. Streams call only this method, because they have a separate limit. */
  checkOpen(): void {
    if (this.draining) throw ServiceError.of('SERVER_SHUTTING_DOWN', {});
  }

  /**
   * Admits a call; throws if there is no room. @param token the id of its token, which has a limit too; undefined:
   * none.
   */
  enter(token: number | undefined): void {
    this.checkOpen();
    const ofToken = token === undefined ? 0 : (this.counts.get(token) ?? 0);
    if (this.running >= limits.maxConcurrentCalls || ofToken >= limits.callsPerToken)
      throw ServiceError.of('TOO_MANY_CALLS', { calls: String(Math.max(ofToken, this.running)) });
    this.running++;
    if (token !== undefined) this.counts.set(token, ofToken + 1);
  }

  leave(token: number | undefined): void {
    this.running--;
    const ofToken = token === undefined ? 0 : (this.counts.get(token) ?? 0);
    if (token !== undefined && ofToken > 1) this.counts.set(token, ofToken - 1);
    else if (token !== undefined) this.counts.delete(token);
    if (this.draining && this.running === 0) this.onEmpty?.();
  }

  /** Rejects new calls; resolves when all running calls have ended. */
  drain(): Promise<void> {
    this.draining = true;
    if (this.running === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.onEmpty = resolve;
    });
  }
}
