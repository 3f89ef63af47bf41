import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';

/** Overhead in bytes of an open request, and of each chunk of its data. */
const REQUEST_COST = 4096;
const CHUNK_COST = 256;
/** A request of at most this many bytes is not counted once it is complete, because the number of calls is limited. */
const SMALL_BYTES = 16_384;
const SWEEP_MS = 1_000;
/**
 * Small requests of at most this age may exceed the limit of all connections, up to this factor. 5 000 watches that are
 * opened at the same time are normal use: they are complete as soon as the event loop has read them.
 */
const YOUNG_MS = 5_000;
const BURST_FACTOR = 4;

/** The stream of a request. */
export interface RequestStream {
  /** Ends the request with an error and discards its data. */
  refuse(error: ServiceError): void;
  /** Whether all of the request has arrived. */
  isComplete(request: IncomingRequest): boolean;
}

export interface BudgetLimits {
  /** Bytes of one request. */
  readonly request: number;
  /** Bytes of the unfinished requests of one connection, and of all connections. */
  readonly connection: number;
  readonly unfinished: number;
  /** Bytes of complete requests that have no response yet. */
  readonly inProgress: number;
}

/** The unfinished requests of one connection, oldest first, and their cost in bytes. */
class PendingRequests {
  readonly requests = new Set<IncomingRequest>();
  /** Those that are not small. */
  readonly large = new Set<IncomingRequest>();
  cost = 0;

  /** The oldest request that is large, or that began before `earliest`. */
  oldestEndable(earliest: number): IncomingRequest | undefined {
    const oldest = firstOf(this.requests);
    return oldest && oldest.began < earliest ? oldest : firstOf(this.large);
  }
}

/**
 * Bounds the memory of requests over all calls. grpc-js and Node buffer a request until it is complete, however long
 * that takes. When unfinished requests use too much memory, the oldest request of the connection that uses the most is
 * ended: a normal request is complete within milliseconds, so this ends requests that are never completed.
 */
export class RequestBudget {
  private readonly connections = new Map<object, PendingRequests>();
  private readonly timer: NodeJS.Timeout;
  private unfinished = 0;
  private inProgress = 0;

  constructor(private readonly limits: BudgetLimits) {
    this.timer = setInterval(() => this.sweep(), SWEEP_MS).unref();
  }

  /** Counts a request from its first byte on, until `close`. */
  open(connection: object, stream: RequestStream): IncomingRequest {
    let pending = this.connections.get(connection);
    if (!pending) {
      pending = new PendingRequests();
      this.connections.set(connection, pending);
    }
    const request = new IncomingRequest(this, stream, connection, pending);
    pending.requests.add(request);
    this.charge(request, REQUEST_COST);
    return request;
  }

  /**
   * Counts a stream of requests until `close`. Only messages that are not yet handled count, because a stream can be
   * open and idle for days.
   */
  openStream(connection: object, stream: RequestStream): IncomingRequest {
    const request = new IncomingRequest(this, stream, connection, new PendingRequests(), true);
    request.isFinished = true;
    return request;
  }

  /** @internal Called when a message of a stream of requests has been handled. */
  release(request: IncomingRequest, bytes: number): void {
    if (request.isClosed) return;
    this.inProgress -= request.held;
    request.held = 0;
    request.bytes = Math.max(0, request.bytes - bytes);
    request.began = now();
    if (request.isFinished) return;
    this.removePending(request);
    request.cost = 0;
    if (request.bytes > 0) this.resume(request, request.bytes);
  }

  /** Counts the unhandled messages of a stream as an unfinished request. */
  private resume(request: IncomingRequest, bytes: number): void {
    const pending = this.connections.get(request.connection) ?? request.pending;
    this.connections.set(request.connection, pending);
    request.pending = pending;
    request.isFinished = false;
    pending.requests.add(request);
    if (bytes > SMALL_BYTES) pending.large.add(request);
    this.charge(request, REQUEST_COST + bytes);
  }

  /** @internal */
  add(request: IncomingRequest, bytes: number): void {
    if (request.isClosed) return;
    request.bytes += bytes;
    if (request.isStream) {
      if (request.isFinished) {
        request.began = now();
        request.cost = 0;
        this.resume(request, bytes);
      } else this.charge(request, bytes + CHUNK_COST);
      return;
    }
    const isLarge = request.bytes > SMALL_BYTES;
    if (request.bytes > this.limits.request) request.refuse(tooLarge(this.limits.request));
    else if (isLarge && this.inProgress + request.bytes > this.limits.inProgress)
      request.refuse(tooMany('requests in progress', this.limits.inProgress));
    else if (!request.isFinished) {
      if (isLarge) request.pending.large.add(request);
      this.charge(request, bytes + CHUNK_COST);
    }
  }

