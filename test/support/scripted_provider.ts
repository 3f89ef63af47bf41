import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { onTestFinished } from 'vitest';

/** A request that the server received. */
export interface ReceivedRequest {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  // biome-ignore lint/suspicious/noExplicitAny: tests read whatever the request has
  readonly body: any;
  /** When it arrived, in ms of `performance.now()`. */
  readonly at: number;
  /** Resolves when its connection is closed or its response has ended. */
  readonly closed: Promise<void>;
}

/** Responds to one request. */
export type Respond = (response: ServerResponse, request: ReceivedRequest) => unknown;

export interface ScriptedProvider {
  readonly url: string;
  readonly requests: ReceivedRequest[];
  /** Responses to the next requests, in order; the last one is repeated. */
  script(...responses: Respond[]): void;
  /** Open connections. */
  readonly sockets: ReadonlySet<Socket>;
}

/** An HTTP server whose responses a test scripts, until the end of the test. */
export async function startScriptedProvider(...responses: Respond[]): Promise<ScriptedProvider> {
  let script = responses;
  const requests: ReceivedRequest[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
    });
    request.on('end', () => {
      const closed = new Promise<void>((resolve) => response.on('close', resolve));
      const { url: path = '', headers } = request;
      const received = {
        path,
        headers,
        body: text === '' ? undefined : JSON.parse(text),
        at: performance.now(),
        closed,
      };
      requests.push(received);
      const respond = script.length > 1 ? script.shift() : script[0];
      respond?.(response, received);
    });
  });
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(
    () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  const { port } = server.address() as AddressInfo;
  const set = (...next: Respond[]) => {
    script = next;
  };
  return { url: `http://127.0.0.1:${port}/v1`, requests, sockets, script: set };
}

type Headers = Readonly<Record<string, string>>;

/** A JSON response. */
export const json =
  (body: unknown, status = 200, headers: Headers = {}): Respond =>
  (response) =>
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));

/** A response of any type. */
export const raw =
  (body: string | Buffer, status = 200, headers: Headers = {}): Respond =>
  (response) =>
    response.writeHead(status, headers).end(body);

/** An error of OpenAI. */
export const failure = (status: number, error: object = {}, headers: Headers = {}): Respond =>
  json({ error: { message: 'scripted', type: null, param: null, code: null, ...error } }, status, headers);

/** Closes the connection without a response. */
export const reset: Respond = (response) => response.destroy();

/** Never responds. */
export const silence: Respond = () => {};

/** Server-sent events. A function in the list is called with the response, for example to wait. */
export const events =
  (
    list: readonly (string | object | ((response: ServerResponse) => unknown))[],
    end: 'end' | 'reset' | 'open' = 'end',
  ): Respond =>
  async (response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream', 'x-request-id': 'req_1' });
    response.flushHeaders();
    for (const event of list) {
      if (typeof event === 'function') await event(response);
      else response.write(typeof event === 'string' ? event : `data: ${JSON.stringify(event)}\n\n`);
    }
    if (end === 'end') response.end();
    if (end === 'reset') setTimeout(() => response.destroy(), 10);
  };

export const DONE = 'data: [DONE]\n\n';

/** A chunk of a chat completion with text. */
export const textChunk = (content: string) => ({ model: 'served', choices: [{ index: 0, delta: { content } }] });
export const finishChunk = (finish_reason = 'stop') => ({
  model: 'served',
  choices: [{ index: 0, delta: {}, finish_reason }],
});
export const usageChunk = (prompt = 3, completion = 2) => ({
  model: 'served',
  choices: [],
  usage: { prompt_tokens: prompt, completion_tokens: completion, total_tokens: prompt + completion },
});

/** A complete stream of chat completions. */
export const chatStream = (...words: string[]): Respond =>
  events([...words.map(textChunk), finishChunk(), usageChunk(), DONE]);

/** A complete chat completion. */
export const chatCompletion = (content: string, more: object = {}) =>
  json({
    id: 'chatcmpl-1',
    object: 'chat.completion',
    created: 1,
    model: 'served',
    choices: [{ index: 0, message: { role: 'assistant', content, ...more }, finish_reason: 'stop' }],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
  });

/** Waits in a list of events. */
export const pause = (ms: number) => () => new Promise((resolve) => setTimeout(resolve, ms));
