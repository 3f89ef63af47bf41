import { type Client, connectivityState, type ServiceError as GrpcError, Metadata, status } from '@grpc/grpc-js';
import { onAbort } from '../abort.js';
import { limits } from '../limits.js';
import { AgentLLMError } from './error.js';
import { headersOf, type Token } from './headers.js';
import type { Security } from './message.js';

/** How one call is made. */
export interface CallOptions {
  /** Ends the call: it fails with code CANCELLED, and `cause` is the signal's reason. */
  readonly signal?: AbortSignal | undefined;
  /**
   * How long to wait for the answer in ms, retries and the token included; Infinity for as long as it takes. The call
   * fails with code DEADLINE_EXCEEDED then. Default: what `connect` was given, else 10 000.
   */
  readonly deadlineMs?: number | undefined;
  /** Headers to send with it; values of headers that end in `-bin` are base64. */
  readonly headers?: Readonly<Record<string, string>> | undefined;
}

/** A method as it travels: its path `/package.Service/Method`, and how its answer is read. */
export interface Method<Response> {
  readonly path: string;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

/** A request as it travels. */
export interface Outgoing {
  readonly bytes: Buffer;
  /** The request id in it, of a write that has one. */
  readonly requestId?: string | undefined;
}

/** What a call is on its way. */
interface Trip {
  readonly method: string;
  readonly requestId: string | undefined;
  readonly signal: AbortSignal | undefined;
  readonly deadlineMs: number;
  /** When it ends, in ms since 1970. */
  readonly deadline: number;
  /** Nobody waits for it, so it keeps no process alive. */
  readonly background?: boolean;
}

/** A channel that knows its calls: it takes none once it is closed, and ends when the last one has. */
export class Connection {
  private running = 0;
  private closing = false;
  /** Whether there ever was a connection, over which a call could have gone. */
  private connected = false;
  private readonly ended: Promise<void>;
  private end = () => {};
  private client: Client;
  /** Where nobody who prints a client, or an agent of one, sees it. */
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

  /** Takes no calls from now on; resolves when those that run have ended. */
  close(): Promise<void> {
    if (!this.closing && this.running === 0) this.end();
    this.closing = true;
    return this.ended;
  }

  /**
   * Leaves what is at the other end for another connection, which may lead elsewhere; gRPC would keep one that says
   * nothing until its own check finds it dead. Calls that run go on over the old one.
   */
  renew(): void {
    if (this.closing) return;
    this.client.close();
    this.client = this.open();
    this.watch();
  }

  /** @param make the request; what it throws is a failed call like any other. */
  async call<Response>(
    method: Method<Response>,
    make: () => Outgoing,
    { signal, deadlineMs = this.deadlineMs, headers = {} }: CallOptions = {},
  ): Promise<Response> {
    const name = method.path.slice(1);
    return this.counted(name, async () => {
      const { bytes, requestId } = refusing(name, 'request', make);
      const deadline = Date.now() + refusing(name, 'call', () => checkDeadline(deadlineMs));
      const trip = { method: name, requestId, signal, deadlineMs, deadline };
      const metadata = await this.headers(trip, headers);
      return this.sent(trip, this.request(method, bytes, metadata, trip));
    });
  }

  /**
   * Opens a stream and hands its messages over as they come; resolves when the service ends it, rejects with what it
   * failed with. It has no deadline, and close() waits for it: the signal ends it. What `onMessage` throws ends it too.
   */
  async stream<Response>(
    method: Method<Response>,
    make: () => Outgoing,
    onMessage: (message: Response) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const name = method.path.slice(1);
    return this.counted(name, async () => {
      const { bytes, requestId } = refusing(name, 'request', make);
      // The token alone has a deadline.
      const asking = { method: name, requestId, signal, deadlineMs: this.deadlineMs, background: true };
      const metadata = await this.headers({ ...asking, deadline: Date.now() + this.deadlineMs }, {});
      const trip = { ...asking, deadlineMs: Number.POSITIVE_INFINITY, deadline: Number.POSITIVE_INFINITY };
      return this.sent(trip, this.read(method, bytes, metadata, signal, onMessage));
    });
  }

  /** Runs a call while the connection is open, and ends the connection behind the last one. */
  private async counted<R>(method: string, run: () => Promise<R>): Promise<R> {
    if (this.closing)
      throw AgentLLMError.here('This connection was closed; connect again', { code: 'CANCELLED', method });
    this.running++;
    try {
      return await run();
    } finally {
      this.running--;
      // Behind those who wait for the call: who closes the connection finds that they have its answer.
      if (this.closing && this.running === 0) setImmediate(this.end);
    }
  }

  private async headers(trip: Trip, own: Readonly<Record<string, string>>): Promise<Metadata> {
    if (trip.signal?.aborted) throw aborted(trip);
    const token = typeof this.#token === 'function' ? await askFor(this.#token, trip) : this.#token;
    return refusing(trip.method, 'call', () => headersOf(token, own));
  }

  private async sent<R>(trip: Trip, answer: Promise<R>): Promise<R> {
    try {
      return await answer;
    } catch (error) {
      throw await this.failure(error as GrpcError, trip);
    }
  }

