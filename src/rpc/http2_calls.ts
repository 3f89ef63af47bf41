import type { Http2Server, IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { printable } from '../domain/text.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { StatusCode } from '../status_codes.js';
import { statusOf } from './status.js';

type OnStream = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  flags: number,
  rawHeaders: readonly string[],
) => void;

const TIMEOUT = /^\d{1,8}[HMSmun]$/;

/**
 * Looks at every call before grpc-js does. Node keeps only the first of several `authorization` headers, so a second one
 * that is wrong would pass; here a call gets all of them, as over HTTP. And what grpc-js refuses by itself gets the
 * details that every other error of the service has.
 */
export function checkCalls(server: Server): void {
  const http2 = http2ServerOf(server);
  const listeners = http2.listeners('stream') as OnStream[];
  http2.removeAllListeners('stream');
  http2.on('stream', ((stream, headers, flags, rawHeaders) => {
    const refusal = checkHeaders(headers, rawHeaders);
    // On the stream itself: they replace what the prototype has, and need no closure for each call.
    stream.respond = respond;
    stream.sendTrailers = sendTrailers;
    if (refusal) refuse(stream, refusal);
    else for (const listener of listeners) listener.call(http2, stream, headers, flags, rawHeaders);
  }) satisfies OnStream);
}

/** grpc-js has no public access to its HTTP/2 server. Its version is fixed, and a start fails if this changes. */
function http2ServerOf(server: Server): Http2Server {
  const { http2Servers } = server as unknown as { http2Servers?: ReadonlyMap<Http2Server, unknown> };
  const [http2] = http2Servers?.keys() ?? [];
  if (!http2 || http2.listenerCount('stream') === 0)
    throw new Error('@grpc/grpc-js has no HTTP/2 server to check calls of');
  return http2;
}

/** Completes the headers that Node has cut; returns why the call is refused. */
function checkHeaders(headers: IncomingHttpHeaders, rawHeaders: readonly string[]): ServiceError | undefined {
  const { authorization } = headers;
  if (authorization !== undefined) {
    const all: string[] = [];
    for (let at = 0; at < rawHeaders.length; at += 2)
      if (rawHeaders[at] === 'authorization') all.push(rawHeaders[at + 1] as string);
    if (all.length > 1) headers.authorization = all.join(', ');
  }
  const timeout = headers['grpc-timeout'];
  if (timeout !== undefined && !TIMEOUT.test(String(timeout)))
    return ServiceError.of('INVALID_HEADER', { header: 'grpc-timeout', problem: 'must be a time like 500m or 2S' });
  return undefined;
}

const HEADERS: OutgoingHttpHeaders = { ':status': 200, 'content-type': 'application/grpc+proto' };

function refuse(stream: ServerHttp2Stream, error: ServiceError): void {
  stream.on('error', () => {});
  stream.respond({ ...HEADERS, ...trailersOf(error) }, { endStream: true });
  // The rest of the request is not read.
  stream.resume();
}

function trailersOf(error: ServiceError): OutgoingHttpHeaders {
  const status = statusOf(error);
  return {
    'grpc-status': status.code,
    'grpc-message': encodeURI(status.message),
    'grpc-status-details-bin': Buffer.from(Status.encode(status).finish()).toString('base64'),
  };
}

function respond(this: ServerHttp2Stream, headers?: OutgoingHttpHeaders, options?: object): void {
  prototypeOf(this).respond.call(this, headers && withDetails(headers), options);
}

function sendTrailers(this: ServerHttp2Stream, headers: OutgoingHttpHeaders): void {
  prototypeOf(this).sendTrailers.call(this, withDetails(headers));
}

const prototypeOf = (stream: ServerHttp2Stream) => Object.getPrototypeOf(stream) as ServerHttp2Stream;

/** A status of grpc-js itself with the details of the service; everything else as it is. */
function withDetails(headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  const status = headers['grpc-status'];
  if (headers[':status'] === 415) return { ...headers, ...trailersOf(noGrpc()) };
  if (!status || headers['grpc-status-details-bin'] !== undefined) return headers;
  const error = errorFor(Number(status), String(headers['grpc-message'] ?? ''));
  return error ? { ...headers, ...trailersOf(error) } : headers;
}

/** The reason for which grpc-js refuses a call; undefined for a status that a service of another contract chose. */
function errorFor(code: number, message: string): ServiceError | undefined {
  const max_bytes = String(limits.maxRequestBytes);
  if (code === StatusCode.RESOURCE_EXHAUSTED && message.startsWith('Received%20message'))
    return ServiceError.of('REQUEST_TOO_LARGE', { what: 'request', max_bytes });
  if (code === StatusCode.DEADLINE_EXCEEDED) return ServiceError.of('DEADLINE_EXCEEDED', {});
  if (code === StatusCode.INTERNAL && message.startsWith('Failed%20to%20decompress'))
    return ServiceError.of('INVALID_HEADER', { header: 'grpc-encoding', problem: 'does not fit the message' });
  if (code !== StatusCode.UNIMPLEMENTED) return undefined;
  if (message.includes('encoding')) return ServiceError.of('FEATURE_NOT_AVAILABLE', { feature: 'This grpc-encoding' });
  const [, path] = NO_METHOD.exec(message) ?? [];
  return path ? ServiceError.of('METHOD_NOT_FOUND', { method: printable(path, 100) }) : undefined;
}

/** What grpc-js says of a path that it does not know; encoded or not. */
const NO_METHOD = /not(?: |%20)implement(?: |%20)the(?: |%20)method(?: |%20)\/?(.+)$/;

const noGrpc = () =>
  ServiceError.of('INVALID_HEADER', {
    header: 'content-type',
    problem: 'must be application/grpc; JSON has its own port',
  });
