import type { OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { statusOf } from '../api/messages/status.js';
import { printable } from '../domain/text.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { StatusCode } from '../status_codes.js';

/*
 * grpc-js refuses some calls by itself: too large, of an unknown method, not decompressible. Their statuses get the
 * details that every other error of the service has.
 */

/**
 * Adds the details to what grpc-js sends on a stream. The methods are replaced on the stream, without a closure per
 * call.
 */
export function addRefusalDetails(stream: ServerHttp2Stream): void {
  stream.respond = respond;
  stream.sendTrailers = sendTrailers;
}

/** An error as the trailers of a gRPC response. */
export function trailersOf(error: ServiceError): OutgoingHttpHeaders {
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
