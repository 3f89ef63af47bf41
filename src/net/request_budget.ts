import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';

/**
 * What an open request costs beside its bytes, and each piece that it comes in: a byte in a frame of its own costs
 * both.
 */
const REQUEST_COST = 4096;
const PIECE_COST = 256;
/** A request of at most so many bytes is no longer counted once it is complete: calls are limited in number. */
const SMALL_BYTES = 16_384;
const SWEEP_MS = 1_000;

/** How a request is ended, and whether all of it is here. */
export interface RequestStream {
  /** Ends the request with an error; nothing more of it is kept. */
  refuse(error: ServiceError): void;
  isComplete(): boolean;
}

export interface BudgetLimits {
  /** Bytes of one request. */
  readonly request: number;
  /** Bytes of unfinished requests of one connection, and of all together. */
  readonly connection: number;
  readonly unfinished: number;
  /** Bytes of complete requests that are not answered yet. */
  readonly unanswered: number;
}

/** The unfinished requests of one connection, the oldest first. */
class Connection {
  readonly requests = new Set<IncomingRequest>();
  cost = 0;
}

/**
 * Bounds the memory of requests over all calls. grpc-js and Node keep what has arrived of a request until it is
 * complete, however long that takes. When unfinished requests cost too much, the oldest one of the connection with the
 * most is ended: an ordinary request is complete within milliseconds, so this ends the ones that are never completed.
 */
export class RequestBudget {
  private readonly connections = new Map<object, Connection>();
  private readonly timer: NodeJS.Timeout;
  private unfinished = 0;
  private unanswered = 0;

  constructor(private readonly most: BudgetLimits) {
    this.timer = setInterval(() => this.sweep(), SWEEP_MS).unref();
  }

  /** Counts a request from its first byte on, until `close`. */
  open(connection: object, stream: RequestStream): IncomingRequest {
    let from = this.connections.get(connection);
    if (!from) {
      from = new Connection();
      this.connections.set(connection, from);
    }
    const request = new IncomingRequest(this, stream, connection, from);
    from.requests.add(request);
    this.charge(request, REQUEST_COST);
    return request;
  }

  /** @internal */
  add(request: IncomingRequest, bytes: number): void {
    if (request.isClosed) return;
    request.bytes += bytes;
    const isLarge = request.bytes > SMALL_BYTES;
    if (request.bytes > this.most.request) request.refuse(tooMany('this request', this.most.request));
    else if (isLarge && this.unanswered + request.bytes > this.most.unanswered)
      request.refuse(tooMany('requests that are not answered yet', this.most.unanswered));
    else if (!request.isFinished) this.charge(request, bytes + PIECE_COST);
  }

  /** A complete request counts until it is answered, if it is large. */
  finish(request: IncomingRequest): void {
    if (request.isFinished) return;
    this.leave(request);
    // There was room when its bytes arrived; others that finished since may exceed the bound by what was unfinished.
    if (request.bytes > Math.max(SMALL_BYTES, request.held)) {
      this.unanswered += request.bytes - request.held;
      request.held = request.bytes;
    }
  }

  /** @internal */
  hold(request: IncomingRequest, bytes: number): boolean {
    if (request.isClosed || bytes <= Math.max(SMALL_BYTES, request.held)) return true;
    const more = bytes - request.held;
    if (this.unanswered + more > this.most.unanswered) return false;
    this.unanswered += more;
    request.held = bytes;
    return true;
  }

  /** @internal */
  close(request: IncomingRequest): void {
    if (!request.isFinished) this.leave(request);
    this.unanswered -= request.held;
    request.held = 0;
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private charge(request: IncomingRequest, cost: number): void {
    const { from } = request;
    request.cost += cost;
    from.cost += cost;
    this.unfinished += cost;
    while (from.cost > this.most.connection && from.requests.size > 0)
      this.endOldest(from, tooMany('unfinished requests of one connection', this.most.connection));
    while (this.unfinished > this.most.unfinished)
      this.endOldest(this.largest(), tooMany('unfinished requests', this.most.unfinished));
  }

  private leave(request: IncomingRequest): void {
    const { connection, from } = request;
    request.isFinished = true;
    from.requests.delete(request);
    from.cost -= request.cost;
    this.unfinished -= request.cost;
    if (from.requests.size === 0) this.connections.delete(connection);
  }

  private endOldest({ requests }: Connection, error: ServiceError): void {
    const [oldest] = requests;
    if (!oldest) return;
    if (oldest.stream.isComplete()) this.finish(oldest);
    else oldest.refuse(error);
  }

  private largest(): Connection {
    let largest: Connection | undefined;
    for (const connection of this.connections.values())
      if (!largest || connection.cost > largest.cost) largest = connection;
    return largest as Connection;
  }

  private sweep(): void {
    const before = performance.now() - limits.requestReceiveMs;
    for (const { requests } of [...this.connections.values()])
      for (const request of requests) {
        if (request.stream.isComplete()) this.finish(request);
        else if (request.began < before) request.refuse(ServiceError.of('DEADLINE_EXCEEDED', {}));
      }
  }
}

const tooMany = (what: string, bytes: number) => ServiceError.of('TOO_MANY_REQUEST_BYTES', { what, limit: `${bytes}` });

/** One request in the budget. */
export class IncomingRequest {
  readonly began = performance.now();
  bytes = 0;
  cost = 0;
  held = 0;
  isFinished = false;
  isClosed = false;

  constructor(
    private readonly budget: RequestBudget,
    readonly stream: RequestStream,
    readonly connection: object,
    readonly from: Connection,
  ) {}

  /** Counts a piece that has arrived; ends the request when it is too much. */
  add(bytes: number): void {
    this.budget.add(this, bytes);
  }

  /** Counts it with the size that it has when it is decompressed; false when there is no room for that. */
  hold(bytes: number): boolean {
    return this.budget.hold(this, bytes);
  }

  refuse(error: ServiceError): void {
    this.close();
    this.stream.refuse(error);
  }

  /** The request is answered, or its caller is gone. */
  close(): void {
    if (this.isClosed) return;
    this.budget.close(this);
    this.isClosed = true;
  }
}
