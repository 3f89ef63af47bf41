import type { IncomingMessage } from 'node:http';
import { limits } from '../limits.js';

/** A body that is too large for the fake provider. */
export class BodyTooLarge extends Error {}

/** A body that ended before it was complete. */
export class BodyAborted extends Error {}

/** Reads the bodies of requests, and bounds the memory of all of them together. */
export class BodyReader {
  private openBytes = 0;

  /** Throws BodyTooLarge or BodyAborted. */
  async read(request: IncomingMessage, maxBytes: number = limits.fakeProvider.bodyBytes): Promise<string> {
    const { openBodyBytes } = limits.fakeProvider;
    const chunks: Buffer[] = [];
    let bytes = 0;
    try {
      for await (const chunk of request as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        this.openBytes += chunk.length;
        if (bytes > maxBytes || this.openBytes > openBodyBytes) throw new BodyTooLarge();
        chunks.push(chunk);
      }
    } catch (error) {
      throw error instanceof BodyTooLarge ? error : new BodyAborted();
    } finally {
      this.openBytes -= bytes;
    }
    return new TextDecoder().decode(Buffer.concat(chunks));
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
