import type { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import type { Principal } from '../../domain/access.js';
import type { Sink } from '../../feed/watch.js';
import type { Log } from '../../log.js';
import type { Metrics } from '../../metrics.js';
import type { Authorizer } from './authorizer.js';
import type { CallLimiter } from './call_limiter.js';
import type { Contract } from './contract.js';
import type { OpenStreams } from './open_streams.js';

/** One unary call, with the data and functions that a handler uses. */
export interface Call<Request, Response> {
  readonly request: Request;
  /** Full name of the method, `agentllm.v1.AgentService/GetAgent`. */
  readonly method: string;
  /** The name of the caller, for the history. */
  readonly caller: string;
  /** The caller and its permissions. */
  readonly principal: Principal;
  /** Throws unless the caller has a permission in addition to that of the method. */
  require(permission: Permission): void;
  /** Throws unless the caller may see an agent at a past revision, by the name that the agent had then. */
  requirePastAgent(name: string | undefined): void;
  /**
   * Throws if the caller is no longer authorized. A handler calls it after a wait, before it does anything that other
   * callers can see. The response of a read that was awaited is not sent without this check.
   */
  recheckAccess(): void;
  /** Throws if the caller is no longer authenticated. */
  recheckCaller(): void;
  /** Encodes a request, so that equal requests have equal bytes. */
  readonly encode: (request: Request) => Uint8Array;
  /** Encodes a response, as it is sent and stored for an idempotency key. */
  readonly encodeResponse: (response: Response) => Uint8Array;
  /** Aborts when the caller cancels, the deadline passes or `limits.maxCallMs` is over. */
  readonly signal: AbortSignal;
  /** The time until the caller's deadline in ms, minus the time that the response needs to arrive. */
  readonly remainingMs: number;
  /** Whether the gRPC library of the caller has sent this call before and received no response. */
  readonly isRetry: boolean;
}

/** The response of a handler: the message, or its bytes if it is already encoded. */
export type HandlerResult<Response> = Response | Uint8Array;
export type Handler<Request, Response> = (
  call: Call<Request, Response>,
) => HandlerResult<Response> | Promise<HandlerResult<Response>>;

export interface UnaryDefinition<Request, Response> {
  readonly path: string;
  readonly responseStream: false;
  readonly requestDeserialize: (bytes: Buffer) => Request;
  readonly requestSerialize: (request: Request) => Buffer;
  readonly responseSerialize: (response: Response) => Buffer;
}

export type StreamDefinition<Request> = Omit<
  UnaryDefinition<Request, unknown>,
  'responseStream' | 'responseSerialize'
> & {
  readonly responseStream: true;
};

/** One server-streaming call, with the data and functions that a handler uses. */
export interface StreamCall<Request> {
  readonly request: Request;
  /** Full name of the method. */
  readonly method: string;
  /** The name of the caller, for the audit. */
  readonly caller: string;
  /** The caller and its permissions. */
  readonly principal: Principal;
  /** Aborts when the caller disconnects or its deadline passes. */
  readonly signal: AbortSignal;
  readonly sink: EndingSink;
  /** Throws if the service shuts down; long-running streams call it. */
  checkOpen(): void;
}

/** A stream that the handler can complete. */
export interface EndingSink extends Sink {
  /** The status code with which the stream ended. */
  readonly code: string;
  /** Ends the stream with OK, after its pending messages. */
  finish(): void;
}

/** Resolves when the stream is set up or complete; a rejection ends the stream with that error. */
export type StreamHandler<Request> = (call: StreamCall<Request>) => Promise<void>;

/** A message of the caller on a bidirectional stream. */
export interface ReceivedMessage<Request> {
  readonly request: Request;
  /** The size of the message. */
  readonly bytes: number;
  /** Call it once when the message has been handled. Until then the message counts as memory of the connection. */
  release(): void;
}

/** One call of a bidirectional streaming method. */
export interface DuplexCall<Request> extends Omit<StreamCall<Request>, 'request' | 'checkOpen'> {
  /**
   * The messages of the caller, in order. A message is received only when the iterator requests it. The iteration ends
   * when the caller has sent all messages or has disconnected, and throws when the service shuts down, so that pending
   * messages can be handled first.
   */
  readonly messages: AsyncIterable<ReceivedMessage<Request>>;
}

/** Resolves when all messages are handled, and the stream is then complete; a rejection ends it with that error. */
export type DuplexHandler<Request> = (call: DuplexCall<Request>) => Promise<void>;

export type DuplexDefinition<Request> = StreamDefinition<Request> & { readonly requestStream: true };

/** The handlers of a service, one for each method of its definition. A missing or misspelt handler does not compile. */
export type Handlers<Service> = {
  readonly [M in keyof Service]: Service[M] extends UnaryDefinition<infer Request, infer Response>
    ? Handler<Request, Response>
    : Service[M] extends DuplexDefinition<infer Request>
      ? DuplexHandler<Request>
      : Service[M] extends StreamDefinition<infer Request>
        ? StreamHandler<Request>
        : never;
};

/** The components that all calls share. */
export interface DispatchContext {
  readonly contract: Contract;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly limiter: CallLimiter;
  readonly authorizer: Authorizer;
  readonly openStreams: OpenStreams;
}
