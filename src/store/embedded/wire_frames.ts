/** Splits the byte stream of a PostgreSQL client into frames that the engine executes one at a time. */

export type Frame =
  | { kind: 'exchange'; bytes: Uint8Array<ArrayBuffer> }
  /** The client requests TLS or GSS encryption as its first message. */
  | { kind: 'encryption' }
  /** Cancel or Terminate: the client expects that the connection ends. */
  | { kind: 'goodbye' };

const STARTUP_CODES = { cancel: 80877102, ssl: 80877103, gss: 80877104 };
/**
 * The startup message that the engine receives instead of the client's. There is one user and one database, and an
 * invalid message ends the backend. A message without a user name is invalid, and `pg` reads the user name from the
 * environment.
 */
const STARTUP = startupMessage({ user: 'postgres', database: 'postgres', client_encoding: 'UTF8' });

const QUERY = 0x51;
const SYNC = 0x53;
const FLUSH = 0x48;
const FUNCTION_CALL = 0x46;
const TERMINATE = 0x58;
/** The size limit of PostgreSQL for messages. */
const MAX_MESSAGE_BYTES = 0x3fffffff;

export class WireError extends Error {
  override readonly name = 'WireError';
}

/**
 * Collects messages up to one that the backend responds to. So the four small messages of a prepared query cross the
 * thread boundary together, and a client that disconnects between them has changed nothing in the backend.
 */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);
  #batch: Buffer[] = [];
  #started = false;

  read(chunk: Buffer): Frame[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const frames: Frame[] = [];
    for (let message = this.#nextMessage(); message !== undefined; message = this.#nextMessage()) {
      const frame = this.#started ? this.#readMessage(message) : this.#readStartup(message);
      if (frame !== undefined) frames.push(frame);
    }
    return frames;
  }

  #nextMessage(): Buffer | undefined {
    // The first messages of a connection have no type byte before the length.
    const prefix = this.#started ? 1 : 0;
    if (this.#rest.length < prefix + 4) return undefined;
    const length = this.#rest.readUInt32BE(prefix);
    const minimum = this.#started ? 4 : 8;
    if (length < minimum || length > MAX_MESSAGE_BYTES) throw new WireError(`a message of ${length} bytes`);
    const end = prefix + length;
    if (this.#rest.length < end) return undefined;
    const message = this.#rest.subarray(0, end);
    this.#rest = this.#rest.subarray(end);
    return message;
  }

  #readStartup(message: Buffer): Frame {
    const code = message.readUInt32BE(4);
    if (code === STARTUP_CODES.ssl || code === STARTUP_CODES.gss) return { kind: 'encryption' };
    if (code === STARTUP_CODES.cancel) return { kind: 'goodbye' };
    if (code >>> 16 !== 3) throw new WireError(`protocol version ${code >>> 16}.${code & 0xffff}`);
    this.#started = true;
    return { kind: 'exchange', bytes: copyOf([STARTUP]) };
  }

  #readMessage(message: Buffer): Frame | undefined {
    const type = message[0];
    if (type === TERMINATE) return { kind: 'goodbye' };
    this.#batch.push(message);
    if (type !== QUERY && type !== SYNC && type !== FLUSH && type !== FUNCTION_CALL) return undefined;
    const bytes = copyOf(this.#batch);
    this.#batch = [];
    return { kind: 'exchange', bytes };
  }
}

/**
 * Copies bytes to a separate buffer: small buffers of `pg` are in Node's shared pool, which must not be transferred.
 */
function copyOf(parts: Buffer[]): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    copy.set(part, at);
    at += part.length;
  }
  return copy;
}

function startupMessage(parameters: Record<string, string>): Buffer {
  const pairs = Object.entries(parameters).map(([name, value]) => `${name}\0${value}\0`);
  const body = Buffer.from(`${pairs.join('')}\0`);
  const head = Buffer.alloc(8);
  head.writeUInt32BE(head.length + body.length, 0);
  head.writeUInt32BE(3 << 16, 4);
  return Buffer.concat([head, body]);
}
