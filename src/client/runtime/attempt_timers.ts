import type { Clock } from './clock.js';

/** The limits of one attempt in ms; undefined: no limit. */
export interface TimerLimits {
  /** Time from the start of the attempt to the first content of a stream. */
  readonly firstTokenMs: number | undefined;
  /** Time without content while the chain waits for the next part of a stream. */
  readonly idleMs: number | undefined;
  /** Time from the start of the attempt to the end of the response. */
  readonly totalMs: number | undefined;
}

/**
 * The timers of one attempt. They start before the request. Only content resets them: a comment, a ping and an empty event
 * do not. The idle timer measures only the time in which the chain waits for the provider, so that a slow reader of the
 * stream does not count as a silent provider.
 */
export class AttemptTimers {
  private cancelTotal = () => {};
  private cancelFirst = () => {};
  /** Cancels the idle timer; undefined while it does not run. */
  private cancelIdle: (() => void) | undefined;
  private sawContent = false;
  private isStopped = false;
  /** The time without content so far in ms, excluding the current wait. */
  private idle = 0;
  private waitingSince: number | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly limits: TimerLimits,
    private readonly expired: (reason: string) => void,
  ) {}

  /** Starts the total timer and, for a stream, the first-token timer. */
  start(isStream: boolean): void {
    const { totalMs, firstTokenMs } = this.limits;
    if (totalMs !== undefined)
      this.cancelTotal = this.clock.after(totalMs, () => this.expired(`no complete response within ${totalMs} ms`));
    if (isStream && firstTokenMs !== undefined)
      this.cancelFirst = this.clock.after(firstTokenMs, () => this.expired(`no content within ${firstTokenMs} ms`));
  }

  /** Resets the timers, because content has arrived. */
  content(): void {
    if (!this.sawContent) this.cancelFirst();
    this.sawContent = true;
    this.idle = 0;
  }

  /** Starts to measure: the chain waits for the next part of the stream. */
  wait(): void {
    if (!this.sawContent || this.isStopped || this.limits.idleMs === undefined) return;
    this.waitingSince = this.clock.now();
    if (!this.cancelIdle) this.startIdle(this.limits.idleMs);
  }

  /** Stops measuring: a part of the stream has arrived. */
  resume(): void {
    if (this.waitingSince === undefined) return;
    this.idle += this.clock.now() - this.waitingSince;
    this.waitingSince = undefined;
  }

  stop(): void {
    this.isStopped = true;
    this.cancelTotal();
    this.cancelFirst();
    this.cancelIdle?.();
  }

  /**
   * Starts the idle timer with the rest of the limit. The timer is not restarted for each part, because a timer costs
   * more than a part. When it fires, it is started again if there is time left.
   */
  private startIdle(idleMs: number): void {
    const left = idleMs - this.idle - this.waited;
    this.cancelIdle = this.clock.after(Math.max(0, left), () => {
      this.cancelIdle = undefined;
      if (this.waitingSince === undefined) return;
      if (this.idle + this.waited < idleMs) this.startIdle(idleMs);
      else this.expired(`no further content within ${idleMs} ms`);
    });
  }

  /** The duration of the current wait in ms. */
  private get waited(): number {
    return this.waitingSince === undefined ? 0 : this.clock.now() - this.waitingSince;
  }
}
