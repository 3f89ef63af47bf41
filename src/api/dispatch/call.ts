import type { DescMessage } from '@bufbuild/protobuf';
import type { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import { anonymous, type Principal } from '../../domain/access.js';
import { UUID } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import type { Log } from '../../log.js';
import type { Measure } from '../../metrics.js';
import type { RequestedMethod } from './authorizer.js';
import type { CallTransport } from './call_transport.js';
import { internalError } from './internal_error.js';
import type { Call, DispatchContext, HandlerResult, UnaryDefinition } from './method.js';
import { requestCheckOf } from './request_shape.js';
import { checkedResponse } from './response.js';

export type Done = (error: ServiceError | undefined, bytes?: Buffer) => void;

/** The bytes of a request, or a function that creates them. */
export type RequestBytes = Uint8Array | (() => Uint8Array);

/** Decodes a request; throws a ServiceError if it is malformed. */
export type Reader<Request> = (source: RequestBytes) => Request;

export function readerOf<Request>(
  method: Pick<UnaryDefinition<Request, unknown>, 'requestDeserialize'>,
  input: DescMessage,
): Reader<Request> {
  const check = requestCheckOf(input);
  return (source) => {
    const bytes = typeof source === 'function' ? source() : source;
    try {
      check(bytes);
      return method.requestDeserialize(
        Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
      );
    } catch (error) {
      if (error instanceof ServiceError) throw error;
      throw ServiceError.of('MALFORMED_REQUEST', { type: input.typeName });
    }
  };
}

function encode<Request, Response>(
  method: UnaryDefinition<Request, Response>,
  result: HandlerResult<Response>,
): Buffer {
  if (Buffer.isBuffer(result)) return result;
  return result instanceof Uint8Array ? Buffer.from(result) : method.responseSerialize(result);
}

/** The parts that all calls of a method share. */
export interface MethodParts<Request, Response> {
  readonly requested: RequestedMethod;
  readonly read: Reader<Request>;
  readonly method: UnaryDefinition<Request, Response>;
  readonly context: DispatchContext;
  readonly measure: Measure;
}

/**
 * The state of one call. Parts that most reads do not need, such as the signal, are created on first use. It has
 * methods and no closures: creating and collecting closures took a third of the time of a read.
 */
export class CallState<Request, Response> implements Call<Request, Response> {
  principal: Principal = anonymous;
  private readonly started = performance.now();
  private controller: AbortController | undefined;
  private timer: NodeJS.Timeout | undefined;
  private entered = false;
  private parsed: Request | undefined;

  constructor(
    private readonly shared: MethodParts<Request, Response>,
    private readonly source: RequestBytes,
    private readonly transport: CallTransport,
    private readonly done: Done,
  ) {}

  get method(): string {
    return this.shared.requested.method;
  }

  get caller(): string {
    return this.principal.actor;
  }

  get encode(): (request: Request) => Uint8Array {
    return this.shared.method.requestSerialize;
  }

  get encodeResponse(): (response: Response) => Uint8Array {
    return this.shared.method.responseSerialize;
  }

  get request(): Request {
    return this.parsed as Request;
  }

  get signal(): AbortSignal {
    if (!this.controller) {
      const controller = new AbortController();
      this.controller = controller;
      const cancel = () => controller.abort(ServiceError.of('CANCELLED', {}));
      const expire = () => controller.abort(ServiceError.of('DEADLINE_EXCEEDED', {}));
      this.timer = setTimeout(expire, this.remainingMs);
      this.transport.on('cancelled', cancel);
      if (this.transport.cancelled) cancel();
    }
    return this.controller.signal;
  }

  // Slightly before the caller's deadline, so that the caller receives the reason and not only DEADLINE_EXCEEDED.
  get remainingMs(): number {
    const deadline = Number(this.transport.getDeadline());
    const remaining = deadline - Date.now() - Math.min(100, (deadline - Date.now()) / 5);
    return Number.isFinite(remaining) ? Math.max(0, Math.min(remaining, limits.maxCallMs)) : limits.maxCallMs;
  }

  // gRFC A6: a gRPC library sets this header when it retries a call.
  get isRetry(): boolean {
    return (this.transport.metadata?.get('grpc-previous-rpc-attempts') ?? []).some((attempts) => attempts !== '0');
  }

  /**
   * Admits the call. Authorization comes first, so that an unauthorized caller learns nothing else about the request.
   */
  enter(): void {
    const { requested, context } = this.shared;
    context.limiter.checkOpen();
    this.principal = context.authorizer.admit(this.transport.credentials, requested);
    this.transport.connection?.checkRoom();
    context.limiter.enter(this.principal.token?.id);
    this.entered = true;
    this.parsed = this.shared.read(this.source);
    context.authorizer.checkAgents(this.principal, requested, this.parsed as object);
  }

  recheckAccess(): void {
    const { requested, context } = this.shared;
    context.authorizer.checkAgents(
      context.authorizer.currentPrincipal(this.principal),
      requested,
      this.request as object,
    );
  }

  recheckCaller(): void {
    this.shared.context.authorizer.currentPrincipal(this.principal);
  }

  requirePastAgent(name: string | undefined): void {
    const { requested, context } = this.shared;
    context.authorizer.checkPastAgent(this.principal, requested, name);
  }

  require(permission: Permission): void {
    this.shared.context.authorizer.require(this.principal, permission, this.method);
  }

  /**
   * Sends a response that took time. The caller of a read may have lost access meanwhile. A write is committed by now,
   * and a caller that revokes its own token must learn that.
   */
  succeedLater(result: HandlerResult<Response>): void {
    try {
      if (!this.isWrite) this.recheckAccess();
    } catch (error) {
      this.fail(error);
      return;
    }
    this.succeed(result);
  }

  succeed(result: HandlerResult<Response>): void {
    let bytes: Buffer;
    try {
      bytes = checkedResponse(encode(this.shared.method, result));
      // A write is committed by now, so its response is always sent.
      if (!this.isWrite) this.transport.connection?.checkRoomFor(bytes);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.end('OK');
    this.transport.connection?.addUntilEnd(bytes.length, this.transport);
    this.done(undefined, bytes);
  }

  fail(thrown: unknown): void {
    const error = this.failure(thrown, this.shared.context.log);
    this.end(error.code, error.reason);
    this.done(error);
  }

  private get isWrite(): boolean {
    return 'request_id' in (this.parsed as object);
  }

  private end(code: string, reason?: string): void {
    const { context, measure } = this.shared;
    clearTimeout(this.timer);
    if (this.entered) context.limiter.leave(this.principal.token?.id);
    measure(code, performance.now() - this.started);
    if (!context.log.isLevelEnabled('debug')) return;
    const { request_id } = (this.parsed ?? {}) as { request_id?: string };
    context.log.debug(
      {
        method: this.method,
        code,
        reason,
        caller: this.caller,
        request_id: UUID.test(request_id ?? '') ? request_id : undefined,
      },
      'call',
    );
  }

  /**
   * Maps a thrown value to the error for the caller; internal details go to the log, also if the caller has cancelled.
   */
  private failure(thrown: unknown, log: Log): ServiceError {
    if (thrown instanceof ServiceError) return this.principal.agents ? thrown.withoutSuggestion() : thrown;
    return internalError(thrown, this.method, log);
  }
}
