import type { handleServerStreamingCall, ServerWritableStream } from '@grpc/grpc-js';
import type { Principal } from '../../domain/access.js';
import { ServiceError } from '../../errors.js';
import type { Sink } from '../../feed/watch.js';
import { limits } from '../../limits.js';
import type { ConnectionResponses } from '../../net/unread_responses.js';
import { timeSlice } from '../../time_slice.js';
import { grpcStatus } from '../messages/status.js';
import type { RequestedMethod } from './authorizer.js';
import type { MethodParts, Reader } from './call.js';
import { credentialsOf } from './call_transport.js';
import { internalError } from './internal_error.js';
import type { DispatchContext } from './method.js';

/** A call whose answer is a stream, as a handler sees it. */
export interface StreamCall<Request> {
  readonly request: Request;
  /** Full name of the method. */
  readonly method: string;
  /** Who calls, for the audit. */
  readonly caller: string;
  /** What the caller may do. */
  readonly principal: Principal;
  /** Aborts when the caller is gone or its deadline has passed. */
  readonly signal: AbortSignal;
  readonly sink: EndingSink;
  /** Throws once the service shuts down: for streams that work for long. */
  checkOpen(): void;
}

/** A stream that may come to an end by itself. */
export interface EndingSink extends Sink {
  /** Ends it with OK, behind what waits in it. */
  finish(): void;
}

/** Resolves when the stream goes on by itself; what it rejects with is what the caller hears. */
export type StreamHandler<Request> = (call: StreamCall<Request>) => Promise<void>;

type Raw = ServerWritableStream<Buffer, Buffer>;

/** What every stream goes through: the counterpart of the adapter for unary methods. */
export function streaming<Request>(
  asked: RequestedMethod,
  read: Reader<Request>,
  handler: StreamHandler<Request>,
  context: DispatchContext,
): handleServerStreamingCall<unknown, unknown> {
  const { method: name } = asked;
  const measure = context.metrics.forMethod(name);
  return ((stream: Raw) => {
    const started = performance.now();
    const controller = new AbortController();
    const connection = context.outgoing.connectionOf(stream);
    const sink = new GrpcSink(stream as ServerWritableStream<unknown, Buffer>, connection, (thrown) =>
      internalError(thrown, name, context.log),
    );
    sink.onClose(() => {
      controller.abort(ServiceError.of('CANCELLED', {}));
      measure(sink.code, performance.now() - started);
      context.log.debug({ method: name, code: sink.code }, 'stream');
    });
    const begin = async () => {
      const opened = admit(stream, sink, { requested: asked, read, context });
      connection?.checkRoom();
      const checkOpen = () => context.limiter.checkOpen();
      await handler({ ...opened, method: name, signal: controller.signal, sink, checkOpen });
    };
    begin().catch((thrown) => sink.end(thrown));
  }) as handleServerStreamingCall<unknown, unknown>;
}

/**
 * Lets a stream in, and keeps an eye on it. It is not one of the calls at once: it may wait for long before it begins, and
 * reads are not to be refused for that.
 */
function admit<Request>(
  stream: Raw,
  sink: Sink,
  {
    requested: asked,
    read,
    context: { limiter: gate, authorizer: access, openStreams: standing },
  }: Omit<MethodParts<Request, unknown>, 'method' | 'measure'>,
): Pick<StreamCall<Request>, 'request' | 'caller' | 'principal'> {
  gate.checkOpen();
  const principal = access.admit(credentialsOf(stream), asked);
  const request = read(stream.request);
  access.checkAgents(principal, asked, request as object);
  // Not the request, which would live as long as the stream.
  const refs = principal.agents ? access.refsIn(asked, request as object) : [];
  standing.add(sink, principal, {
    caller: () => access.currentPrincipal(principal),
    agents: () => access.checkOpenStream(principal, asked, refs),
  });
  return { request, caller: principal.actor, principal };
}

/** What grpc-js hands over for a server stream, as a sink: it knows what waits in it, and is never written to when closed. */
class GrpcSink implements EndingSink {
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

  /** What still waits when the stream is ended is an unread response: its client has as long for it as for any other. */
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
