import { ConcurrencyLimiter, type Refusal } from '../../concurrency_limiter.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';

/** Admits calls up to the concurrency limits, and none after the server has begun to shut down. */
export class CallLimiter {
  private readonly calls = new ConcurrencyLimiter({
    total: () => limits.maxConcurrentCalls,
    perKey: () => limits.callsPerToken,
  });
  private draining = false;
  private readonly drainListeners = new Set<() => void>();
  private onEmpty: (() => void) | undefined;

  /** Throws if the server shuts down. Streams need only this check, because they have a separate limit. */
  checkOpen(): void {
    if (this.draining) throw ServiceError.of('SERVER_SHUTTING_DOWN', {});
  }

  /**
   * @param token the id of the caller's token, whose concurrent calls have a separate limit; undefined for a caller
   * without a token.
   */
  enter(token: number | undefined): void {
    this.checkOpen();
    this.calls.enter(token, tooManyCalls);
  }

  leave(token: number | undefined): void {
    this.calls.leave(token);
    if (this.draining && this.calls.count === 0) this.onEmpty?.();
  }

  /**
   * Calls `callback` when the server begins to shut down, so that endless streams can end.
   * @returns a function that removes the callback.
   */
  onDrain(callback: () => void): () => void {
    this.drainListeners.add(callback);
    return () => this.drainListeners.delete(callback);
  }

  /** Rejects further calls; resolves when the calls in progress have ended. */
  drain(): Promise<void> {
    this.draining = true;
    for (const callback of this.drainListeners) callback();
    if (this.calls.count === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.onEmpty = resolve;
    });
  }
}

const tooManyCalls: Refusal = (count, scope) =>
  ServiceError.of('TOO_MANY_CALLS', { calls: String(count), ...(scope === 'key' && { scope: 'token' }) });
