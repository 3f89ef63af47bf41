import { Duplex } from 'node:stream';
import { type Frame, FrameReader } from './wire_frames.js';
import { EngineLostError, type WorkerLink } from './worker_link.js';

/**
 * What `pg` takes for a socket: a stream into the engine that speaks PostgreSQL's wire protocol.
 *
 * It "connects" when the engine serves it, and then owns the engine's one session until it closes.
 */
export class ClientStream extends Duplex {
  readonly #reader = new FrameReader();
  readonly #admit: (stream: ClientStream) => void;
  #link: WorkerLink | undefined;
  /** Resolves when the client or the engine has ended the connection. */
  readonly gone: Promise<void>;

  constructor(admit: (stream: ClientStream) => void) {
    super({ allowHalfOpen: false });
    this.#admit = admit;
    // The engine may end a stream before `pg` listens to it, and an unheard error would end the process.
    this.on('error', () => undefined);
    this.gone = new Promise((resolve) => this.once('close', resolve));
  }

  /** Called by `pg`; port and host mean nothing here. */
  connect(): this {
    this.#admit(this);
    return this;
  }

  /** The engine serves this client from now on. */
  attach(link: WorkerLink): void {
    this.#link = link;
    this.emit('connect');
  }

  override _read(): void {
    // Output is pushed as it comes: the engine runs a statement to its end and cannot be slowed down.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    let frames: Frame[];
    try {
      frames = this.#reader.read(chunk);
    } catch (error) {
      callback(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    // Most writes only add to a batch that is not complete.
    if (frames.length === 0) callback();
    else this.#answer(frames).then(() => callback(), callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    callback();
    this.destroy();
  }

  async #answer(frames: Frame[]): Promise<void> {
    for (const frame of frames) {
      if (this.destroyed) return;
      if (frame.kind === 'encryption') this.push('N');
      else if (frame.kind === 'goodbye') this.destroy();
      else await this.#exchange(frame.bytes);
    }
  }

  async #exchange(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#link === undefined) throw new EngineLostError('not connected yet');
    const output = (piece: Uint8Array<ArrayBuffer>): void => {
      if (piece.length > 0 && !this.destroyed) this.push(Buffer.from(piece.buffer, piece.byteOffset, piece.length));
    };
    const last = await this.#link.request({ kind: 'exchange', bytes }, output);
    if (last !== undefined) output(last);
  }

  // The rest of a net.Socket that `pg` calls.
  setNoDelay(): this {
    return this;
  }

  setKeepAlive(): this {
    return this;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }
}
