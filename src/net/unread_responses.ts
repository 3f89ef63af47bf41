import type { Socket } from 'node:net';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { Log } from '../log.js';

/** Interval at which the unread responses are checked. */
const CHECK_MS = 250;
/** Overhead in bytes of a call, until its response is sent. */
const CALL_BYTES = 4096;
/** Responses of up to this size are sent even if the connection is full; the number of its streams bounds them. */
const SHORT_BYTES = 16 * 1024;
/** The minimum age of a response, in ms, before its connection is ended to free memory. */
const MIN_AGE_MS = 1_000;

/** The stream of a gRPC call; grpc-js also emits `cancelled` when it ends normally. */
interface Stream {
  readonly cancelled: boolean;
  on(event: 'cancelled', listener: () => void): unknown;
}

/** A response that was written but not sent completely. */
interface Unread {
  readonly connection: ConnectionResponses;
  readonly bytes: number;
  readonly since: number;
}

/**
 * Counts the responses that were written on all connections of a server and that their clients have not read. HTTP/2
 * and Node buffer them without a limit. A connection with too many unread bytes gets no more responses; a connection
 * that does not read a response in time is ended, and so are the slowest connections when the total exceeds its limit.
 */
export class UnreadResponses {
  /** Oldest first. */
  private readonly unread = new Set<Unread>();
  private readonly timer: NodeJS.Timeout;
  private total = 0;

  constructor(private readonly log: Log) {
    this.timer = setInterval(() => this.check(), CHECK_MS).unref();
  }

  /** The maximum number of unread bytes of one connection. */
  get allowed(): number {
    return this.total > limits.unreadBytes ? limits.unreadBytesPressed : limits.unreadBytesPerConnection;
  }

  /** Starts counting for a new connection. */
  open(socket: Socket): ConnectionResponses {
    const connection = new ConnectionResponses(this, socket);
    socket.once('close', () => this.stopCounting(connection));
    return connection;
  }

  /** Counts a response; returns a function to call when the response is sent. */
  add(connection: ConnectionResponses, length: number): () => void {
    const entry = { connection, bytes: length + CALL_BYTES, since: performance.now() };
    if (connection.ended) return () => {};
    this.unread.add(entry);
    this.total += entry.bytes;
    connection.bytes += entry.bytes;
    return () => this.sent(entry);
  }

  close(): void {
    clearInterval(this.timer);
  }

  private sent(entry: Unread): void {
    if (!this.unread.delete(entry) || entry.connection.ended) return;
    this.total -= entry.bytes;
    entry.connection.bytes -= entry.bytes;
  }

  private stopCounting(connection: ConnectionResponses): void {
    if (connection.ended) return;
    connection.ended = true;
    this.total -= connection.bytes;
  }

  private check(): void {
    const now = performance.now();
    for (const entry of this.unread) {
      const age = now - entry.since;
      const isLate = age > limits.unreadMs;
      const isOverTotal = age > MIN_AGE_MS && this.total > limits.unreadBytes;
      // The remaining responses are newer.
      if (!isLate && !isOverTotal) return;
      this.unread.delete(entry);
      if (!entry.connection.ended) this.end(entry.connection, isLate);
    }
  }

  private end(connection: ConnectionResponses, isLate: boolean): void {
    const { socket, bytes } = connection;
    const reason = isLate ? 'the client did not read a response in time' : 'too many bytes of responses are unread';
    this.log.warn({ peer: socket.remoteAddress, bytes }, `a connection was ended: ${reason}`);
    this.stopCounting(connection);
    socket.destroy();
  }
}

/** The responses of one connection. */
export class ConnectionResponses {
  bytes = 0;
  ended = false;

  constructor(
    private readonly owner: UnreadResponses,
    readonly socket: Socket,
  ) {}

  /** Throws if no call may start, because too many responses are unread. */
  checkRoom(): void {
    if (this.bytes >= this.owner.allowed) throw ServiceError.of('RESPONSES_NOT_READ', {});
  }

  /** Throws if there is no room for a finished response; concurrent calls may each have passed `checkRoom`. */
  checkRoomFor(response: Uint8Array): void {
    if (response.length > SHORT_BYTES) this.checkRoom();
  }

  /** Counts a response; returns a function to call when the response is sent. */
  add(length: number): () => void {
    return this.owner.add(this, length);
  }

  /** Counts a response until the stream of its call ends. */
  addUntilEnd(length: number, stream: Stream): void {
    if (!stream.cancelled) stream.on('cancelled', this.add(length));
  }
}
