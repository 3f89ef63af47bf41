import { CallState, type Done, type MethodParts, type RequestBytes, readerOf } from './call.js';
import { type CallTransport, type InvokeOptions, transportOf } from './call_transport.js';
import { duplexOpener, type OpenDuplex } from './duplex.js';
import type {
  DispatchContext,
  DuplexDefinition,
  DuplexHandler,
  Handler,
  HandlerResult,
  Handlers,
  StreamDefinition,
  StreamHandler,
  UnaryDefinition,
} from './method.js';
import { type OpenStream, streamOpener } from './streaming.js';

/**
 * Calls a method with the bytes of its request. A transport that has to create the bytes first passes a function; an
 * error of that function fails the call. Rejects only with a ServiceError.
 */
export type Invoke = (request: RequestBytes, options?: InvokeOptions) => Promise<Uint8Array>;

/** Runs one call and reports its outcome once. */
export type Run = (request: RequestBytes, transport: CallTransport, done: Done) => void;

/** A unary method that any transport can call. */
export interface UnaryMethod {
  readonly path: string;
  readonly run: Run;
}

/** A server-streaming method that any transport can call. */
export interface StreamMethod {
  readonly path: string;
  readonly open: OpenStream;
}

/** A bidirectional streaming method, which only gRPC can call. */
export interface DuplexMethod {
  readonly path: string;
  readonly open: OpenDuplex;
}

/** A service of the contract without a transport. */
export interface ApiService {
  /** The definition that ts-proto generates: method name → path and codecs. */
  readonly definition: object;
  /** The unary methods, by their names in the definition. */
  readonly unary: ReadonlyMap<string, UnaryMethod>;
  readonly streams: ReadonlyMap<string, StreamMethod>;
  readonly duplexes: ReadonlyMap<string, DuplexMethod>;
}

type AnyDefinition = UnaryDefinition<unknown, unknown> | StreamDefinition<unknown> | DuplexDefinition<unknown>;

/**
 * Creates a service from its definition and its handlers. All calls of all transports run through it: a call is
 * authorized, decoded, run with its deadline, encoded, counted and logged.
 */
export function apiServiceOf<Definition extends object>(
  definition: Definition,
  handlers: Handlers<Definition>,
  context: DispatchContext,
): ApiService {
  const unary = new Map<string, UnaryMethod>();
  const streams = new Map<string, StreamMethod>();
  const duplexes = new Map<string, DuplexMethod>();
  for (const [name, method] of Object.entries(definition) as [string, AnyDefinition][]) {
    const { path } = method;
    const read = readerOf(method, context.contract.requestType(path));
    // `rule` throws for a method without a permission, so such a method cannot be registered.
    const requested = { method: path.slice(1), rule: context.contract.rule(path) };
    const handler: unknown = handlers[name as keyof Definition];
    if ('requestStream' in method && method.requestStream) {
      const open = duplexOpener({ requested, read, context }, handler as DuplexHandler<unknown>);
      duplexes.set(name, { path, open });
      continue;
    }
    if (method.responseStream) {
      const open = streamOpener({ requested, read, context }, handler as StreamHandler<unknown>);
      streams.set(name, { path, open });
      continue;
    }
    const run = runnerOf({ method, requested, read, context }, handler as Handler<unknown, unknown>);
    unary.set(name, { path, run });
  }
  return { definition, unary, streams, duplexes };
}

/** A unary method as a function that returns a promise, for transports that have no call object. */
export const invokerOf =
  ({ run }: UnaryMethod): Invoke =>
  (request, options = {}) =>
    new Promise((resolve, reject) => {
      run(request, transportOf(options), (error, response) => (error ? reject(error) : resolve(response as Buffer)));
    });

function runnerOf<Request, Response>(
  parts: Omit<MethodParts<Request, Response>, 'measure'>,
  handler: Handler<Request, Response>,
): Run {
  const shared = { ...parts, measure: parts.context.metrics.forMethod(parts.requested.method) };

  return (request, transport, done) => {
    const call = new CallState(shared, request, transport, done);
    let result: HandlerResult<Response> | Promise<HandlerResult<Response>>;
    try {
      call.enter();
      result = handler(call);
    } catch (error) {
      return call.fail(error);
    }
    // A response from memory is sent at once, because an `await` would delay it by one turn of the event loop.
    if (!(result instanceof Promise)) call.succeed(result);
    else
      result.then(
        (response) => call.succeedLater(response),
        (error) => call.fail(error),
      );
  };
}
