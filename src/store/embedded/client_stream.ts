import { Duplex } from 'node:stream';
import { type Frame, FrameReader } from './wire_frames.js';
import { EngineLostError, type WorkerLink } from './worker_link.js';

/**
 * A stream to the engine with PostgreSQL's wire protocol, which `pg` uses as its socket. It emits `connect` when the
 * engine serves it, and then owns the engine's only session until it closes.
 */
export class ClientStream extends Duplex {
  readonly #reader = new FrameReader();
  readonly #onConnect: (stream: ClientStream) => void;
  #link: WorkerLink | undefined;
  /** Resolves when the client or the engine has ended the connection. */
  readonly disconnected: Promise<void>;

  constructor(onConnect: (stream: ClientStream) => void) {
    super({ allowHalfOpen: false });
    this.#onConnect = onConnect;
    // The engine may end a stream before `pg` listens for errors, and an unhandled error would end the process.
    this.on('error', () => undefined);
    this.disconnected = new Promise((resolve) => this.once('close', resolve));
  }

  /** Called by `pg`, with a port and host that are ignored. */
  connect(): this {
    this.#onConnect(this);
    return this;
  }

  /** The engine serves this client from now on. */
  attach(link: WorkerLink): void {
    this.#link = link;
    this.emit('connect');
  }

  override _read(): void {
    // Output is pushed as it arrives. The engine completes each statement, so backpressure is not possible.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    let frames: Frame[];
    try {
      frames = this.#reader.read(chunk);
    } catch (error) {
      callback(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    // Most writes contain only a part of a batch.
    if (frames.length === 0) callback();
    else this.#process(frames).then(() => callback(), callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    callback();
    this.destroy();
  }

  async #process(frames: Frame[]): Promise<void> {
    for (const frame of frames) {
      if (this.destroyed) return;
      if (frame.kind === 'encryption') this.push('N');
      else if (frame.kind === 'goodbye') this.destroy();
      else await this.#exchange(frame.bytes);
    }
  }

  async #exchange(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if (this.#link === undefined) throw new EngineLostError('not connected yet');
    const output = (chunk: Uint8Array<ArrayBuffer>): void => {
      if (chunk.length > 0 && !this.destroyed) this.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length));
    };
    const last = await this.#link.request({ kind: 'exchange', bytes }, output);
    if (last !== undefined) output(last);
  }

  // The other methods of net.Socket that `pg` calls.
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
