import { ServiceError } from '../../errors.js';
import type { ConnectionResponses } from '../../net/unread_responses.js';
import type { MethodParts } from './call.js';
import type { CallTransport } from './call_transport.js';
import { internalError } from './internal_error.js';
import type { EndingSink, StreamCall, StreamHandler } from './method.js';

/**
 * Creates the sink of a stream.
 * @param toServiceError maps an error of the handler to the error for the caller.
 * @param connection counts the bytes that the client has not read; undefined for a transport that counts them itself.
 */
export type MakeSink = (
  toServiceError: (thrown: unknown) => ServiceError,
  connection: ConnectionResponses | undefined,
) => EndingSink;

/** Opens one stream of a method: authorizes the caller, decodes the request and starts the handler. */
export type OpenStream = (request: Uint8Array, transport: CallTransport, makeSink: MakeSink) => void;

export type StreamParts<Request> = Omit<MethodParts<Request, unknown>, 'method' | 'measure'>;

/** The counterpart of a unary runner for methods whose response is a stream. */
export function streamOpener<Request>(parts: StreamParts<Request>, handler: StreamHandler<Request>): OpenStream {
  const { requested, context } = parts;
  const { method } = requested;
  const measure = context.metrics.forMethod(method);
  return (bytes, transport, makeSink) => {
    const started = performance.now();
    const controller = new AbortController();
    const { connection } = transport;
    const sink = makeSink((thrown) => internalError(thrown, method, context.log), connection);
    sink.onClose(() => {
      controller.abort(ServiceError.of('CANCELLED', {}));
      measure(sink.code, performance.now() - started);
      context.log.debug({ method, code: sink.code }, 'stream');
    });
    const begin = async () => {
      const admitted = admit(parts, bytes, transport, sink);
      connection?.checkRoom();
      const checkOpen = () => context.limiter.checkOpen();
      await handler({ ...admitted, method, signal: controller.signal, sink, checkOpen });
    };
    begin().catch((thrown) => sink.end(thrown));
  };
}

/**
 * Admits a stream and registers it with the open streams. It does not count as a concurrent call, because it may
 * wait long before its first message, and reads must not be rejected because of waiting streams.
 */
function admit<Request>(
  { requested, read, context: { limiter, authorizer, openStreams } }: StreamParts<Request>,
  bytes: Uint8Array,
  transport: CallTransport,
  sink: EndingSink,
): Pick<StreamCall<Request>, 'request' | 'caller' | 'principal'> {
  limiter.checkOpen();
  const principal = authorizer.admit(transport.credentials, requested);
  const request = read(bytes);
  authorizer.checkAgents(principal, requested, request as object);
  // Keeps only the references: otherwise the whole request would stay in memory as long as the stream is open.
  const refs = principal.agents ? authorizer.refsIn(requested, request as object) : [];
  openStreams.add(sink, principal, {
    caller: () => authorizer.currentPrincipal(principal),
    agents: () => authorizer.checkOpenStream(principal, requested, refs),
  });
  return { request, caller: principal.actor, principal };
}
