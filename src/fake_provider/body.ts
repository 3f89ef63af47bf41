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
   * Throws BodyTooLarge or BodyAborted. The rest of a body that is too large is discarded as it arrives: a connection
   * that is closed while the client sends would hide the response from it.
   */
  async read(request: IncomingMessage, maxBytes: number = limits.fakeProvider.bodyBytes): Promise<string> {
    let chunks: Buffer[] | undefined = [];
    let bytes = 0;
    try {
      await new Promise<void>((resolve, reject) => {
        request.on('data', (chunk: Buffer) => {
          if (!chunks) return;
          bytes += chunk.length;
          this.openBytes += chunk.length;
          chunks.push(chunk);
          if (bytes <= maxBytes && this.openBytes <= limits.fakeProvider.openBodyBytes) return;
          chunks = undefined;
          reject(new BodyTooLarge());
        });
        request.once('end', resolve);
        request.once('close', () => reject(new BodyAborted()));
      });
      return new TextDecoder().decode(Buffer.concat(chunks));
    } finally {
      this.openBytes -= bytes;
    }
  }
}

/** Strings, and the brackets that open or close a level. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[[\]{}]/gs;

/** Whether the nesting of a JSON text is deeper than the limit, so that code which descends could exhaust the stack. */
export function isTooDeep(json: string): boolean {
  let depth = 0;
  for (const [token] of json.matchAll(TOKEN)) {
    if (token === '{' || token === '[') depth++;
    else if (token === '}' || token === ']') depth--;
    if (depth > limits.fakeProvider.bodyDepth) return true;
  }
  return false;
}
