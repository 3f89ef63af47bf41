import type { ServerWritableStream } from '@grpc/grpc-js';
import type { EndingSink } from '../api/dispatch/method.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { ConnectionResponses } from '../net/unread_responses.js';
import { timeSlice } from '../time_slice.js';
import { frameOf } from './shared_frames.js';
import { grpcStatus } from './status.js';

/** The sink of a server stream of grpc-js. It counts its pending messages, and a closed stream is never written to. */
export class GrpcSink implements EndingSink {
  closed = false;
  waitingSince: number | undefined;
  /** The status code with which the stream ended, for the metrics. */
  code = 'CANCELLED';
  private readonly closeListeners: (() => void)[] = [];
  private drainListeners: (() => void)[] = [];
  /** Messages that are not sent yet. */
  private pending = 0;
  /** Bytes that were written since no message was pending. */
  private pendingBytes = 0;

  constructor(
    private readonly stream: ServerWritableStream<unknown, object>,
    private readonly connection: ConnectionResponses | undefined,
    private readonly toServiceError: (thrown: unknown) => ServiceError,
  ) {
    const close = () => this.close();
    stream.on('cancelled', close);
    stream.on('close', close);
    if (stream.cancelled) this.close();
  }

  write(bytes: Buffer): boolean {
    if (this.closed) return true;
    this.pending++;
    this.pendingBytes += bytes.length;
    this.waitingSince ??= performance.now();
    // grpc-js counts only messages: 16 of them, up to a megabyte, would be buffered for every stream that is not read.
    return this.stream.write(frameOf(bytes), this.onWritten) && this.pendingBytes < limits.watchMessageBytes;
  }

  drained(): Promise<void> {
    if (this.pending === 0 || this.closed) return Promise.resolve();
    return new Promise((resolve) => this.drainListeners.push(resolve));
  }

  end(thrown: unknown): void {
    // An unexpected error is logged even if the client has already left.
    const error = thrown instanceof ServiceError ? thrown : this.toServiceError(thrown);
    if (this.closed) return;
    this.code = error.code;
    this.countAsUnread();
    this.close();
    // Thousands of streams may end at the same time. Nothing is written to a closed stream while its status is queued.
    if (timeSlice.isSpent) void timeSlice.next().then(() => this.sendStatus(error));
    else this.sendStatus(error);
  }

  finish(): void {
    if (this.closed) return;
    this.code = 'OK';
    this.countAsUnread();
    this.stream.end();
    this.close();
  }

  onClose(callback: () => void): void {
    if (this.closed) callback();
    else this.closeListeners.push(callback);
  }

  private readonly onWritten = (): void => {
    this.pending--;
    this.waitingSince = this.pending > 0 ? performance.now() : undefined;
    if (this.pending > 0) return;
    this.pendingBytes = 0;
    this.resolveDrained();
  };

  /**
   * Messages that are pending when the stream ends count as an unread response, with the same time limit as any other.
   */
  private countAsUnread(): void {
    if (this.pending > 0) this.connection?.addUntilEnd(this.pendingBytes, this.stream);
  }

  /** grpc-js sends the status after the pending messages. */
  private sendStatus(error: ServiceError): void {
    this.stream.emit('error', grpcStatus(error));
  }

  private close(): void {
    if (this.closed) return;
    this.closed = true;
    this.resolveDrained();
    for (const callback of this.closeListeners.splice(0)) callback();
  }

  private resolveDrained(): void {
    for (const resolve of this.drainListeners.splice(0)) resolve();
  }
}
