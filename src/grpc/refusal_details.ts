import type { Http2Session, OutgoingHttpHeaders } from 'node:http2';
import type { StatusObject } from '@grpc/grpc-js';
import { BaseServerInterceptingCall } from '@grpc/grpc-js/build/src/server-interceptors.js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { statusOf } from '../api/messages/status.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { StatusCode } from '../status_codes.js';
import { connectionOf } from './connection.js';
import { grpcStatus } from './status.js';

/*
 * grpc-js ends some calls itself: too large, too late, or with a message that cannot be decompressed. This file adds to
 * their statuses the details that all other errors of the service have.
 */

/** The part of a grpc-js call that sends its status. */
interface EndingCall {
  readonly stream: { readonly session?: Http2Session | undefined };
  sendStatus(status: Partial<StatusObject>): void;
}

const OK = 0;
const installed = new WeakSet<object>();

/** Makes grpc-js send details with its own errors on connections of this service. Throws if its version sends a status in another method. */
export function installRefusalDetails(calls: object = BaseServerInterceptingCall.prototype): void {
  if (installed.has(calls)) return;
  const { sendStatus } = calls as Partial<EndingCall>;
  if (typeof sendStatus !== 'function')
    throw new Error(
      'this version of @grpc/grpc-js sends a status in another method; update src/grpc/refusal_details.ts',
    );
  Object.assign(calls, {
    sendStatus(this: EndingCall, status: Partial<StatusObject>) {
      // Other servers of the process send their statuses unchanged.
      const isOurs = status.code !== OK && connectionOf(this.stream.session) !== undefined;
      sendStatus.call(this, isOurs ? withDetails(status) : status);
    },
  });
  installed.add(calls);
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

/** Adds details to a status that grpc-js created; returns all others unchanged. */
function withDetails(status: Partial<StatusObject>): Partial<StatusObject> {
  if ((status.metadata?.get('grpc-status-details-bin').length ?? 0) > 0) return status;
  const error = errorFor(status.code, status.details ?? '');
  return error ? grpcStatus(error) : status;
}

/** The error for a call that grpc-js ends; undefined for a status that a service of another contract returned. */
function errorFor(code: number | undefined, details: string): ServiceError | undefined {
  const max_bytes = String(limits.maxRequestBytes);
  if (code === StatusCode.RESOURCE_EXHAUSTED && details.startsWith('Received message'))
    return ServiceError.of('REQUEST_TOO_LARGE', { what: 'request', max_bytes });
  if (code === StatusCode.DEADLINE_EXCEEDED) return ServiceError.of('DEADLINE_EXCEEDED', {});
  if (code === StatusCode.INTERNAL && details.startsWith('Failed to decompress'))
    return ServiceError.of('INVALID_HEADER', {
      header: 'grpc-encoding',
      problem: 'does not match the encoding of the message',
    });
  if (code === StatusCode.UNIMPLEMENTED && details.includes('encoding'))
    return ServiceError.of('FEATURE_NOT_AVAILABLE', { feature: 'This grpc-encoding' });
  return undefined;
}
