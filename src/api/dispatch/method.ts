import type { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import type { Principal } from '../../domain/access.js';
import type { Sink } from '../../feed/watch.js';
import type { Log } from '../../log.js';
import type { Metrics } from '../../metrics.js';
import type { UnreadResponses } from '../../net/unread_responses.js';
import type { Authorizer } from './authorizer.js';
import type { CallLimiter } from './call_limiter.js';
import type { Contract } from './contract.js';
import type { OpenStreams } from './open_streams.js';

/** One call as a handler sees it. */
export interface Call<Request, Response> {
  readonly request: Request;
  /** Full name of the method, `agentllm.v1.AgentService/GetAgent`. */
  readonly method: string;
  /** Who calls, for the history. */
  readonly caller: string;
  /** What the caller may do. */
  readonly principal: Principal;
  /** Throws unless the caller has one more permission than every caller of the method. */
  require(permission: Permission): void;
  /** Throws unless the caller may see an agent at a past revision, by the name that the agent had at it. */
  requirePast(name: string | undefined): void;
  /** Throws when the caller would not be let in any more: for what happens after a wait. */
  stillAllowed(): void;
  /** A request's bytes, encoded anew, so that equal requests have equal bytes. */
  readonly encode: (request: Request) => Uint8Array;
  /** An answer's bytes, as they go out and are kept for a request id. */
  readonly encodeReply: (response: Response) => Uint8Array;
  /** Aborts when the caller cancels, the deadline passes or the longest time for a call is over. */
  readonly signal: AbortSignal;
  /** How long the caller waits for the answer yet, in ms, less what the answer needs to reach it. */
  readonly remainingMs: number;
  /** Whether the caller's library sends the call once more, because it got no answer to an earlier attempt. */
  readonly isRetry: boolean;
}

/** An answer: the message, or its bytes where they stand ready. */
export type Reply<Response> = Response | Uint8Array;
export type Handler<Request, Response> = (call: Call<Request, Response>) => Reply<Response> | Promise<Reply<Response>>;

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
  /** How the stream ended, as a status code. */
  readonly code: string;
  /** Ends it with OK, after the messages that wait in it. */
  finish(): void;
}

/** Resolves when the stream goes on by itself; what it rejects with is what the caller hears. */
export type StreamHandler<Request> = (call: StreamCall<Request>) => Promise<void>;

/** The handlers of a service, one for each method of its definition: a missing or misspelt one does not compile. */
export type Handlers<Service> = {
  readonly [M in keyof Service]: Service[M] extends UnaryDefinition<infer Request, infer Response>
    ? Handler<Request, Response>
    : Service[M] extends StreamDefinition<infer Request>
      ? StreamHandler<Request>
      : never;
};

/** What the adapter needs of the server that it works for. */
export interface DispatchContext {
  readonly contract: Contract;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly limiter: CallLimiter;
  readonly authorizer: Authorizer;
  readonly openStreams: OpenStreams;
  readonly unreadResponses: UnreadResponses;
}
