/*
 * A response before it is sent. It consists of frames, so that a fault can interrupt it after a number of tokens, and
 * replace or omit some of them.
 */

/** What a frame of a response contains. */
export type FrameKind =
  /** The beginning, before the first token. */
  | 'start'
  /** Tokens. */
  | 'token'
  /** Events between the tokens and the end: end of a part, finish reason. */
  | 'finish'
  /** Usage. */
  | 'usage'
  /** The event or the mark with which a complete response ends. */
  | 'done';

export interface Frame {
  readonly text: string;
  readonly kind: FrameKind;
  /** How many tokens it contains. */
  readonly tokens: number;
}

export interface FakeResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly frames: readonly Frame[];
}

export const frame = (kind: FrameKind, text: string, tokens = kind === 'token' ? 1 : 0): Frame => ({
  kind,
  text,
  tokens,
});

const JSON_HEADERS = { 'content-type': 'application/json' };
const SSE_HEADERS = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' };

/** A response in JSON. @param tokens how many it contains, for a fault that cuts it after some of them. */
export const jsonResponse = (status: number, body: unknown, tokens = 0): FakeResponse => ({
  status,
  headers: JSON_HEADERS,
  frames: [frame('token', JSON.stringify(body), tokens)],
});

export const streamResponse = (frames: readonly Frame[]): FakeResponse => ({
  status: 200,
  headers: SSE_HEADERS,
  frames,
});

/** An event of chat completions. */
export const dataFrame = (kind: FrameKind, data: unknown): Frame => frame(kind, `data: ${JSON.stringify(data)}\n\n`);

/** An event with its name, of the Responses and Messages APIs; the name is the type in its data. */
export const eventFrame = (kind: FrameKind, data: { readonly type: string } & object): Frame =>
  frame(kind, `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`);

/** The frames of a stream up to a number of tokens, without those of its end. */
export function framesBefore(frames: readonly Frame[], tokens: number): Frame[] {
  const kept: Frame[] = [];
  let left = tokens;
  for (const one of frames) {
    left -= one.tokens;
    if (left < 0 || (one.kind !== 'start' && one.kind !== 'token')) return kept;
    kept.push(one);
  }
  return kept;
}
