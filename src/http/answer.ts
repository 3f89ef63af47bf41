import type { IncomingMessage, ServerResponse } from 'node:http';

/** What goes back to the caller. */
export interface Answer {
  readonly status: number;
  readonly body: string | Buffer;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const JSON_TYPE = 'application/json; charset=utf-8';

export const json = (status: number, body: string | Buffer, headers: Answer['headers'] = {}): Answer => ({
  status,
  body,
  type: JSON_TYPE,
  headers,
});

/** Whether a request announces a body. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;

/** How long a caller may go on sending a body that nobody reads before its connection is cut. */
const LINGER_MS = 1_000;

/** Sends the answer, without its body where the caller asked for the headers only. */
export function send(request: IncomingMessage, response: ServerResponse, answer: Answer): void {
  if (response.destroyed || response.headersSent) return;
  const unread = hasBody(request) && !request.complete;
  const body = typeof answer.body === 'string' ? Buffer.from(answer.body) : answer.body;
  response.writeHead(answer.status, {
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'cross-origin-resource-policy': 'same-origin',
    ...(answer.status !== 204 && { 'content-type': answer.type, 'content-length': body.length }),
    ...(unread && { connection: 'close' }),
    ...answer.headers,
  });
  if (unread) linger(request, response, body);
  else response.end(request.method === 'HEAD' || answer.status === 204 ? undefined : body);
}

/** A connection that is closed while its peer still sends is reset, and the peer never sees the answer. */
function linger(request: IncomingMessage, response: ServerResponse, body: Buffer): void {
  response.write(body);
  const timer = setTimeout(() => response.end(), LINGER_MS);
  const end = () => {
    clearTimeout(timer);
    response.end();
  };
  request.once('end', end).once('close', end).resume();
}
