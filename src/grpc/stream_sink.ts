import type { ServerWritableStream } from '@grpc/grpc-js';
import type { EndingSink } from '../api/dispatch/method.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { ConnectionResponses } from '../net/unread_responses.js';
import { timeSlice } from '../time_slice.js';
import { grpcStatus } from './status.js';

/**
 * What grpc-js hands over for a server stream, as a sink: it knows what waits in it, and is never written to when
 * closed.
 */
export class GrpcSink implements EndingSink {
  closed = false;
  waitingSince: number | undefined;
  /** How the stream ended, for those who count. */
  code = 'CANCELLED';
  private readonly onClosed: (() => void)[] = [];
  private waiting: (() => void)[] = [];
  /** Messages that are not on their way yet. */
  private pending = 0;
  /** Their bytes, and of what was taken since there were none. */
  private pendingBytes = 0;

  constructor(
    private readonly stream: ServerWritableStream<unknown, Buffer>,
    private readonly connection: ConnectionResponses | undefined,
    private readonly internal: (thrown: unknown) => ServiceError,
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
    // grpc-js counts messages, of which 16 may be a megabyte, in every stream that is not read.
    return this.stream.write(bytes, this.taken) && this.pendingBytes < limits.watchMessageBytes;
  }

  drained(): Promise<void> {
    if (this.pending === 0 || this.closed) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push(resolve));
  }

  end(thrown: unknown): void {
    if (this.closed) return;
    const error = thrown instanceof ServiceError ? thrown : this.internal(thrown);
    this.code = error.code;
    this.leaveUnread();
    this.close();
    // Thousands of streams may end at once. Nothing is written to a closed one while its status waits.
    if (timeSlice.isSpent) void timeSlice.next().then(() => this.sendStatus(error));
    else this.sendStatus(error);
  }

  finish(): void {
    if (this.closed) return;
    this.code = 'OK';
    this.leaveUnread();
    this.stream.end();
    this.close();
  }

  onClose(callback: () => void): void {
    if (this.closed) callback();
    else this.onClosed.push(callback);
  }

  private readonly taken = (): void => {
    this.pending--;
    this.waitingSince = this.pending > 0 ? performance.now() : undefined;
    if (this.pending > 0) return;
    this.pendingBytes = 0;
    this.wake();
  };

  /**
   * What still waits when the stream is ended is an unread response: its client has as long for it as for any other.
   */
  private leaveUnread(): void {
    if (this.pending > 0) this.connection?.addUntilEnd(this.pendingBytes, this.stream);
  }

  /** grpc-js sends it after the messages that wait in the stream. */
  private sendStatus(error: ServiceError): void {
    this.stream.emit('error', grpcStatus(error));
  }

  private close(): void {
    if (this.closed) return;
    this.closed = true;
    this.wake();
    for (const callback of this.onClosed.splice(0)) callback();
  }

  private wake(): void {
    for (const resolve of this.waiting.splice(0)) resolve();
  }
}
