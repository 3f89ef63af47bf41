import type {
  handleUnaryCall,
  ServerUnaryCall,
  ServiceDefinition,
  sendUnaryData,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Permission } from '../../../gen/ts/agentllm/v1/options.js';
import type { Principal } from '../../domain/access.js';
import type { Log } from '../../log.js';
import type { Metrics } from '../../metrics.js';
import type { UnreadResponses } from '../../net/unread_responses.js';
import { grpcStatus } from '../messages/status.js';
import type { Authorizer } from './authorizer.js';
import { CallState, type Done, type MethodParts, type RequestBytes, readerOf } from './call.js';
import { type CallTransport, type InvokeOptions, transportOf } from './call_transport.js';
import type { ConcurrencyLimiter } from './concurrency_limiter.js';
import type { Contract } from './contract.js';
import type { OpenStreams } from './open_streams.js';
import { type StreamHandler, streaming } from './streaming.js';

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
  readonly limiter: ConcurrencyLimiter;
  readonly authorizer: Authorizer;
  readonly openStreams: OpenStreams;
  readonly outgoing: UnreadResponses;
}

/**
 * Calls a method with the bytes of its request, without gRPC. A transport that
 * has to make them first gives how: what it refuses is a failed call like any
 * other. Rejects with a ServiceError and nothing else.
 */
export type Invoke = (given: RequestBytes, options?: InvokeOptions) => Promise<Uint8Array>;

/** A service for both transports: what grpc-js registers, and its methods by path for everybody else. */
export interface Service {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
  readonly methods: ReadonlyMap<string, Invoke>;
}

type AnyDefinition = UnaryDefinition<unknown, unknown> | StreamDefinition<unknown>;
type Run = (given: RequestBytes, origin: CallTransport, done: Done) => void;

/**
 * Makes a service of a definition and its handlers. It is the only place where
 * calls begin and end, whichever way they come: it admits, decodes, runs the handler
 * with its deadline, encodes, maps errors, counts and logs. grpc-js turns a
 * rejected handler into an unhandled rejection and an undecodable request into
 * INTERNAL, so nothing of that is left to it.
 */
export function serviceOf<Definition extends object>(
  definition: Definition,
  handlers: Handlers<Definition>,
  context: DispatchContext,
): Service {
  const definitions: Record<string, object> = {};
  const implementation: UntypedServiceImplementation = {};
  const methods = new Map<string, Invoke>();
  for (const [name, method] of Object.entries(definition) as [string, AnyDefinition][]) {
    definitions[name] = { ...method, requestDeserialize: asIs, responseSerialize: asIs };
    const read = readerOf(method, context.contract.requestType(method.path));
    // A method that does not say what it needs is not registered.
    const asked = { method: method.path.slice(1), rule: context.contract.rule(method.path) };
    const handler: unknown = handlers[name as keyof Definition];
    if (method.responseStream) {
      implementation[name] = streaming(asked, read, handler as StreamHandler<unknown>, context);
      continue;
    }
    const run = runnerOf({ method, requested: asked, read, context }, handler as Handler<unknown, unknown>);
    implementation[name] = unary(run) as handleUnaryCall<unknown, unknown>;
    methods.set(method.path, invoker(run));
  }
  return { definition: definitions as unknown as ServiceDefinition, implementation, methods };
}

/** Requests are read when it is known that their caller may make them, answers are bytes already. */
const asIs = (bytes: Buffer) => bytes;

const unary =
  (run: Run) =>
  (grpc: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void =>
    run(grpc.request, grpc, (error, bytes) => (error ? callback(grpcStatus(error)) : callback(null, bytes)));

const invoker =
  (run: Run): Invoke =>
  (given, options = {}) =>
    new Promise((resolve, reject) => {
      run(given, transportOf(options), (error, reply) => (error ? reject(error) : resolve(reply as Buffer)));
    });

/** What every call of a method goes through, between the bytes of its request and those of its answer. */
function runnerOf<Request, Response>(
  facts: Omit<MethodParts<Request, Response>, 'measure'>,
  handler: Handler<Request, Response>,
): Run {
  const shared = { ...facts, measure: facts.context.metrics.forMethod(facts.requested.method) };

  return (given, origin, done) => {
    const call = new CallState(shared, given, origin, done);
    let reply: Reply<Response> | Promise<Reply<Response>>;
    try {
      call.enter();
      reply = handler(call);
    } catch (error) {
      return call.fail(error);
    }
    // What is answered from memory is answered at once: a promise would cost a turn of the loop.
    if (!(reply instanceof Promise)) call.succeed(reply);
    else
      reply.then(
        (answer) => call.succeed(answer),
        (error) => call.fail(error),
      );
  };
}
