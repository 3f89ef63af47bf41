import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  Metadata,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  ServiceDefinition,
  sendUnaryData,
  UntypedServiceImplementation,
} from '@grpc/grpc-js';
import type { ApiService, DuplexMethod, StreamMethod, UnaryMethod } from '../api/dispatch/api_service.js';
import type { CallTransport } from '../api/dispatch/call_transport.js';
import { connectionOfCall } from './connection.js';
import { IncomingStream } from './incoming_stream.js';
import { grpcStatus } from './status.js';
import { GrpcSink } from './stream_sink.js';

/** A service as grpc-js registers it. */
export interface GrpcService {
  readonly definition: ServiceDefinition;
  readonly implementation: UntypedServiceImplementation;
}

/**
 * Converts a service of the API for grpc-js. Requests and responses pass as bytes, and handlers do not reject: grpc-js
 * would turn a malformed request into INTERNAL, and a rejected handler into an unhandled rejection.
 */
export function grpcServiceOf({ definition, unary, streams, duplexes }: ApiService): GrpcService {
  const definitions: Record<string, object> = {};
  const implementation: UntypedServiceImplementation = {};
  for (const [name, method] of Object.entries(definition) as [string, object][])
    definitions[name] = { ...method, requestDeserialize: asBytes, responseSerialize: asBytes };
  for (const [name, method] of unary) implementation[name] = unaryHandler(method);
  for (const [name, method] of streams) implementation[name] = streamHandler(method);
  for (const [name, method] of duplexes) implementation[name] = duplexHandler(method);
  return { definition: definitions as unknown as ServiceDefinition, implementation };
}

const asBytes = (bytes: Buffer) => bytes;

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** Makes a call of grpc-js the transport of the call, so that a call needs no additional object. */
export function transportOf<Call extends Omit<CallTransport, 'connection' | 'credentials'>>(
  call: Call & { readonly metadata: Metadata },
): Call & CallTransport {
  const transport = call as unknown as Call & Mutable<CallTransport>;
  const connection = connectionOfCall(call);
  const headers = call.metadata.get('authorization');
  const authorization = headers.length > 0 ? headers.join(', ') : undefined;
  transport.connection = connection?.responses;
  transport.credentials = connection?.credentials(authorization) ?? { authorization };
  return transport;
}

const unaryHandler = ({ run }: UnaryMethod) =>
  ((call: ServerUnaryCall<Buffer, Buffer>, callback: sendUnaryData<Buffer>): void =>
    run(call.request, transportOf(call), (error, bytes) =>
      error ? callback(grpcStatus(error)) : callback(null, bytes),
    )) as handleUnaryCall<unknown, unknown>;

const streamHandler = ({ open }: StreamMethod) =>
  ((stream: ServerWritableStream<Buffer, Buffer>): void =>
    open(
      stream.request,
      transportOf(stream),
      (toServiceError, connection) =>
        new GrpcSink(stream as ServerWritableStream<unknown, object>, connection, toServiceError),
    )) as handleServerStreamingCall<unknown, unknown>;

const duplexHandler = ({ open }: DuplexMethod) =>
  ((stream: ServerDuplexStream<Buffer, Buffer>): void =>
    open(
      new IncomingStream(stream),
      transportOf(stream),
      (toServiceError, connection) =>
        new GrpcSink(stream as unknown as ServerWritableStream<unknown, object>, connection, toServiceError),
    )) as handleBidiStreamingCall<unknown, unknown>;
