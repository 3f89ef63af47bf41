import type { Clock } from './clock.js';

/** Bytes of a body, and whether there were more. */
export interface ReadBody {
  readonly text: string;
  readonly bytes: number;
  readonly isComplete: boolean;
}

/** Limits of a body. */
export interface BodyLimits {
  readonly maxBytes: number;
  /** How long to wait for the body, in ms; undefined: no separate limit. */
  readonly maxMs?: number | undefined;
}

/** Reads a body as text, up to a number of bytes and a time. The rest is discarded with its connection. */
export async function readBody(
  body: ReadableStream<Uint8Array> | null,
  { maxBytes, maxMs }: BodyLimits,
  clock: Clock,
): Promise<ReadBody> {
  if (!body) return { text: '', bytes: 0, isComplete: true };
  const reader = body.getReader();
  const cancel = () => void reader.cancel().catch(() => {});
  let timedOut = false;
  const stopTimer =
    maxMs === undefined
      ? () => {}
      : clock.after(maxMs, () => {
          timedOut = true;
          cancel();
        });
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return { text: decode(chunks), bytes, isComplete: !timedOut };
      bytes += value.byteLength;
      chunks.push(value);
      if (bytes <= maxBytes) continue;
      cancel();
      return { text: decode(chunks), bytes, isComplete: false };
    }
  } finally {
    stopTimer();
  }
}

/** A decoder that decodes only whole bodies is faster than one that keeps a state. */
const decoder = new TextDecoder();
const decode = (chunks: readonly Uint8Array[]): string =>
  decoder.decode(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks));

/** Parses a text as JSON; undefined if it is not JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
