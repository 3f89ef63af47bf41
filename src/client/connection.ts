import {
  type Client,
  type ClientReadableStream,
  connectivityState,
  type ServiceError as GrpcError,
  Metadata,
  status,
} from '@grpc/grpc-js';
import { onAbort } from '../abort.js';
import { limits } from '../limits.js';
import { AgentLLMError } from './error.js';
import { headersOf, type Token } from './headers.js';
import type { Security } from './message.js';

/** Options of one call. */
export interface CallOptions {
  /** Cancels the call: it fails with code CANCELLED, and `cause` is the reason of the signal. */
  readonly signal?: AbortSignal | undefined;
  /**
   * How long to wait for the response in ms, including retries and the token function; Infinity: without a limit. After
   * this time the call fails with code DEADLINE_EXCEEDED. Default: `deadlineMs` of `connect`, else 10 000.
   */
  readonly deadlineMs?: number | undefined;
  /** Additional request headers. The values of headers whose name ends in `-bin` are base64. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

/** A method on the wire: its path `/package.Service/Method`, and the decoder of its response. */
export interface Method<Response> {
  readonly path: string;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

/** An encoded request. */
export interface Outgoing {
  readonly bytes: Buffer;
  /** The request id, if the request is a write that has one. */
  readonly requestId?: string | undefined;
}

/** The client's side of a bidirectional stream. */
export interface RequestStream {
  send(bytes: Buffer): void;
  /** Ends the client's side; the service then ends the stream. */
  end(): void;
}

/** A call that receives messages. */
type MessageStream = Pick<ClientReadableStream<unknown>, 'on' | 'cancel'>;

/** The parameters of a call in progress. */
interface CallContext {
  readonly method: string;
  readonly requestId: string | undefined;
  readonly signal: AbortSignal | undefined;
  readonly deadlineMs: number;
  /** The absolute deadline, in ms since 1970. */
  readonly deadline: number;
  /** The call does not keep the process alive, because no caller waits for it. */
  readonly background?: boolean;
}

/** A channel that counts its calls. After `close` it rejects new ones, and it closes when the last one has ended. */
export class Connection {
  private running = 0;
  private closing = false;
  /** Whether there ever was a connection, so that the service may have received a call. */
  private connected = false;
  private readonly ended: Promise<void>;
  private end = () => {};
  private client: Client;
  /** A private field, so that printing or serializing a client does not reveal the token. */
  readonly #token: Token | undefined;

  constructor(
    private readonly open: () => Client,
    private readonly address: string,
    token: Token | undefined,
    readonly deadlineMs: number,
    private readonly security: Security,
  ) {
    this.#token = token;
    this.client = open();
    this.watch();
    this.ended = new Promise((resolve) => {
      this.end = () => {
        this.client.close();
        resolve();
      };
    });
  }

  /** Rejects new calls from now on; resolves when the calls in progress have ended. */
  close(): Promise<void> {
    if (!this.closing && this.running === 0) this.end();
    this.closing = true;
    return this.ended;
  }

  /**
   * Opens a new connection in place of a silent one; it may reach another replica. gRPC itself would keep the old one
   * until its keepalive fails. Calls in progress continue on the old connection.
   */
  renew(): void {
    if (this.closing) return;
    this.client.close();
    this.client = this.open();
    this.watch();
  }

  /** Makes a unary call. @param make encodes the request; if it throws, the call fails with INVALID_ARGUMENT. */
  async call<Response>(
    method: Method<Response>,
    make: () => Outgoing,
    { signal, deadlineMs = this.deadlineMs, headers = {} }: CallOptions = {},
  ): Promise<Response> {
    const name = method.path.slice(1);
    return this.counted(name, async () => {
      const { bytes, requestId } = asCallError(name, 'request', make);
      const deadline = Date.now() + asCallError(name, 'call', () => checkDeadline(deadlineMs));
      const context = { method: name, requestId, signal, deadlineMs, deadline };
      const metadata = await this.headers(context, headers);
      return this.withErrors(context, this.request(method, bytes, metadata, context));
    });
  }

