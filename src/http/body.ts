import type { IncomingMessage, ServerResponse } from 'node:http';
import { limits } from '../limits.js';
import { hasBody, Refusal, refuse } from './answer.js';

const tooLarge = () =>
  new Refusal(refuse(413, 'RESOURCE_EXHAUSTED', `A request may have at most ${limits.maxRequestBytes} bytes`));

const JSON_ONLY = /^application\/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?;?\s*$/i;

/** Reads the JSON body of a request as bytes; undefined when it has none. */
export async function readBody(request: IncomingMessage, response: ServerResponse): Promise<Buffer | undefined> {
  if (!hasBody(request)) return undefined;
  const { headers } = request;
  if (!JSON_ONLY.test(headers['content-type'] ?? ''))
    throw new Refusal(refuse(415, 'INVALID_ARGUMENT', 'The body must be JSON: send content-type: application/json'));
  if ((headers['content-encoding'] ?? 'identity') !== 'identity')
    throw new Refusal(refuse(415, 'INVALID_ARGUMENT', 'The body must not be compressed'));
  if (Number(headers['content-length'] ?? 0) > limits.maxRequestBytes) throw tooLarge();
  if (headers.expect) response.writeContinue();
  return collect(request);
}

/** A caller that goes away or is too slow is cut off by the server; then this rejects, and nobody hears of it. */
function collect(request: IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let chunks: Buffer[] = [];
    let size = 0;
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= limits.maxRequestBytes) return void chunks.push(chunk);
      chunks = [];
      reject(tooLarge());
    });
    request.on('end', () => resolve(Buffer.concat(chunks)));
    request.on('error', reject);
    request.on('close', () => reject(new Error('the caller is gone')));
  });
}
