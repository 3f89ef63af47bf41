import type { FakeResponse, Frame } from './responses/response.js';

/** One step of sending a response. */
export type Step =
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'head'; readonly status: number; readonly headers: Readonly<Record<string, string>> }
  | { readonly kind: 'write'; readonly data: string | Buffer; readonly tokens: number }
  /** Keeps the connection open until the client closes it, at most for `maxMs`, and writes `text` at an interval. */
  | { readonly kind: 'hold'; readonly text?: string; readonly everyMs?: number; readonly maxMs?: number }
  /** Ends the response regularly. */
  | { readonly kind: 'end' }
  /** Closes the connection (FIN), or resets it (RST). */
  | { readonly kind: 'close' }
  | { readonly kind: 'reset' };

export interface Timing {
  /** Until the headers. */
  readonly latencyMs: number;
  /** Until the first token, after the headers. */
  readonly firstTokenMs: number;
  /** Between two tokens. */
  readonly tokenDelayMs: number;
}

export const wait = (ms: number): readonly Step[] => (ms > 0 ? [{ kind: 'wait', ms }] : []);

export const head = ({ status, headers }: Pick<FakeResponse, 'status' | 'headers'>): Step => ({
  kind: 'head',
  status,
  headers,
});

export const writes = (frames: readonly Frame[], { firstTokenMs, tokenDelayMs }: Timing): Step[] => {
  let delay = firstTokenMs;
  return frames.flatMap(({ kind, text, tokens }): Step[] => {
    const isToken = kind === 'token';
    const steps: Step[] = [...(isToken ? wait(delay) : []), { kind: 'write', data: text, tokens }];
    if (isToken) delay = tokenDelayMs;
    return steps;
  });
};

/** Sends a response completely. Only a response with one part has a Content-Length. */
export function sendAll(response: FakeResponse, timing: Timing): Step[] {
  const { frames, status, headers } = response;
  const [only] = frames;
  const isWhole = only !== undefined && frames.length === 1;
  const length = isWhole ? [['content-length', String(Buffer.byteLength(only.text))]] : [];
  return [
    ...wait(timing.latencyMs),
    head({ status, headers: { ...headers, ...Object.fromEntries(length) } }),
    ...writes(frames, timing),
    { kind: 'end' },
  ];
}
