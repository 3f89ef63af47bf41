import type { Socket } from 'node:net';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { Log } from '../log.js';

/** How often responses are looked at that their clients do not read. */
const LOOK_MS = 250;
/** Bytes that a call takes beside its message, until its response is sent. */
const CALL_BYTES = 4096;
/** Shorter responses are sent also on a connection that is full: the number of its streams bounds them. */
const SHORT_BYTES = 16 * 1024;
/** Youngest response whose connection may be ended for the sake of the others. */
const PRESSED_MS = 1_000;

/** Where a call of gRPC comes from: the end of its stream is also its event `cancelled`. */
interface Stream {
  readonly cancelled: boolean;
  getPeer?(): string;
  on(event: 'cancelled', listener: () => void): unknown;
}

/** A response that was handed over and that the network has not taken yet. */
interface Unread {
  readonly connection: ConnectionResponses;
  readonly bytes: number;
  readonly since: number;
}

/**
 * The responses that were handed over on all connections of a server and that their clients have not read yet. HTTP/2
 * and Node keep them without a bound. Here they are counted: a connection with too many gets no more, one that does not
 * read a response in time is ended, and so are the slowest ones when all connections together have too many.
 */
export class UnreadResponses {
  /** The oldest first. */
  private readonly unread = new Set<Unread>();
  /** Connections of gRPC by the addresses of their clients. */
  private readonly peers = new Map<string, ConnectionResponses>();
  private readonly timer: NodeJS.Timeout;
  private total = 0;

  constructor(private readonly log: Log) {
    this.timer = setInterval(() => this.look(), LOOK_MS).unref();
  }

  /** Most bytes that one connection may have waiting before it gets no more. */
  get allowed(): number {
    return this.total > limits.unreadBytes ? limits.unreadBytesPressed : limits.unreadBytesPerConnection;
  }

  /** Counts for a new connection. */
  open(socket: Socket): ConnectionResponses {
    const connection = new ConnectionResponses(this, socket);
    socket.once('close', () => this.forget(connection));
    return connection;
  }

  /** Counts for a new connection of gRPC, whose calls do not say more of it than the address of its client. */
  openPeer(socket: Socket): void {
    const connection = this.open(socket);
    const peer = `${socket.remoteAddress}:${socket.remotePort}`;
    this.peers.set(peer, connection);
    socket.once('close', () => {
      if (this.peers.get(peer) === connection) this.peers.delete(peer);
    });
  }

  /** The connection of a call of gRPC; undefined for other transports, and when it has ended. */
  connectionOf(stream: Stream): ConnectionResponses | undefined {
    return stream.getPeer && this.peers.get(stream.getPeer());
  }

  /** Counts a response; returns what is called when it is sent. */
  add(connection: ConnectionResponses, length: number): () => void {
    const one = { connection, bytes: length + CALL_BYTES, since: performance.now() };
    if (connection.ended) return () => {};
    this.unread.add(one);
    this.total += one.bytes;
    connection.bytes += one.bytes;
    return () => this.sent(one);
  }

  close(): void {
    clearInterval(this.timer);
  }

  private sent(one: Unread): void {
    if (!this.unread.delete(one) || one.connection.ended) return;
    this.total -= one.bytes;
    one.connection.bytes -= one.bytes;
  }

  private forget(connection: ConnectionResponses): void {
    if (connection.ended) return;
    connection.ended = true;
    this.total -= connection.bytes;
  }

  private look(): void {
    const now = performance.now();
    for (const one of this.unread) {
      const age = now - one.since;
      const isLate = age > limits.unreadMs;
      const isPressing = age > PRESSED_MS && this.total > limits.unreadBytes;
      // Those that follow are younger.
      if (!isLate && !isPressing) return;
      this.unread.delete(one);
      if (!one.connection.ended) this.end(one.connection, isLate);
    }
  }

  private end(connection: ConnectionResponses, isLate: boolean): void {
    const { socket, bytes } = connection;
    const why = isLate ? 'its client did not read a response in time' : 'too many bytes of responses are not read';
    this.log.warn({ peer: socket.remoteAddress, bytes }, `a connection was ended: ${why}`);
    this.forget(connection);
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

  /** Throws when no call may begin, because its response would wait as well. */
  checkRoom(): void {
    if (this.bytes >= this.owner.allowed) throw ServiceError.of('RESPONSES_NOT_READ', {});
  }

  /** Throws when there is no room for a response that was made; calls that began together may each have made one. */
  checkRoomFor(response: Uint8Array): void {
    if (response.length > SHORT_BYTES) this.checkRoom();
  }

  /** Counts a response; returns what is called when it is sent. */
  add(length: number): () => void {
    return this.owner.add(this, length);
  }

  /** Counts a response until the stream of its call has ended. */
  addUntilEnd(length: number, stream: Stream): void {
    if (!stream.cancelled) stream.on('cancelled', this.add(length));
  }
}
