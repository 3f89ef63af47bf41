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
  /** How long to wait for the body, in ms; undefined: no limit of its own. */
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
  const decoder = new TextDecoder();
  let [text, bytes] = ['', 0];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return { text: text + decoder.decode(), bytes, isComplete: !timedOut };
      bytes += value.byteLength;
      text += decoder.decode(value, { stream: true });
      if (bytes <= maxBytes) continue;
      cancel();
      return { text, bytes, isComplete: false };
    }
  } finally {
    stopTimer();
  }
}

/** Parses a text as JSON; undefined if it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
