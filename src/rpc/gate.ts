import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';

/** Lets calls in as long as there is room, and none once the server drains. */
export class Gate {
  private running = 0;
  private draining = false;
  private onEmpty: (() => void) | undefined;

  /** Throws when nobody is let in any more: for streams, which have a limit of their own. */
  checkOpen(): void {
    if (this.draining) throw ServiceError.of('SERVER_SHUTTING_DOWN', {});
  }

  enter(): void {
    this.checkOpen();
    if (this.running >= limits.maxConcurrentCalls)
      throw ServiceError.of('TOO_MANY_CALLS', { calls: String(this.running) });
    this.running++;
  }

  leave(): void {
    this.running--;
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
