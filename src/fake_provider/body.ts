import type { IncomingMessage } from 'node:http';
import { limits } from '../limits.js';

/** A body that is too large for the fake provider. */
export class BodyTooLarge extends Error {}

/** A body that ended before it was complete. */
export class BodyAborted extends Error {}

/** Reads the bodies of requests, and bounds the memory of all of them together. */
export class BodyReader {
  private openBytes = 0;

  /**
   * Throws BodyTooLarge or BodyAborted. The rest of a body that is too large is received and discarded: a client that
   * still sends would not see the response of a connection that is closed.
   */
  async read(request: IncomingMessage, maxBytes: number = limits.fakeProvider.bodyBytes): Promise<string> {
    let chunks: Buffer[] | undefined = [];
    let bytes = 0;
    const count = (change: number) => {
      bytes += change;
      this.openBytes += change;
    };
    try {
      for await (const chunk of received(request)) {
        if (!chunks) continue;
        count(chunk.length);
        chunks.push(chunk);
        if (bytes <= maxBytes && this.openBytes <= limits.fakeProvider.openBodyBytes) continue;
        chunks = undefined;
        count(-bytes);
      }
      if (!chunks) throw new BodyTooLarge();
      return new TextDecoder().decode(Buffer.concat(chunks));
    } finally {
      count(-bytes);
    }
  }
}

/** The chunks of a request. Throws BodyAborted if it ends early. */
async function* received(request: IncomingMessage): AsyncGenerator<Buffer> {
  try {
    yield* request as AsyncIterable<Buffer>;
  } catch {
    throw new BodyAborted();
  }
}
