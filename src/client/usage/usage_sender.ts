import type { StreamUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import { limits } from '../../limits.js';
import { Backoff } from '../backoff.js';
import type { RequestStream } from '../connection.js';
import { AgentLLMError, type Code } from '../error.js';
import type { Clock } from '../runtime/clock.js';
import { BATCH, type Batch, divide, requestOf } from './batch.js';
import type { Spool } from './spool.js';
import type { SpoolWarnings } from './spool_warnings.js';
import { type OpenStream, STREAM_METHOD } from './usage_stream.js';

/** How long the first attempt of a batch waits for further attempts. */
const BATCH_MS = 500;
/** An idle stream ends after this time, so that idle processes use no stream of the service. */
const IDLE_MS = 5_000;
/** If a batch is not acknowledged within this time, the stream ends. */
const SILENCE_MS = 30_000;
/** The pause after the service has refused the stream. The refusal lasts until the service or the token is changed. */
const REFUSED_MS = 60_000;
const REFUSALS: readonly Code[] = ['PERMISSION_DENIED', 'UNAUTHENTICATED', 'UNIMPLEMENTED'];
/** Error reasons that concern a batch and not the stream. */
const FAULTS: readonly (string | undefined)[] = ['INVALID_FIELDS', 'MALFORMED_REQUEST', 'REQUEST_TOO_LARGE'];

interface SenderParts {
  readonly spool: Spool;
  readonly open: OpenStream;
  readonly clock: Clock;
  readonly warnings: SpoolWarnings;
  readonly backoff?: Pick<Backoff, 'next' | 'longest' | 'reset'>;
}

/**
 * Sends the attempts of the spool in batches over one stream at a time. At most four batches wait for their
 * acknowledgement. Batches of a broken stream are sent again on the next stream; the service counts an attempt once.
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
  private requests: RequestStream | undefined;
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
    parts.spool.onReady = () => this.scheduleSend();
  }

  /** Whether the service has acknowledged all attempts. */
  get isDone(): boolean {
    return this.unacknowledged.length === 0 && this.parts.spool.isEmpty;
  }

  /** Sends all attempts immediately. Resolves with true if the service acknowledges all of them within `ms`. */
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
      // The service may accept usage again.
      this.isRefused = false;
      this.cancelPause?.();
      this.cancelPause = undefined;
      this.send();
    });
  }

  /** Ends the stream. Unacknowledged attempts stay in the spool. */
  close(): void {
    this.isClosed = true;
    for (const cancel of [this.cancelBatch, this.cancelPause, this.cancelIdle, this.cancelWatchdog]) cancel?.();
    this.abort?.();
  }

  /** Starts to send when the spool has attempts. */
  private scheduleSend(): void {
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
    else if (this.requests) this.sendBatches(this.requests);
  }

  private openStream(): void {
    if (!this.hasWork()) return;
    this.abort = this.parts.open({
      opened: (requests) => {
        this.requests = requests;
        this.sendBatches(requests);
      },
      acknowledged: (response) => this.acknowledge(response),
      ended: (error) => this.ended(error),
    });
    this.startWatchdog();
  }

  private hasWork(): boolean {
    const { spool } = this.parts;
    return this.unacknowledged.length > 0 || spool.readyCount > 0 || spool.losses.size > 0;
  }

  /** Sends batches until the window is full; batches of the previous stream come first. */
  private sendBatches(requests: RequestStream): void {
    this.cancelIdle();
    for (let inFlight = this.unacknowledged.filter(({ sequence }) => sequence > 0).length; inFlight < this.window; ) {
      const batch = this.unacknowledged[inFlight] ?? this.nextBatch();
      if (!batch) break;
      batch.sequence = ++this.sequence;
      requests.send(requestOf(batch));
      inFlight++;
    }
    if (this.unacknowledged.length === 0)
      this.cancelIdle = this.parts.clock.after(IDLE_MS, () => {
        this.requests = undefined;
        requests.end();
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
    // The service acknowledges batches in order; any other sequence is ignored.
    if (!batch || BigInt(batch.sequence) !== sequence) return;
    this.unacknowledged.shift();
    this.rejected += rejected.length;
    this.acknowledged += batch.entries.length - rejected.length;
    for (const { rejection, message } of rejected)
      this.parts.warnings.lost(rejection, `the service rejects attempts: ${message}`);
    this.succeeded();
    this.parts.spool.acknowledge(batch.entries);
    this.startWatchdog();
    if (this.requests) this.sendBatches(this.requests);
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
    this.requests = undefined;
    this.cancelIdle();
    this.cancelWatchdog();
    for (const batch of this.unacknowledged) batch.sequence = 0;
    if (this.isClosed) return;
    if (!error && this.unacknowledged.length === 0) {
      if (this.hasWork()) this.scheduleSend();
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

  /**
   * Finds the invalid attempt after the service has rejected a whole batch: sends batches one at a time, then in
   * halves. All other attempts are stored.
   */
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

  /** Ends a stream on which a batch is not acknowledged in time. */
  private startWatchdog(): void {
    this.cancelWatchdog();
    this.cancelWatchdog = this.parts.clock.after(SILENCE_MS, () => {
      if (this.unacknowledged.length > 0 || !this.requests) this.abort?.();
      else this.startWatchdog();
    });
  }

  private warnRefused(error: AgentLLMError): void {
    const { code, message } = error;
    const remedy =
      code === 'UNIMPLEMENTED'
        ? 'the service is older than this client; update it, or set usage: false'
        : 'use a token with the role agent for these agents (agentllm token create --role agent), or set usage: false';
    const kept = 'Model calls continue, and attempts are kept until the spool is full';
    this.parts.warnings.notRecorded(code, `Usage is not recorded: ${remedy}. ${kept}. ${message}`, error);
  }
}

/** Whether the error comes from the service or a proxy and not from this process. */
const isRemote = ({ cause }: AgentLLMError): boolean =>
  typeof (cause as { code?: unknown } | undefined)?.code === 'number';
