/** Cuts the byte stream of a PostgreSQL client into pieces that the engine can answer one by one. */

export type Frame =
  | { kind: 'exchange'; bytes: Uint8Array<ArrayBuffer> }
  /** The client asks for TLS or GSS encryption before anything else. */
  | { kind: 'encryption' }
  /** Cancel or Terminate: the client expects that the connection ends. */
  | { kind: 'goodbye' };

const STARTUP_CODES = { cancel: 80877102, ssl: 80877103, gss: 80877104 };
/**
 * What the engine gets instead of the client's startup message. There is one user and one database, and a message that
 * PostgreSQL does not like (no user name is enough, and `pg` takes it from the environment) ends the backend.
 */
const STARTUP = startupMessage({ user: 'postgres', database: 'postgres', client_encoding: 'UTF8' });

const QUERY = 0x51;
const SYNC = 0x53;
const FLUSH = 0x48;
const FUNCTION_CALL = 0x46;
const TERMINATE = 0x58;
/** PostgreSQL refuses larger messages itself. */
const LARGEST_MESSAGE = 0x3fffffff;

export class WireError extends Error {
  override readonly name = 'WireError';
}

/**
 * Gathers messages until one that the backend answers. Two reasons: the four small messages of a prepared query cross
 * the thread boundary as one; and a client that dies half-way through them has changed nothing in the backend.
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
    // The first messages of a connection have a length, and no type byte in front of it.
    const prefix = this.#started ? 1 : 0;
    if (this.#rest.length < prefix + 4) return undefined;
    const length = this.#rest.readUInt32BE(prefix);
    const shortest = this.#started ? 4 : 8;
    if (length < shortest || length > LARGEST_MESSAGE) throw new WireError(`a message of ${length} bytes`);
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
    return { kind: 'exchange', bytes: ownCopy([STARTUP]) };
  }

  #readMessage(message: Buffer): Frame | undefined {
    const type = message[0];
    if (type === TERMINATE) return { kind: 'goodbye' };
    this.#batch.push(message);
    if (type !== QUERY && type !== SYNC && type !== FLUSH && type !== FUNCTION_CALL) return undefined;
    const bytes = ownCopy(this.#batch);
    this.#batch = [];
    return { kind: 'exchange', bytes };
  }
}

/** Bytes in a buffer of their own: small ones from `pg` lie in Node's shared pool, which must not be transferred. */
function ownCopy(parts: Buffer[]): Uint8Array<ArrayBuffer> {
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
