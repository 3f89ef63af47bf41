import type { IncomingMessage, ServerResponse } from 'node:http';
import { pauseUntilNextTurn } from './paced_reading.js';

/** An HTTP response. */
export interface HttpResponse {
  readonly status: number;
  readonly body: string | Buffer;
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

const JSON_TYPE = 'application/json; charset=utf-8';

export const json = (status: number, body: string | Buffer, headers: HttpResponse['headers'] = {}): HttpResponse => ({
  status,
  body,
  type: JSON_TYPE,
  headers,
});

/** Whether a request announces a body. */
export const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;

/** How long a connection stays open while the client still sends a body that the server does not read. */
const LINGER_MS = 1_000;

/** Sends a response, without its body for a HEAD request. */
export function send(request: IncomingMessage, response: ServerResponse, result: HttpResponse): void {
  if (response.destroyed || response.headersSent) return;
  const unread = hasBody(request) && !request.complete;
  const body = typeof result.body === 'string' ? Buffer.from(result.body) : result.body;
  response.writeHead(result.status, {
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'cross-origin-resource-policy': 'same-origin',
    ...(result.status !== 204 && { 'content-type': result.type, 'content-length': body.length }),
    ...(unread && { connection: 'close' }),
    ...result.headers,
  });
  if (unread) linger(request, response, body);
  else response.end(request.method === 'HEAD' || result.status === 204 ? undefined : body);
}

/**
 * Delays the end: if a connection is closed while the client still sends, it is reset and the client loses the
 * response.
 */
function linger(request: IncomingMessage, response: ServerResponse, body: Buffer): void {
  response.write(body);
  const timer = setTimeout(() => response.end(), LINGER_MS);
  const end = () => {
    clearTimeout(timer);
    response.end();
  };
  request.on('data', () => pauseUntilNextTurn(request));
  request.once('end', end).once('close', end).resume();
}
