import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/* Writes and reads single HTTP/2 frames, valid or invalid. */

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

export const TYPE = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;
export const FLAG = { END_STREAM: 1, ACK: 1, END_HEADERS: 4, PADDED: 8, PRIORITY: 32 } as const;

const ERRORS = [
  'NO_ERROR',
  'PROTOCOL_ERROR',
  'INTERNAL_ERROR',
  'FLOW_CONTROL_ERROR',
  'SETTINGS_TIMEOUT',
  'STREAM_CLOSED',
  'FRAME_SIZE_ERROR',
  'REFUSED_STREAM',
  'CANCEL',
  'COMPRESSION_ERROR',
  'CONNECT_ERROR',
  'ENHANCE_YOUR_CALM',
  'INADEQUATE_SECURITY',
  'HTTP_1_1_REQUIRED',
];

/** A frame. A `length` that differs from that of the payload makes it invalid. */
export function h2(
  type: number,
  flags: number,
  stream: number,
  payload: Uint8Array = Buffer.alloc(0),
  length = payload.length,
): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream >>> 0, 5);
  return Buffer.concat([head, payload]);
}

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};

export const settings = (...pairs: readonly (readonly [id: number, value: number])[]): Buffer =>
  h2(TYPE.SETTINGS, 0, 0, Buffer.concat(pairs.map(([id, value]) => Buffer.concat([Buffer.from([0, id]), u32(value)]))));

/** An HPACK integer with a prefix of `bits` bits; `first` has the other bits of the first byte. */
function hpackInt(value: number, bits: number, first = 0): Buffer {
  const max = 2 ** bits - 1;
  if (value < max) return Buffer.from([first | value]);
  const bytes = [first | max];
  let rest = value - max;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Buffer.from([...bytes, rest]);
}

const hpackText = (text: string) => Buffer.concat([hpackInt(Buffer.byteLength(text), 7), Buffer.from(text)]);
/** A header in HPACK; with `indexed` it is added to the dynamic table, so that one byte can refer to it later. */
export const header = (name: string, value: string, { indexed = false } = {}): Buffer =>
  Buffer.concat([Buffer.from([indexed ? 0x40 : 0]), hpackText(name), hpackText(value)]);

/** The headers of a call as a gRPC client sends them. */
export const callHeaders = (path: string, ...more: readonly Buffer[]): Buffer =>
  Buffer.concat([
    Buffer.from([0x83, 0x86, 0x04]),
    hpackText(path),
    header(':authority', 'localhost'),
    header('te', 'trailers'),
    header('content-type', 'application/grpc'),
    ...more,
  ]);

/** A whole unary call. */
export const wholeCall = (stream: number, path: string, message: Uint8Array): Buffer => {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([
    h2(TYPE.HEADERS, FLAG.END_HEADERS, stream, callHeaders(path)),
    h2(TYPE.DATA, FLAG.END_STREAM, stream, Buffer.concat([head, message])),
  ]);
};

/** The client end of a connection, which can send any bytes. */
export class Peer {
  /** The last bytes that the server has sent. */
  received = Buffer.alloc(0);
  readonly closed: Promise<unknown>;

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      // Only the last bytes matter: they show how the connection ends.
      this.received = Buffer.concat([this.received.subarray(-200_000), chunk]);
    });
    socket.on('error', () => undefined);
    this.closed = new Promise((resolve) => socket.once('close', resolve));
  }

  static async open(port: number, ...greeting: readonly Buffer[]): Promise<Peer> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    const peer = new Peer(socket);
    await once(socket, 'connect');
    if (greeting.length > 0) peer.send(...greeting);
    return peer;
  }

  /** Opens a connection with the preface and SETTINGS of a valid client. */
  static openWithPreface(port: number, ...more: readonly Buffer[]): Promise<Peer> {
    return Peer.open(port, PREFACE, settings(), ...more);
  }

  get isClosed(): boolean {
    return this.socket.destroyed || this.socket.closed;
  }

  send(...bytes: readonly Buffer[]): void {
    if (!this.isClosed) this.socket.write(Buffer.concat(bytes));
  }

  /** Sends pieces as fast as the server reads them, until `maxMs` or the connection ends. Returns their number. */
  async flood(pieces: Iterable<Buffer>, maxMs = 5_000): Promise<number> {
    const until = performance.now() + maxMs;
    let sent = 0;
    for (const piece of pieces) {
      if (this.isClosed || performance.now() > until) break;
      sent++;
      if (this.socket.write(piece)) continue;
      await Promise.race([
        once(this.socket, 'drain').catch(() => undefined),
        this.closed,
        sleep(until - performance.now()),
      ]);
    }
    return sent;
  }

  /** How the connection or a stream ends: the first GOAWAY or RST_STREAM, `closed`, or `open` after `waitMs`. */
  async ending(waitMs = 30_000): Promise<string> {
    const until = performance.now() + waitMs;
    for (;;) {
      const frame = this.receivedFrames().find((one) => /GOAWAY|RST/.test(one));
      if (frame) return frame;
      if (this.isClosed) return 'closed';
      if (performance.now() > until) return 'open';
      await Promise.race([this.closed, sleep(20)]);
    }
  }

  /** Whether the server has sent the last frame of a stream. */
  hasEnded(stream: number): boolean {
    return [...this.frames()].some(
      ({ type, flags, id }) => id === stream && (type === TYPE.RST_STREAM || (flags & FLAG.END_STREAM) !== 0),
    );
  }

  private *frames() {
    for (let at = 0; at + 9 <= this.received.length; ) {
      const length = this.received.readUIntBE(at, 3);
      const [type, flags] = [this.received.readUInt8(at + 3), this.received.readUInt8(at + 4)];
      const id = this.received.readUInt32BE(at + 5) & 0x7fffffff;
      yield { type, flags, id, payload: this.received.subarray(at + 9, at + 9 + length) };
      at += 9 + length;
    }
  }

  /** The types of the received frames; GOAWAY and RST_STREAM with their error. */
  receivedFrames(): string[] {
    return [...this.frames()].map(({ type, payload }) => {
      if (type === TYPE.GOAWAY && payload.length >= 8) return `GOAWAY ${ERRORS[payload.readUInt32BE(4)]}`;
      if (type === TYPE.RST_STREAM && payload.length >= 4) return `RST ${ERRORS[payload.readUInt32BE(0)]}`;
      return String(type);
    });
  }

  close(): void {
    this.socket.destroy();
  }
}
