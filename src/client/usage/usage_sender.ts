import type { StreamUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import { limits } from '../../limits.js';
import { Backoff } from '../backoff.js';
import type { Outlet } from '../connection.js';
import { AgentLLMError, type Code } from '../error.js';
import type { Clock } from '../runtime/clock.js';
import { BATCH, type Batch, divide, requestOf } from './batch.js';
import type { Spool } from './spool.js';
import type { SpoolWarnings } from './spool_warnings.js';
import { type OpenStream, STREAM_METHOD } from './usage_stream.js';

/** How long the first attempt of a batch waits for others. */
const BATCH_MS = 500;
/** A stream without work ends after this time, so that idle processes occupy no stream of the service. */
const IDLE_MS = 5_000;
/** A batch that is not acknowledged within this time ends the stream. */
const SILENCE_MS = 30_000;
/** The pause after a refusal, which lasts until someone changes the service or the token. */
const REFUSED_MS = 60_000;
const REFUSALS: readonly Code[] = ['PERMISSION_DENIED', 'UNAUTHENTICATED', 'UNIMPLEMENTED'];
/** Reasons for which a batch, not the stream, is at fault. */
const FAULTS: readonly (string | undefined)[] = ['INVALID_FIELDS', 'MALFORMED_REQUEST', 'REQUEST_TOO_LARGE'];

interface SenderParts {
  readonly spool: Spool;
  readonly open: OpenStream;
  readonly clock: Clock;
  readonly warnings: SpoolWarnings;
  readonly backoff?: Pick<Backoff, 'next' | 'longest' | 'reset'>;
}

/**
 * Sends what the spool has over one stream at a time, in batches, of which at most four are without an acknowledgement.
 * Batches of a broken stream are sent again on the next one; the service counts an attempt once.
 */
export class UsageSender {
  acknowledged = 0;
  rejected = 0;
  /** The failure of the last stream; undefined after an acknowledgement. */
  error: AgentLLMError | undefined;

  /** Batches without an acknowledgement, in the order in which they are sent. */
  private unacknowledged: Batch[] = [];
  private sequence = 0;
  private window: number = limits.usageBatchesInFlight;
  private outlet: Outlet | undefined;
  /** Aborts the stream; undefined without a stream. */
  private abort: (() => void) | undefined;
  private cancelBatch: (() => void) | undefined;
  private cancelPause: (() => void) | undefined;
  private cancelIdle = () => {};
  private cancelWatchdog = () => {};
  private isClosed = false;
  private isRefused = false;
  /** Check whether a flush is complete. */
  private readonly flushes = new Set<() => void>();
  private readonly backoff: Pick<Backoff, 'next' | 'longest' | 'reset'>;

  constructor(private readonly parts: SenderParts) {
    this.backoff = parts.backoff ?? new Backoff();
    parts.spool.onReady = () => this.wake();
  }

  /** Whether the service has acknowledged everything. */
  get isDone(): boolean {
    return this.unacknowledged.length === 0 && this.parts.spool.isEmpty;
  }

  /** Sends everything without waiting for more; resolves with whether all of it is acknowledged within `ms`. */
  flush(ms: number): Promise<boolean> {
    if (this.isDone) return Promise.resolve(true);
    if (ms === 0 || this.isClosed) return Promise.resolve(false);
    return new Promise((resolve) => {
      const end = () => {
        cancel();
        this.flushes.delete(check);
        resolve(this.isDone);
      };
      const cancel = this.parts.clock.after(ms, end);
      const check = () => {
        if (this.isDone || this.isRefused) end();
      };
      this.flushes.add(check);
      // A refusal may be over.
      this.isRefused = false;
      this.cancelPause?.();
      this.cancelPause = undefined;
      this.send();
    });
  }

  /** Ends the stream. What is not acknowledged stays in the spool. */
  close(): void {
    this.isClosed = true;
    for (const cancel of [this.cancelBatch, this.cancelPause, this.cancelIdle, this.cancelWatchdog]) cancel?.();
    this.abort?.();
  }

  /** Something can be sent. */
  private wake(): void {
    this.checkFlushes();
    if (this.isClosed || this.cancelPause) return;
    if (this.flushes.size > 0 || this.parts.spool.readyCount >= BATCH.records) this.send();
    else this.cancelBatch ??= this.parts.clock.after(BATCH_MS, () => this.send());
  }

  private checkFlushes(): void {
    for (const check of [...this.flushes]) check();
  }

  private send(): void {
    this.cancelBatch?.();
    this.cancelBatch = undefined;
    if (this.isClosed) return;
    if (!this.abort) this.openStream();
    else if (this.outlet) this.pump(this.outlet);
  }

  private openStream(): void {
    if (!this.hasWork()) return;
    this.abort = this.parts.open({
      opened: (outlet) => {
        this.outlet = outlet;
        this.pump(outlet);
      },
      acknowledged: (response) => this.acknowledge(response),
      ended: (error) => this.ended(error),
    });
    this.watch();
  }

  private hasWork(): boolean {
    const { spool } = this.parts;
    return this.unacknowledged.length > 0 || spool.readyCount > 0 || spool.losses.size > 0;
  }

  /** Sends batches until the window is full: first those of the previous stream. */
  private pump(outlet: Outlet): void {
    this.cancelIdle();
    for (let inFlight = this.unacknowledged.filter(({ sequence }) => sequence > 0).length; inFlight < this.window; ) {
      const batch = this.unacknowledged[inFlight] ?? this.nextBatch();
      if (!batch) break;
      batch.sequence = ++this.sequence;
      outlet.send(requestOf(batch));
      inFlight++;
    }
    if (this.unacknowledged.length === 0)
      this.cancelIdle = this.parts.clock.after(IDLE_MS, () => {
        this.outlet = undefined;
        outlet.end();
      });
  }

  private nextBatch(): Batch | undefined {
    const { spool } = this.parts;
    const losses = spool.losses.take(BATCH.losses);
    const entries = spool.take(BATCH);
    if (entries.length + losses.length === 0) return undefined;
    const batch: Batch = { sequence: 0, entries, losses };
    this.unacknowledged.push(batch);
    return batch;
  }

  private acknowledge({ sequence, rejected }: StreamUsageResponse): void {
    const [batch] = this.unacknowledged;
    // The service acknowledges in order; anything else is not from it.
    if (!batch || BigInt(batch.sequence) !== sequence) return;
    this.unacknowledged.shift();
    this.rejected += rejected.length;
    this.acknowledged += batch.entries.length - rejected.length;
    for (const { rejection, message } of rejected)
      this.parts.warnings.lost(rejection, `the service rejects attempts: ${message}`);
    this.succeeded();
    this.parts.spool.acknowledge(batch.entries);
    this.watch();
    if (this.outlet) this.pump(this.outlet);
    this.checkFlushes();
  }

  private succeeded(): void {
    this.backoff.reset();
    this.error = undefined;
    this.isRefused = false;
    if (this.window < limits.usageBatchesInFlight) this.window++;
  }

  private ended(error: AgentLLMError | undefined): void {
    this.abort = undefined;
    this.outlet = undefined;
    this.cancelIdle();
    this.cancelWatchdog();
    for (const batch of this.unacknowledged) batch.sequence = 0;
    if (this.isClosed) return;
    if (!error && this.unacknowledged.length === 0) {
      if (this.hasWork()) this.wake();
      return;
    }
    this.pauseAfter(
      error ?? AgentLLMError.here('The service ended the stream', { code: 'UNAVAILABLE', method: STREAM_METHOD }),
    );
    this.checkFlushes();
  }

  private pauseAfter(error: AgentLLMError): void {
    this.error = error;
    this.isRefused = REFUSALS.includes(error.code) && isRemote(error);
    if (this.isRefused) this.warnRefused(error);
    if (FAULTS.includes(error.reason)) this.isolate(error);
    const ms = this.isRefused ? REFUSED_MS : this.backoff.next(error.retryAfterMs);
    this.cancelPause = this.parts.clock.after(ms, () => {
      this.cancelPause = undefined;
      this.send();
    });
  }

  /** Finds the batch that the service rejects as a whole: one at a time, then in halves. The rest is not affected. */
  private isolate(error: AgentLLMError): void {
    const wasAlone = this.window === 1;
    this.window = 1;
    const [batch, ...others] = this.unacknowledged;
    if (!wasAlone || !batch) return;
    const halves = divide(batch);
    this.unacknowledged = [...(halves ?? []), ...others];
    if (halves) return;
    this.rejected += batch.entries.length;
    this.parts.warnings.lost('INVALID', `the service rejects an attempt: ${error.message}`);
    this.parts.spool.acknowledge(batch.entries);
  }

  /** Ends a stream on which a batch stays without an acknowledgement. */
  private watch(): void {
    this.cancelWatchdog();
    this.cancelWatchdog = this.parts.clock.after(SILENCE_MS, () => {
      if (this.unacknowledged.length > 0 || !this.outlet) this.abort?.();
      else this.watch();
    });
  }

  private warnRefused(error: AgentLLMError): void {
    const { code, message } = error;
    const remedy =
      code === 'UNIMPLEMENTED'
        ? 'the service is older than this client; update it, or set usage: false'
        : 'use a token with the role agent for these agents (agentllm token create --role agent), or set usage: false';
    const kept = 'Model calls continue, and attempts are kept as long as the spool has room';
    this.parts.warnings.notRecorded(code, `Usage is not recorded: ${remedy}. ${kept}. ${message}`, error);
  }
}

/** Whether the error is from the service or a proxy, not from this process. */
const isRemote = ({ cause }: AgentLLMError): boolean =>
  typeof (cause as { code?: unknown } | undefined)?.code === 'number';
