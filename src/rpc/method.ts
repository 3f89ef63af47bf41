import type {
  handleUnaryCall,
  ServerUnaryCall,
  ServiceDefinition,
  sendUnaryData,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { Log } from '../log.js';
import type { Metrics } from '../metrics.js';
import type { Contract } from './contract.js';
import { grpcStatus } from './status.js';

/** One call as a handler sees it. */
export interface Call<Request> {
  readonly request: Request;
  /** Full name of the method, `agentllm.v1.AgentService/GetAgent`. */
  readonly method: string;
  /** Who calls, for the history. */
  readonly caller: string;
  /** The request as it stands for a request id: encoded anew, so that equal requests have equal bytes. */
  readonly body: () => Uint8Array;
  /** Aborts when the caller cancels, the deadline passes or the longest time for a call is over. */
  readonly signal: AbortSignal;
}

/** An answer: the message, or its bytes where they stand ready. */
export type Reply<Response> = Response | Uint8Array;
export type Handler<Request, Response> = (call: Call<Request>) => Reply<Response> | Promise<Reply<Response>>;

interface UnaryDefinition<Request, Response> {
  readonly path: string;
  readonly requestDeserialize: (bytes: Buffer) => Request;
  readonly requestSerialize: (request: Request) => Buffer;
  readonly responseSerialize: (response: Response) => Buffer;
}

/** The handlers of a service, one for each method of its definition: a missing or misspelt one does not compile. */
export type Handlers<Service> = {
  readonly [M in keyof Service]: Service[M] extends UnaryDefinition<infer Request, infer Response>
    ? Handler<Request, Response>
    : never;
};

/** What the adapter needs of the server that it works for. */
export interface MethodContext {
  readonly contract: Contract;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly gate: Gate;
}

/** Lets calls in as long as there is room, and none once the server drains. */
export class Gate {
  private running = 0;
  private draining = false;

  enter(): void {
    if (this.draining) throw ServiceError.of('SERVER_SHUTTING_DOWN', {});
    if (this.running >= limits.maxConcurrentCalls)
      throw ServiceError.of('TOO_MANY_CALLS', { calls: String(this.running) });
    this.running++;
  }

  leave(): void {
    this.running--;
  }

  drain(): void {
    this.draining = true;
  }
}

type Decoded<Request> = { readonly request: Request } | { readonly malformed: true };

/**
 * Makes a grpc-js service of a definition and its handlers. It is the only place
 * where calls begin and end: it decodes, runs the handler
 * with its deadline, encodes, maps errors, counts and logs. grpc-js turns a
 * rejected handler into an unhandled rejection and an undecodable request into
 * INTERNAL, so nothing of that is left to it.
 */
export function serviceOf<Service extends object>(
  definition: Service,
  handlers: Handlers<Service>,
  context: MethodContext,
): { definition: ServiceDefinition; implementation: UntypedServiceImplementation } {
  const methods: Record<string, object> = {};
  const implementation: UntypedServiceImplementation = {};
  for (const [name, method] of Object.entries(definition) as [string, UnaryDefinition<unknown, unknown>][]) {
    methods[name] = {
      ...method,
      requestDeserialize: (bytes: Buffer) => decode(method, bytes),
      responseSerialize: (reply: Reply<unknown>) => encode(method, reply),
    };
    const handler = handlers[name as keyof Service] as Handler<unknown, unknown>;
    implementation[name] = unary(method, handler, context) as handleUnaryCall<unknown, unknown>;
  }
  return { definition: methods as unknown as ServiceDefinition, implementation };
}

function decode<Request>(method: UnaryDefinition<Request, unknown>, bytes: Buffer): Decoded<Request> {
  try {
    return { request: method.requestDeserialize(bytes) };
  } catch {
    return { malformed: true };
  }
}

function encode<Response>(method: UnaryDefinition<unknown, Response>, reply: Reply<Response>): Buffer {
  if (Buffer.isBuffer(reply)) return reply;
  return reply instanceof Uint8Array ? Buffer.from(reply) : method.responseSerialize(reply);
}

function unary<Request, Response>(
  method: UnaryDefinition<Request, Response>,
  handler: Handler<Request, Response>,
  context: MethodContext,
) {
  const name = method.path.slice(1);
  // Nobody has to sign in yet; a method that does not say what it needs is refused all the same.
  context.contract.permission(method.path);
  const requestType = context.contract.requestType(method.path);
  const measure = context.metrics.forMethod(name);

  return (grpc: ServerUnaryCall<Decoded<Request>, Response>, callback: sendUnaryData<Reply<Response>>): void => {
    const started = performance.now();
    const call = new CallState(grpc, name, method.requestSerialize);
    const succeed = (reply: Reply<Response>) => {
      call.end();
      measure('OK', performance.now() - started);
      if (context.log.isLevelEnabled('debug')) context.log.debug({ method: name }, 'call');
      callback(null, reply);
    };
    const fail = (thrown: unknown) => {
      call.end();
      const error = call.failure(thrown, context.log);
      measure(error.code, performance.now() - started);
      if (context.log.isLevelEnabled('debug'))
        context.log.debug({ method: name, code: error.code, reason: error.reason }, 'call');
      callback(grpcStatus(error));
    };
    try {
      if ('malformed' in grpc.request) throw ServiceError.of('MALFORMED_REQUEST', { type: requestType });
      context.gate.enter();
      call.onEnd = () => context.gate.leave();
      const reply = handler(call);
      // What is answered from memory is answered at once: a promise would cost a turn of the loop.
      if (reply instanceof Promise) reply.then(succeed, fail);
      else succeed(reply);
    } catch (error) {
      fail(error);
    }
  };
}

let calls = 0;

/** A call with what is only made when a handler asks for it: most reads never need a signal or their bytes. */
class CallState<Request> implements Call<Request> {
  readonly caller = 'anonymous';
  private controller: AbortController | undefined;
  private timer: NodeJS.Timeout | undefined;

  constructor(
    private readonly grpc: ServerUnaryCall<Decoded<Request>, unknown>,
    readonly method: string,
    private readonly serialize: (request: Request) => Buffer,
  ) {}

  get request(): Request {
    return (this.grpc.request as { request: Request }).request;
  }

  readonly body = (): Uint8Array => this.serialize(this.request);

  get signal(): AbortSignal {
    if (!this.controller) {
      const controller = new AbortController();
      this.controller = controller;
      this.timer = setTimeout(() => controller.abort(), this.remainingMs());
      this.grpc.on('cancelled', () => controller.abort());
    }
    return this.controller.signal;
  }

  // A little before the caller's own deadline, so that it hears why instead of only that.
  private remainingMs(): number {
    const deadline = Number(this.grpc.getDeadline());
    const remaining = deadline - Date.now() - Math.min(50, (deadline - Date.now()) / 10);
    return Number.isFinite(remaining) ? Math.max(0, Math.min(remaining, limits.maxCallMs)) : limits.maxCallMs;
  }

  /** Runs when the call ends, however it does. */
  onEnd: (() => void) | undefined;

  end(): void {
    clearTimeout(this.timer);
    this.onEnd?.();
  }

  /** What was thrown as the error that the caller sees; what it must not see goes to the log. */
  failure(thrown: unknown, log: Log): ServiceError {
    if (thrown instanceof ServiceError) return thrown;
    if (this.grpc.cancelled) return ServiceError.of('CANCELLED', {});
    const call = `${process.pid.toString(36)}-${(++calls).toString(36)}`;
    log.error({ call, method: this.method, err: thrown }, 'call failed inside the service');
    return ServiceError.of('INTERNAL', { call });
  }
}