  /**
   * Opens a stream and passes each message to `onMessage`. Resolves when the service ends the stream, rejects when it
   * fails. The stream has no deadline and ends when the signal aborts or `onMessage` throws; close() waits for that.
   */
  async stream<Response>(
    method: Method<Response>,
    make: () => Outgoing,
    onMessage: (message: Response) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const open = (metadata: Metadata) => {
      const { bytes } = asCallError(method.path.slice(1), 'request', make);
      return this.client.makeServerStreamRequest(method.path, identity, method.responseDeserialize, bytes, metadata);
    };
    return this.background(method, open, onMessage, signal);
  }

  /** Opens a bidirectional stream, like `stream`. @param onOpen receives the client's side. */
  async duplex<Response>(
    method: Method<Response>,
    onOpen: (requests: RequestStream) => void,
    onMessage: (message: Response) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const open = (metadata: Metadata) => {
      const call = this.client.makeBidiStreamRequest(method.path, identity, method.responseDeserialize, metadata);
      onOpen({ send: (bytes) => void call.write(bytes), end: () => void call.end() });
      return call;
    };
    return this.background(method, open, onMessage, signal);
  }

  private async background<Response>(
    { path }: Method<Response>,
    open: (metadata: Metadata) => MessageStream,
    onMessage: (message: Response) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const method = path.slice(1);
    return this.counted(method, async () => {
      // Only the token function has a deadline.
      const opening = { method, requestId: undefined, signal, deadlineMs: this.deadlineMs, background: true };
      const metadata = await this.headers({ ...opening, deadline: Date.now() + this.deadlineMs }, {});
      const context = { ...opening, deadlineMs: Number.POSITIVE_INFINITY, deadline: Number.POSITIVE_INFINITY };
      return this.withErrors(context, this.read(open(metadata), signal, onMessage));
    });
  }

  /** Runs a call unless the connection is closed, and closes a closing connection after its last call. */
  private async counted<R>(method: string, run: () => Promise<R>): Promise<R> {
    if (this.closing)
      throw AgentLLMError.here('This connection was closed; connect again', { code: 'CANCELLED', method });
    this.running++;
    try {
      return await run();
    } finally {
      this.running--;
      // Deferred until the callers of this call have received its result.
      if (this.closing && this.running === 0) setImmediate(this.end);
    }
  }

  private async headers(context: CallContext, callHeaders: Readonly<Record<string, string>>): Promise<Metadata> {
    if (context.signal?.aborted) throw aborted(context);
    const token = typeof this.#token === 'function' ? await requestToken(this.#token, context) : this.#token;
    return asCallError(context.method, 'call', () => headersOf(token, callHeaders));
  }

  /** Converts errors of grpc-js. */
  private async withErrors<R>(context: CallContext, response: Promise<R>): Promise<R> {
    try {
      return await response;
    } catch (error) {
      throw await this.failure(error as GrpcError, context);
    }
  }

  private request<R>(
    { path, responseDeserialize }: Method<R>,
    bytes: Buffer,
    metadata: Metadata,
    { signal, deadline }: Pick<CallContext, 'signal' | 'deadline'>,
  ): Promise<R> {
    return new Promise((resolve, reject) => {
      const settle = (error: GrpcError | null, response?: R) => {
        release();
        if (error) reject(error);
        else resolve(response as R);
      };
      const call = this.client.makeUnaryRequest(
        path,
        identity,
        responseDeserialize,
        bytes,
        metadata,
        { deadline },
        settle,
      );
      const release = onAbort(signal, () => call.cancel());
    });
  }

  private read<R>(call: MessageStream, signal: AbortSignal, onMessage: (message: R) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      let failure: Error | undefined;
      let accepting = true;
      const release = onAbort(signal, () => call.cancel());
      call.on('data', (message: R) => {
        try {
          if (!signal.aborted && accepting) onMessage(message);
        } catch (thrown) {
          // An error that is thrown in this listener would be an uncaught exception, which ends the process.
          accepting = false;
          failure = messageFailure(thrown);
          call.cancel();
        }
      });
      // The error event can precede messages that have already been received.
      call.on('error', (error: Error) => {
        failure ??= error;
        setImmediate(settle);
      });
      const settle = () => {
        release();
        if (failure) reject(failure);
        else resolve();
      };
      call.on('end', () => setImmediate(settle));
    });
  }

