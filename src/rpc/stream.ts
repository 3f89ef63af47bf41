import type { handleServerStreamingCall, ServerWritableStream } from '@grpc/grpc-js';
import { ServiceError } from '../errors.js';
import type { Sink } from '../feed/watch.js';
import { limits } from '../limits.js';
import { internalError } from './internal_error.js';
import type { Decoded, MethodContext } from './method.js';
import { grpcStatus } from './status.js';

/** A call whose answer is a stream, as a handler sees it. */
export interface StreamCall<Request> {
  readonly request: Request;
  /** Aborts when the caller is gone or its deadline has passed. */
  readonly signal: AbortSignal;
  readonly sink: Sink;
}

/** Resolves when the stream goes on by itself; what it rejects with is what the caller hears. */
export type StreamHandler<Request> = (call: StreamCall<Request>) => Promise<void>;

type Raw<Request> = ServerWritableStream<Decoded<Request>, Buffer>;

/** What every stream goes through: the counterpart of the adapter for unary methods. */
export function streaming<Request>(
  name: string,
  handler: StreamHandler<Request>,
  context: MethodContext,
): handleServerStreamingCall<unknown, unknown> {
  const measure = context.metrics.forMethod(name);
  return ((stream: Raw<Request>) => {
    const started = performance.now();
    const controller = new AbortController();
    const sink = new GrpcSink(stream as ServerWritableStream<unknown, Buffer>, (thrown) =>
      internalError(thrown, name, context.log),
    );
    sink.onClose(() => {
      controller.abort(ServiceError.of('CANCELLED', {}));
      measure(sink.code, performance.now() - started);
      context.log.debug({ method: name, code: sink.code }, 'stream');
    });
    open(stream.request, sink, controller.signal, handler, context).catch((thrown) => sink.end(thrown));
  }) as handleServerStreamingCall<unknown, unknown>;
}

/** Streams stay when they are open; only their beginning counts as a call. */
async function open<Request>(
  decoded: Decoded<Request>,
  sink: Sink,
  signal: AbortSignal,
  handler: StreamHandler<Request>,
  { gate }: MethodContext,
): Promise<void> {
  if ('refused' in decoded) throw decoded.refused;
  gate.enter();
  try {
    await handler({ request: decoded.request, signal, sink });
  } finally {
    gate.leave();
  }
}

/** What grpc-js hands over for a server stream, as a sink: it knows what waits in it, and is never written to when closed. */
class GrpcSink implements Sink {
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
    // grpc-js sends it as the status of the stream, behind what waits in it.
    this.stream.emit('error', grpcStatus(error));
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
