import type { Clock } from './clock.js';

/** The limits of one attempt in ms; undefined: no limit. */
export interface TimerLimits {
  /** From the start of the attempt to the first content of a stream. */
  readonly firstTokenMs: number | undefined;
  /** Without content, while the chain waits for more of a stream. */
  readonly idleMs: number | undefined;
  /** From the start of the attempt to the end of the response. */
  readonly totalMs: number | undefined;
}

/**
 * The timers of one attempt. They start before the request. Only content resets them: a comment, a ping and an empty event
 * do not. The idle timer measures only the time in which the chain waits for the provider, so that a slow reader of the
 * stream does not count as a silent provider.
 */
export class AttemptTimers {
  private cancelTotal = () => {};
  private cancelWait = () => {};
  private sawContent = false;
  /** Time without content so far, in ms. */
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
      this.cancelWait = this.clock.after(firstTokenMs, () => this.expired(`no content within ${firstTokenMs} ms`));
  }

  /** Content has arrived. */
  content(): void {
    if (!this.sawContent) this.cancelWait();
    this.sawContent = true;
    this.idle = 0;
  }

  /** The chain waits for more of the stream. */
  wait(): void {
    const { idleMs } = this.limits;
    if (!this.sawContent || idleMs === undefined) return;
    this.waitingSince = this.clock.now();
    const left = Math.max(0, idleMs - this.idle);
    this.cancelWait = this.clock.after(left, () => this.expired(`no further content within ${idleMs} ms`));
  }

  /** More of the stream has arrived. */
  resume(): void {
    if (this.waitingSince === undefined) return;
    this.idle += this.clock.now() - this.waitingSince;
    this.waitingSince = undefined;
    this.cancelWait();
  }

  stop(): void {
    this.cancelTotal();
    this.cancelWait();
  }
}
