import type { OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { statusOf } from '../api/messages/status.js';
import { printable } from '../domain/text.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { StatusCode } from '../status_codes.js';

/*
 * grpc-js rejects some calls itself: too large, of an unknown method, or with a message that cannot be decompressed.
 * This file adds to their statuses the details that all other errors of the service have.
 */

/**
 * Adds the details to the statuses that grpc-js sends on a stream. It replaces methods of the stream, without a closure
 * per call.
 */
export function addRefusalDetails(stream: ServerHttp2Stream): void {
  stream.respond = respond;
  stream.sendTrailers = sendTrailers;
}

/** The trailers of a gRPC response with an error. */
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

/** Adds details to a status that grpc-js created; returns all other headers unchanged. */
function withDetails(headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  const status = headers['grpc-status'];
  if (headers[':status'] === 415) return { ...headers, ...trailersOf(notGrpc()) };
  if (!status || headers['grpc-status-details-bin'] !== undefined) return headers;
  const error = errorFor(Number(status), String(headers['grpc-message'] ?? ''));
  return error ? { ...headers, ...trailersOf(error) } : headers;
}

/** The error for a call that grpc-js rejects; undefined for a status that a service of another contract returned. */
function errorFor(code: number, message: string): ServiceError | undefined {
  const max_bytes = String(limits.maxRequestBytes);
  if (code === StatusCode.RESOURCE_EXHAUSTED && message.startsWith('Received%20message'))
    return ServiceError.of('REQUEST_TOO_LARGE', { what: 'request', max_bytes });
  if (code === StatusCode.DEADLINE_EXCEEDED) return ServiceError.of('DEADLINE_EXCEEDED', {});
  if (code === StatusCode.INTERNAL && message.startsWith('Failed%20to%20decompress'))
    return ServiceError.of('INVALID_HEADER', {
      header: 'grpc-encoding',
      problem: 'does not match the encoding of the message',
    });
  if (code !== StatusCode.UNIMPLEMENTED) return undefined;
  if (message.includes('encoding')) return ServiceError.of('FEATURE_NOT_AVAILABLE', { feature: 'This grpc-encoding' });
  const [, path] = NO_METHOD.exec(message) ?? [];
  return path ? ServiceError.of('METHOD_NOT_FOUND', { method: printable(path, 100) }) : undefined;
}

/** The message of grpc-js for an unknown path, URL-encoded or not. */
const NO_METHOD = /not(?: |%20)implement(?: |%20)the(?: |%20)method(?: |%20)\/?(.+)$/;

const notGrpc = () =>
  ServiceError.of('INVALID_HEADER', {
    header: 'content-type',
    problem: 'must be application/grpc; the JSON API has another port',
  });
