import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { limits } from '../limits.js';
import type { ConnectionResponses, UnreadResponses } from '../net/unread_responses.js';

/** Handles one request; `connection` counts its response. */
export type Handle = (request: IncomingMessage, response: ServerResponse, connection: ConnectionResponses) => void;

interface Pipeline {
  readonly connection: ConnectionResponses;
  readonly waiting: (() => void)[];
  busy: boolean;
}

/**
 * Handles the requests of each connection one after the other. Node starts all pipelined requests at the same time and
 * buffers their responses until the earlier ones are sent: 300 responses of a client that reads none took 8 GB.
 */
export function oneAtATime(outgoing: UnreadResponses, handle: Handle): RequestListener {
  const pipelines = new WeakMap<Socket, Pipeline>();
  return (request, response) => {
    const { socket } = request;
    const pipeline = pipelines.get(socket) ?? { connection: outgoing.open(socket), waiting: [], busy: false };
    pipelines.set(socket, pipeline);
    const begin = () => {
      pipeline.busy = true;
      response.once('close', () => next(pipeline));
      handle(request, response, pipeline.connection);
    };
    if (!pipeline.busy) begin();
    else if (pipeline.waiting.length < limits.pipelinedRequests) pipeline.waiting.push(begin);
    else socket.destroy();
  };
}

/** Starts the next request in a later turn of the event loop, so that other connections make progress. */
function next(pipeline: Pipeline): void {
  const { waiting, connection } = pipeline;
  if (connection.ended || connection.socket.destroyed) waiting.length = 0;
  const begin = waiting.shift();
  if (begin) setImmediate(begin);
  else pipeline.busy = false;
}