  private request<R>(
    { path, responseDeserialize }: Method<R>,
    bytes: Buffer,
    metadata: Metadata,
    trip: Pick<Trip, 'signal' | 'deadline'>,
  ): Promise<R> {
    const { signal, deadline } = trip;
    return new Promise((resolve, reject) => {
      const settle = (error: GrpcError | null, response?: R) => {
        release();
        if (error) reject(error);
        else resolve(response as R);
      };
      const call = this.client.makeUnaryRequest(path, asIs, responseDeserialize, bytes, metadata, { deadline }, settle);
      const release = onAbort(signal, () => call.cancel());
    });
  }

  private read<R>(
    { path, responseDeserialize }: Method<R>,
    bytes: Buffer,
    metadata: Metadata,
    signal: AbortSignal,
    onMessage: (message: R) => void,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      let failure: Error | undefined;
      let taken = true;
      const call = this.client.makeServerStreamRequest(path, asIs, responseDeserialize, bytes, metadata);
      const release = onAbort(signal, () => call.cancel());
      call.on('data', (message: R) => {
        try {
          if (!signal.aborted && taken) onMessage(message);
        } catch (thrown) {
          // It would be nobody's exception here, and end the process.
          taken = false;
          failure = untakable(thrown);
          call.cancel();
        }
      });
      // An error comes at once, the end behind the messages that are there already.
      call.on('error', (error) => {
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

  private async failure(error: GrpcError, trip: Trip): Promise<AgentLLMError> {
    if (error.code === status.CANCELLED && trip.signal?.aborted) return aborted(trip);
    const unsent = !this.connected;
    const lastFailure = unsent && error.code === status.DEADLINE_EXCEEDED ? await this.lastFailure() : undefined;
    return AgentLLMError.from(error, trip.method, {
      ...trip,
      address: this.address,
      security: this.security,
      unsent,
      lastFailure,
    });
  }

  /**
   * Why there is no connection, where that is known: a call of a method that is not sent again is told of it at once,
   * while one that is sent again hears of its deadline alone.
   */
  private async lastFailure(): Promise<GrpcError | undefined> {
    const probe = { path: '/grpc.health.v1.Health/Check', responseDeserialize: () => undefined };
    const trip = { signal: undefined, deadline: Date.now() + PROBE_MS };
    const error = await this.request(probe, Buffer.alloc(0), new Metadata(), trip).catch((error: GrpcError) => error);
    return error?.code === status.UNAVAILABLE ? error : undefined;
  }

  private watch(channel = this.client.getChannel()): void {
    const state = channel.getConnectivityState(false);
    if (state === connectivityState.READY) this.connected = true;
    if (this.connected || state === connectivityState.SHUTDOWN) return;
    channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, () => this.watch(channel));
  }
}

/** A connection that is refused is refused in less than this. */
const PROBE_MS = 30;

const untakable = (thrown: unknown): GrpcError => {
  const details = `A message could not be taken: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
  return Object.assign(new Error(details), { code: status.INTERNAL, details, metadata: new Metadata() });
};

const asIs = (bytes: Buffer) => bytes;

/** What cannot be sent is refused here, with a rejected promise like every other failure. */
export function refusing<T>(method: string, what: string, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw AgentLLMError.here(`The ${what} cannot be sent: ${why}`, { code: 'INVALID_ARGUMENT', method, cause });
  }
}

/**
 * A number of milliseconds as a call can have it: at most what a timer can, beyond which there is no end. grpc-js
 * rejects a promise of its own that nobody handles when a deadline does not fit into its header.
 */
export function checkDeadline(ms: number): number {
  if (typeof ms !== 'number' || Number.isNaN(ms)) throw new TypeError(`deadlineMs must be a number, not ${String(ms)}`);
  return ms > limits.maxTimerMs ? Number.POSITIVE_INFINITY : Math.max(ms, 0);
}

const aborted = ({ method, requestId, signal }: Trip) =>
  AgentLLMError.here('The caller aborted the call', { code: 'CANCELLED', method, requestId, cause: signal?.reason });

/** Asks for a token, no longer than the call may take. */
function askFor(token: () => string | Promise<string>, trip: Trip): Promise<string> {
  const { method, requestId, signal, deadline, background } = trip;
  const facts = { method, requestId };
  const remaining = deadline - Date.now();
  let timer: NodeJS.Timeout | undefined;
  let release = () => {};
  const given = new Promise<string>((resolve, reject) => {
    const refused = (cause: unknown) => {
      const why = cause instanceof Error ? cause.message : String(cause);
      const text = `There is no token for the call: ${why}`;
      reject(AgentLLMError.here(text, { ...facts, code: 'UNAUTHENTICATED', cause }));
    };
    const late = () =>
      reject(AgentLLMError.here('The token did not come before the deadline', { ...facts, code: 'DEADLINE_EXCEEDED' }));
    release = onAbort(signal, () => reject(aborted(trip)));
    if (Number.isFinite(remaining)) timer = setTimeout(late, remaining);
    if (background) timer?.unref();
    new Promise<string>((settle) => settle(token())).then(resolve, refused);
  });
  return given.finally(() => {
    clearTimeout(timer);
    release();
  });
}