  /** Counts a complete request, if it is large, until its response is sent. */
  finish(request: IncomingRequest): void {
    if (request.isFinished) return;
    this.removePending(request);
    // The limit is not checked here: `add` checks it for every chunk. Requests that were unfinished at the same time
    // can exceed it together, by at most the limit of unfinished requests.
    if (request.bytes > Math.max(SMALL_BYTES, request.held)) {
      this.inProgress += request.bytes - request.held;
      request.held = request.bytes;
    }
  }

  /** @internal */
  hold(request: IncomingRequest, bytes: number): void {
    if (request.isClosed || bytes <= Math.max(SMALL_BYTES, request.held)) return;
    const additional = bytes - request.held;
    if (this.inProgress + additional > this.limits.inProgress)
      throw tooMany('requests in progress', this.limits.inProgress);
    this.inProgress += additional;
    request.held = bytes;
  }

  /** @internal */
  close(request: IncomingRequest): void {
    if (!request.isFinished) this.removePending(request);
    this.inProgress -= request.held;
    request.held = 0;
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private charge(request: IncomingRequest, cost: number): void {
    const { pending } = request;
    request.cost += cost;
    pending.cost += cost;
    this.unfinished += cost;
    // The error is created only when it is needed: its stack takes longer than the rest of this function.
    while (pending.cost > this.limits.connection && pending.requests.size > 0) {
      const error = tooMany('unfinished requests of one connection', this.limits.connection);
      this.end(firstOf(pending.requests) as IncomingRequest, error);
    }
    this.makeRoom();
  }

  /** Ends requests until the limit of all connections is met, or only small and young ones exceed it. */
  private makeRoom(): void {
    const { unfinished } = this.limits;
    while (this.unfinished > unfinished) {
      const earliest = this.unfinished > BURST_FACTOR * unfinished ? Number.POSITIVE_INFINITY : now() - YOUNG_MS;
      const victim = this.largestEndable(earliest);
      if (!victim) return;
      this.end(victim, tooMany('unfinished requests', unfinished));
    }
  }

  private removePending(request: IncomingRequest): void {
    const { connection, pending } = request;
    request.isFinished = true;
    pending.requests.delete(request);
    pending.large.delete(request);
    pending.cost -= request.cost;
    this.unfinished -= request.cost;
    if (pending.requests.size === 0) this.connections.delete(connection);
  }

  private end(request: IncomingRequest, error: ServiceError): void {
    if (request.stream.isComplete(request)) this.finish(request);
    else request.refuse(error);
  }

  /** The oldest request that may be ended, of the connection that uses the most. */
  private largestEndable(earliest: number): IncomingRequest | undefined {
    let largest: IncomingRequest | undefined;
    for (const connection of this.connections.values()) {
      if (largest && connection.cost <= largest.pending.cost) continue;
      largest = connection.oldestEndable(earliest) ?? largest;
    }
    return largest;
  }

  private sweep(): void {
    const earliest = now() - limits.requestReceiveMs;
    for (const { requests } of [...this.connections.values()])
      for (const request of requests) {
        if (request.stream.isComplete(request)) this.finish(request);
        else if (request.began < earliest) request.refuse(ServiceError.of('DEADLINE_EXCEEDED', {}));
      }
    this.makeRoom();
  }
}

const now = () => performance.now();

function firstOf<T>(items: ReadonlySet<T>): T | undefined {
  for (const item of items) return item;
  return undefined;
}

/** The error of a request that is too large by itself, so that a retry cannot succeed. */
const tooLarge = (max: number) => ServiceError.of('REQUEST_TOO_LARGE', { what: 'request', max_bytes: String(max) });
const tooMany = (what: string, bytes: number) => ServiceError.of('TOO_MANY_REQUEST_BYTES', { what, limit: `${bytes}` });

/** One request in the budget. */
export class IncomingRequest {
  began = performance.now();
  bytes = 0;
  cost = 0;
  held = 0;
  isFinished = false;
  isClosed = false;

  constructor(
    private readonly budget: RequestBudget,
    readonly stream: RequestStream,
    readonly connection: object,
    public pending: PendingRequests,
    /** Whether it is a stream of requests. */
    readonly isStream = false,
  ) {}

  /** Counts a chunk that has arrived; ends the request if it exceeds a limit. */
  add(bytes: number): void {
    this.budget.add(this, bytes);
  }

  /** Ends the counting of a message of a stream, with the bytes that it has. */
  release(bytes: number): void {
    this.budget.release(this, bytes);
  }

  /** Counts the request with its decompressed size; throws TOO_MANY_REQUEST_BYTES if there is no room. */
  hold(bytes: number): void {
    this.budget.hold(this, bytes);
  }

  refuse(error: ServiceError): void {
    this.close();
    this.stream.refuse(error);
  }

  /** Ends the counting: the response is sent, or the client has disconnected. */
  close(): void {
    if (this.isClosed) return;
    this.budget.close(this);
    this.isClosed = true;
  }
}
