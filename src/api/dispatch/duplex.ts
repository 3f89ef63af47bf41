import { ServiceError } from '../../errors.js';
import type { CallTransport } from './call_transport.js';
import { internalError } from './internal_error.js';
import type { DuplexHandler, EndingSink, ReceivedMessage } from './method.js';
import type { MakeSink, StreamParts } from './streaming.js';

/** The encoded messages that arrive on a stream. */
export interface IncomingMessages {
  /**
   * Receives the next message; undefined when there is no further message. Call it again only after the promise has
   * resolved.
   */
  next(): Promise<Uint8Array | undefined>;
  /** Ends the counting of a message as memory of the connection. */
  release(message: Uint8Array): void;
  /**
   * Receives no further messages. A pending `next` and later calls reject with the error, or resolve to undefined
   * without an error.
   */
  end(error?: Error): void;
}

/** Opens one bidirectional stream: authorizes the caller and starts the handler. */
export type OpenDuplex = (messages: IncomingMessages, transport: CallTransport, makeSink: MakeSink) => void;

/** The counterpart of a runner for methods whose request and response are streams. */
export function duplexOpener<Request>(parts: StreamParts<Request>, handler: DuplexHandler<Request>): OpenDuplex {
  const { requested, context } = parts;
  const { method } = requested;
  const measure = context.metrics.forMethod(method);
  return (messages, transport, makeSink) => {
    const started = performance.now();
    const controller = new AbortController();
    const sink = makeSink((thrown) => internalError(thrown, method, context.log), transport.connection);
    const removeListener = context.limiter.onDrain(() => messages.end(ServiceError.of('SERVER_SHUTTING_DOWN', {})));
    sink.onClose(() => {
      removeListener();
      messages.end();
      controller.abort(ServiceError.of('CANCELLED', {}));
      measure(sink.code, performance.now() - started);
      context.log.debug({ method, code: sink.code }, 'stream');
    });
    const begin = async () => {
      const principal = admit(parts, transport, sink);
      const { signal } = controller;
      await handler({ messages: read(parts, messages), caller: principal.actor, principal, method, signal, sink });
      sink.finish();
    };
    begin().catch((thrown) => sink.end(thrown));
  };
}

/** Admits a stream, which then ends as soon as its caller loses access. */
function admit<Request>(
  { requested, context: { limiter, authorizer, openStreams } }: StreamParts<Request>,
  transport: CallTransport,
  sink: EndingSink,
) {
  limiter.checkOpen();
  const principal = authorizer.admit(transport.credentials, requested);
  transport.connection?.checkRoom();
  const caller = () => void authorizer.currentPrincipal(principal);
  // The agents are checked for each message.
  openStreams.add(sink, principal, { caller, agents: () => undefined });
  return principal;
}

async function* read<Request>(
  parts: StreamParts<Request>,
  messages: IncomingMessages,
): AsyncGenerator<ReceivedMessage<Request>> {
  for (;;) {
    const bytes = await messages.next();
    if (!bytes) return;
    yield { request: parts.read(bytes), bytes: bytes.length, release: () => messages.release(bytes) };
  }
}
