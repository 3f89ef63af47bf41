import { type Agent, request } from 'node:http';
import { connect } from 'node:net';
import type { JsonObject } from '@bufbuild/protobuf';

/** A response in the form that the tests use. */
export interface HttpResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** The body as JSON; throws when it is not JSON. */
  readonly json: JsonObject;
}

export interface HttpRequest {
  readonly headers?: Readonly<Record<string, string>>;
  /** A string or buffer is sent unchanged, an object as JSON with its content type. */
  readonly body?: string | Buffer | object;
  /** Keeps the connection; by default each request has a new one. */
  readonly agent?: Agent | undefined;
}

/** Sends one request with the HTTP client of Node.js, without further headers. */
export function send(port: number, method: string, path: string, options: HttpRequest = {}): Promise<HttpResponse> {
  const { body, agent = false } = options;
  const isJson = body !== undefined && typeof body === 'object' && !Buffer.isBuffer(body);
  const bytes = isJson ? JSON.stringify(body) : body;
  const headers: Record<string, string> = { ...(isJson && { 'content-type': 'application/json' }), ...options.headers };
  // Node.js sends the bodies of some methods only with a Content-Length header.
  if (bytes !== undefined && !headers['transfer-encoding'])
    headers['content-length'] ??= String(Buffer.byteLength(bytes));
  return new Promise((resolve, reject) => {
    const call = request({ host: '127.0.0.1', port, method, path, headers, agent }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        const { statusCode = 0, headers } = response;
        resolve({
          status: statusCode,
          headers,
          text,
          get json() {
            return JSON.parse(text);
          },
        });
      });
    });
    call.on('error', reject);
    call.end(bytes);
  });
}

/** The parts of an error that the tests use. */
export function errorOf({ json }: HttpResponse) {
  const error = json['error'] as { code: number; message: string; status: string; details: JsonObject[] };
  const detail = (type: string) =>
    error.details.find((entry) => entry['@type'] === `type.googleapis.com/google.rpc.${type}`);
  const violations = (detail('BadRequest')?.['fieldViolations'] ?? []) as { field: string; description: string }[];
  return {
    ...error,
    reason: detail('ErrorInfo')?.['reason'] ?? '',
    fields: violations.map((v) => v.field),
    violations,
  };
}

/** Writes bytes to a connection and returns everything that is received until it is closed. */
export function raw(port: number, bytes: string | Buffer, { end = false } = {}): Promise<string> {
  return new Promise((resolve) => {
    let received = '';
    const socket = connect(port, '127.0.0.1', () => {
      socket.write(bytes);
      if (end) socket.end();
    });
    socket.on('data', (chunk) => {
      received += chunk;
    });
    // The server can close a connection with a reset.
    socket.on('error', () => {});
    socket.on('close', () => resolve(received));
  });
}
