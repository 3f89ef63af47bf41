import type {
  handleUnaryCall,
  ServerUnaryCall,
  ServiceDefinition,
  sendUnaryData,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { Permission } from '../../gen/ts/agentllm/v1/options.js';
import { anonymous, type Principal } from '../domain/access.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { Log } from '../log.js';
import type { Measure, Metrics } from '../metrics.js';
import type { Access, Asked } from './access.js';
import type { Contract } from './contract.js';
import type { Gate } from './gate.js';
import { internalError } from './internal_error.js';
import { credentialsOf, type InvokeOptions, type Origin, originOf } from './origin.js';
import { UUID } from './requests.js';
import type { Standing } from './standing.js';
import { grpcStatus } from './status.js';
import { type StreamHandler, streaming } from './stream.js';

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

interface UnaryDefinition<Request, Response> {
  readonly path: string;
  readonly responseStream: false;
  readonly requestDeserialize: (bytes: Buffer) => Request;
  readonly requestSerialize: (request: Request) => Buffer;
  readonly responseSerialize: (response: Response) => Buffer;
}

type StreamDefinition<Request> = Omit<UnaryDefinition<Request, unknown>, 'responseStream' | 'responseSerialize'> & {
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
export interface MethodContext {
  readonly contract: Contract;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly gate: Gate;
  readonly access: Access;
  readonly standing: Standing;
}

/**
 * Calls a method with the bytes of its request, without gRPC. A transport that
 * has to make them first gives how: what it refuses is a failed call like any
 * other. Rejects with a ServiceError and nothing else.
 */
export type Invoke = (bytes: Uint8Array | (() => Uint8Array), options?: InvokeOptions) => Promise<Uint8Array>;

/** A service for both transports: what grpc-js registers, and its methods by path for everybody else. */
export interface Service {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
  readonly methods: ReadonlyMap<string, Invoke>;
}

type AnyDefinition = UnaryDefinition<unknown, unknown> | StreamDefinition<unknown>;
type Done = (error: ServiceError | undefined, bytes?: Buffer) => void;
type Run<Request> = (decoded: Decoded<Request>, origin: Origin, done: Done) => void;

/** A request, or why it could not be read. */
export type Decoded<Request> = { readonly request: Request } | { readonly refused: unknown };

/**
 * Makes a service of a definition and its handlers. It is the only place where
 * calls begin and end, whichever way they come: it decodes, runs the handler
 * with its deadline, encodes, maps errors, counts and logs. grpc-js turns a
 * rejected handler into an unhandled rejection and an undecodable request into
 * INTERNAL, so nothing of that is left to it.
 */
export function serviceOf<Definition extends object>(
  definition: Definition,
  handlers: Handlers<Definition>,
  context: MethodContext,
): Service {
  const definitions: Record<string, object> = {};
  const implementation: UntypedServiceImplementation = {};
  const methods = new Map<string, Invoke>();
  for (const [name, method] of Object.entries(definition) as [string, AnyDefinition][]) {
    const type = context.contract.requestType(method.path);
    definitions[name] = {
      ...method,
      requestDeserialize: (bytes: Buffer) => decode(method, type, bytes),
      responseSerialize: (bytes: Buffer) => bytes,
    };
    // A method that does not say what it needs is not registered.
    const asked = { method: method.path.slice(1), rule: context.contract.rule(method.path) };
    const handler: unknown = handlers[name as keyof Definition];
    if (method.responseStream) {
      implementation[name] = streaming(asked, handler as StreamHandler<unknown>, context);
      continue;
    }
    const run = runnerOf(method, asked, handler as Handler<unknown, unknown>, context);
    implementation[name] = unary(run) as handleUnaryCall<unknown, unknown>;
    methods.set(method.path, invoker(method, type, run));
  }
  return { definition: definitions as unknown as ServiceDefinition, implementation, methods };
}

function decode<Request>(
  method: Pick<UnaryDefinition<Request, unknown>, 'requestDeserialize'>,
  type: string,
  bytes: Buffer,
): Decoded<Request> {
  try {
    return { request: method.requestDeserialize(bytes) };
  } catch {
    return { refused: ServiceError.of('MALFORMED_REQUEST', { type }) };
  }
}

function read<Request>(
  method: UnaryDefinition<Request, unknown>,
  type: string,
  make: () => Uint8Array,
): Decoded<Request> {
  try {
    const bytes = make();
    return decode(method, type, Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  } catch (refused) {
    return { refused };
  }
}

function encode<Request, Response>(method: UnaryDefinition<Request, Response>, reply: Reply<Response>): Buffer {
  if (Buffer.isBuffer(reply)) return reply;
  return reply instanceof Uint8Array ? Buffer.from(reply) : method.responseSerialize(reply);
}

const unary =
  <Request>(run: Run<Request>) =>
  (grpc: ServerUnaryCall<Decoded<Request>, Buffer>, callback: sendUnaryData<Buffer>): void =>
    run(grpc.request, grpc, (error, bytes) => (error ? callback(grpcStatus(error)) : callback(null, bytes)));

const invoker =
  <Request>(method: UnaryDefinition<Request, unknown>, type: string, run: Run<Request>): Invoke =>
  (bytes, options = {}) =>
    new Promise((resolve, reject) => {
      const decoded = read(method, type, typeof bytes === 'function' ? bytes : () => bytes);
      run(decoded, originOf(options), (error, reply) => (error ? reject(error) : resolve(reply as Buffer)));
    });

/** What every call of a method goes through, between its decoded request and the bytes of its answer. */
function runnerOf<Request, Response>(
  method: UnaryDefinition<Request, Response>,
  asked: Asked,
  handler: Handler<Request, Response>,
  context: MethodContext,
): Run<Request> {
  const shared: Shared<Request, Response> = {
    asked,
    method,
    context,
    measure: context.metrics.forMethod(asked.method),
  };

  return (decoded, origin, done) => {
    const call = new CallState(shared, decoded, origin, done);
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

/** What all calls of a method share. */
interface Shared<Request, Response> {
  readonly asked: Asked;
  readonly method: UnaryDefinition<Request, Response>;
  readonly context: MethodContext;
  readonly measure: Measure;
}

/**
 * A call with what is only made when a handler asks for it: most reads never need a signal or their bytes. It has
 * methods and no closures: making and collecting those took a third of the time of a read.
 */
class CallState<Request, Response> implements Call<Request, Response> {
  principal: Principal = anonymous;
  private readonly started = performance.now();
  private controller: AbortController | undefined;
  private timer: NodeJS.Timeout | undefined;
  private entered = false;

  constructor(
    private readonly shared: Shared<Request, Response>,
    private readonly decoded: Decoded<Request>,
    private readonly origin: Origin,
    private readonly done: Done,
  ) {}

  get method(): string {
    return this.shared.asked.method;
  }

  get caller(): string {
    return this.principal.actor;
  }

  get encode(): (request: Request) => Uint8Array {
    return this.shared.method.requestSerialize;
  }

  get encodeReply(): (response: Response) => Uint8Array {
    return this.shared.method.responseSerialize;
  }

  get request(): Request {
    return (this.decoded as { request: Request }).request;
  }

  get signal(): AbortSignal {
    if (!this.controller) {
      const controller = new AbortController();
      this.controller = controller;
      const giveUp = () => controller.abort(ServiceError.of('CANCELLED', {}));
      const late = () => controller.abort(ServiceError.of('DEADLINE_EXCEEDED', {}));
      this.timer = setTimeout(late, this.remainingMs);
      this.origin.on('cancelled', giveUp);
      if (this.origin.cancelled) giveUp();
    }
    return this.controller.signal;
  }

  // A little before the caller's own deadline, so that it hears why instead of only that.
  get remainingMs(): number {
    const deadline = Number(this.origin.getDeadline());
    const remaining = deadline - Date.now() - Math.min(100, (deadline - Date.now()) / 5);
    return Number.isFinite(remaining) ? Math.max(0, Math.min(remaining, limits.maxCallMs)) : limits.maxCallMs;
  }

  // gRFC A6: libraries that retry say so.
  get isRetry(): boolean {
    return (this.origin.metadata?.get('grpc-previous-rpc-attempts') ?? []).some((attempts) => attempts !== '0');
  }

  /** Who may not call the method hears nothing else of it, not even that the request cannot be read. */
  enter(): void {
    const { asked, context } = this.shared;
    context.gate.enter();
    this.entered = true;
    this.principal = context.access.admit(credentialsOf(this.origin), asked);
    if ('refused' in this.decoded) throw this.decoded.refused;
    context.access.checkAgents(this.principal, asked, this.decoded.request as object);
  }

  stillAllowed(): void {
    const { asked, context } = this.shared;
    context.access.checkAgents(context.access.standing(this.principal), asked, this.request as object);
  }

  require(permission: Permission): void {
    this.shared.context.access.require(this.principal, permission, this.method);
  }

  succeed(reply: Reply<Response>): void {
    let bytes: Buffer;
    try {
      bytes = encode(this.shared.method, reply);
    } catch (error) {
      this.fail(error);
      return;
    }
    this.end('OK');
    this.done(undefined, bytes);
  }

  fail(thrown: unknown): void {
    const error = this.failure(thrown, this.shared.context.log);
    this.end(error.code, error.reason);
    this.done(error);
  }

  private end(code: string, reason?: string): void {
    const { context, measure } = this.shared;
    clearTimeout(this.timer);
    if (this.entered) context.gate.leave();
    measure(code, performance.now() - this.started);
    if (!context.log.isLevelEnabled('debug')) return;
    const { request_id } = 'refused' in this.decoded ? {} : (this.decoded.request as { request_id?: string });
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

  /** What was thrown as the error that the caller sees; what it must not see goes to the log. */
  private failure(thrown: unknown, log: Log): ServiceError {
    if (thrown instanceof ServiceError) return this.principal.agents ? thrown.withoutSuggestion() : thrown;
    if (this.origin.cancelled) return ServiceError.of('CANCELLED', {});
    return internalError(thrown, this.method, log);
  }
}
