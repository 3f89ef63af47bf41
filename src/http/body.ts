import type { IncomingMessage, ServerResponse } from 'node:http';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { RequestBudget } from '../net/request_budget.js';
import { hasBody } from './http_response.js';
import { pauseUntilNextTurn } from './paced_reading.js';

const tooLarge = () =>
  ServiceError.of('REQUEST_TOO_LARGE', { what: 'request', max_bytes: String(limits.maxRequestBytes) });

const JSON_ONLY = /^application\/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?;?\s*$/i;

/** Reads the JSON body of a request as bytes; undefined when it has none. */
export async function readBody(
  request: IncomingMessage,
  response: ServerResponse,
  budget: RequestBudget,
): Promise<Buffer | undefined> {
  if (!hasBody(request)) return undefined;
  const { headers } = request;
  const isPlain = (headers['content-encoding'] ?? 'identity') === 'identity';
  if (!isPlain || !JSON_ONLY.test(headers['content-type'] ?? '')) throw ServiceError.of('UNSUPPORTED_BODY', {});
  if (Number(headers['content-length'] ?? 0) > limits.maxRequestBytes) throw tooLarge();
  if (headers.expect) response.writeContinue();
  return collect(request, response, budget);
}

/** Reads the body; rejects if the client disconnects, is too slow or sends too much. */
function collect(request: IncomingMessage, response: ServerResponse, budget: RequestBudget): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let body: Buffer = Buffer.alloc(0);
    let size = 0;
    let isOver = false;
    const refuse = (error: Error) => {
      isOver = true;
      body = Buffer.alloc(0);
      reject(error);
    };
    const incoming = budget.open(request.socket, { refuse, isComplete: () => request.complete });
    response.once('close', () => incoming.close());
    request.on('data', (chunk: Buffer) => {
      if (!isOver) incoming.add(chunk.length);
      if (isOver) return;
      const start = size;
      size += chunk.length;
      if (size > limits.maxRequestBytes) return refuse(tooLarge());
      if (size > body.length) body = enlarged(body, size);
      chunk.copy(body, start);
      pauseUntilNextTurn(request);
    });
    request.on('end', () => resolve(body.subarray(0, size)));
    request.on('error', reject);
    request.on('close', () => reject(new Error('the client has disconnected')));
  });
}

/**
 * Chunks are copied into one buffer: a chunk may have one byte, and a separate buffer for it would need a hundred times
 * its size.
 */
function enlarged(body: Buffer, size: number): Buffer {
  const larger = Buffer.alloc(Math.min(limits.maxRequestBytes, Math.max(size, 2 * body.length)));
  body.copy(larger);
  return larger;
}
