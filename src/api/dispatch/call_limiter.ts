import { ConcurrencyLimiter } from '../../concurrency_limiter.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';

/** Admits calls as long as there is room, and none once the server drains. */
export class CallLimiter {
  private readonly calls = new ConcurrencyLimiter({
    total: () => limits.maxConcurrentCalls,
    perKey: () => limits.callsPerToken,
  });
  private draining = false;
  private onEmpty: (() => void) | undefined;

  /** Throws once the server drains: for streams, which have a limit of their own. */
  checkOpen(): void {
    if (this.draining) throw ServiceError.of('SERVER_SHUTTING_DOWN', {});
  }

  /** @param token the id of the caller's token, whose calls are bounded too; undefined for a caller without a token. */
  enter(token: number | undefined): void {
    this.checkOpen();
    this.calls.enter(token, tooManyCalls);
  }

  leave(token: number | undefined): void {
    this.calls.leave(token);
    if (this.draining && this.calls.count === 0) this.onEmpty?.();
  }

  /** Rejects further calls; resolves when the calls in progress have ended. */
  drain(): Promise<void> {
    this.draining = true;
    if (this.calls.count === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.onEmpty = resolve;
    });
  }
}

const tooManyCalls = (_: number, total: number) => ServiceError.of('TOO_MANY_CALLS', { calls: String(total) });