  private async failure(error: GrpcError, context: CallContext): Promise<AgentLLMError> {
    if (error.code === status.CANCELLED && context.signal?.aborted) return aborted(context);
    const unsent = !this.connected;
    const lastFailure = unsent && error.code === status.DEADLINE_EXCEEDED ? await this.lastFailure() : undefined;
    return AgentLLMError.from(error, context.method, {
      ...context,
      address: this.address,
      security: this.security,
      unsent,
      lastFailure,
    });
  }

  /**
   * Why there is no connection, if that is known. grpc-js reports the cause for methods without a retry policy; a
   * method with retries fails with its deadline alone, so a health check without retries is sent to get the cause.
   */
  private async lastFailure(): Promise<GrpcError | undefined> {
    const probe = { path: '/grpc.health.v1.Health/Check', responseDeserialize: () => undefined };
    const options = { signal: undefined, deadline: Date.now() + PROBE_MS };
    const error = await this.request(probe, Buffer.alloc(0), new Metadata(), options).catch((e: GrpcError) => e);
    return error?.code === status.UNAVAILABLE ? error : undefined;
  }

  private watch(channel = this.client.getChannel()): void {
    const state = channel.getConnectivityState(false);
    if (state === connectivityState.READY) this.connected = true;
    if (this.connected || state === connectivityState.SHUTDOWN) return;
    channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, () => this.watch(channel));
  }
}

/** A refused connection is reported in less than this time. */
const PROBE_MS = 30;

const messageFailure = (thrown: unknown): GrpcError => {
  const details = `A message could not be processed: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
  return Object.assign(new Error(details), { code: status.INTERNAL, details, metadata: new Metadata() });
};

const identity = (bytes: Buffer) => bytes;

/** Runs `make` and converts what it throws to an AgentLLMError with code INVALID_ARGUMENT. */
export function asCallError<T>(method: string, what: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw AgentLLMError.here(`The ${what} cannot be sent: ${reason}`, { code: 'INVALID_ARGUMENT', method, cause });
  }
}

/**
 * Validates a timeout in ms; throws a TypeError if it is not a number. More than a timer can hold (2^31 − 1 ms) becomes
 * Infinity: grpc-js causes an unhandled rejection if a deadline does not fit into its header.
 */
export function checkDeadline(ms: number): number {
  if (typeof ms !== 'number' || Number.isNaN(ms)) throw new TypeError(`deadlineMs must be a number, not ${String(ms)}`);
  return ms > limits.maxTimerMs ? Number.POSITIVE_INFINITY : Math.max(ms, 0);
}

const aborted = ({ method, requestId, signal }: CallContext) =>
  AgentLLMError.here('The caller aborted the call', { code: 'CANCELLED', method, requestId, cause: signal?.reason });

/** Calls the token function; rejects when the deadline of the call passes or its signal aborts. */
function requestToken(getToken: () => string | Promise<string>, context: CallContext): Promise<string> {
  const { method, requestId, signal, deadline, background } = context;
  const facts = { method, requestId };
  const remaining = deadline - Date.now();
  let timer: NodeJS.Timeout | undefined;
  let release = () => {};
  const token = new Promise<string>((resolve, reject) => {
    const onFailure = (cause: unknown) => {
      const reason = cause instanceof Error ? cause.message : String(cause);
      const text = `There is no token for the call: ${reason}`;
      reject(AgentLLMError.here(text, { ...facts, code: 'UNAUTHENTICATED', cause }));
    };
    const onDeadline = () => {
      const text = 'The token function did not return before the deadline';
      reject(AgentLLMError.here(text, { ...facts, code: 'DEADLINE_EXCEEDED' }));
    };
    release = onAbort(signal, () => reject(aborted(context)));
    if (Number.isFinite(remaining)) timer = setTimeout(onDeadline, remaining);
    if (background) timer?.unref();
    new Promise<string>((settle) => settle(getToken())).then(resolve, onFailure);
  });
  return token.finally(() => {
    clearTimeout(timer);
    release();
  });
}
