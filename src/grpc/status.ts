import { Metadata, type StatusObject } from '@grpc/grpc-js';
import { Status } from '../../gen/ts/google/rpc/status.js';
import { statusOf } from '../api/messages/status.js';
import type { ServiceError } from '../errors.js';

/** Converts an error for grpc-js. All texts are printable: a lone surrogate would crash the process. */
export function grpcStatus(error: ServiceError): StatusObject {
  const status = statusOf(error);
  const metadata = new Metadata();
  metadata.set('grpc-status-details-bin', Buffer.from(Status.encode(status).finish()));
  return { code: status.code as number, details: status.message, metadata };
}
