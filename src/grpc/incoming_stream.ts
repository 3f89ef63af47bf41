import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { IncomingMessages } from '../api/dispatch/duplex.js';
import { requestOfCall } from './request_guard.js';

/** Bytes that precede a message of gRPC on the wire. */
const PREFIX_BYTES = 5;

interface Receiver {
  resolve(message: Uint8Array | undefined): void;
  reject(error: Error): void;
}

/** The messages that arrive on a stream of grpc-js, one at a time. */
export class IncomingStream implements IncomingMessages {
  private receiver: Receiver | undefined;
  private ended: { readonly error: Error | undefined } | undefined;

  constructor(private readonly stream: ServerDuplexStream<Buffer, Buffer>) {
    // Node would buffer 16 messages, each of up to 4 MiB.
    (stream as unknown as { _readableState: { highWaterMark: number } })._readableState.highWaterMark = 1;
    stream.pause();
    stream.on('data', (message: Buffer) => {
      stream.pause();
      this.receiver?.resolve(message);
      this.receiver = undefined;
    });
    stream.on('end', () => this.end());
  }

  next(): Promise<Uint8Array | undefined> {
    return new Promise((resolve, reject) => {
      this.receiver = { resolve, reject };
      if (this.ended) this.settle(this.ended.error);
      else this.stream.resume();
    });
  }

  release(message: Uint8Array): void {
    requestOfCall(this.stream)?.release(message.length + PREFIX_BYTES);
  }

  end(error?: Error): void {
    this.ended ??= { error };
    this.stream.pause();
    this.settle(this.ended.error);
  }

  private settle(error: Error | undefined): void {
    if (error) this.receiver?.reject(error);
    else this.receiver?.resolve(undefined);
    this.receiver = undefined;
  }
}
