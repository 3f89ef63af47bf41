import type { DescFile, Registry } from '@bufbuild/protobuf';
import { toBinary } from '@bufbuild/protobuf';
import { FileDescriptorProtoSchema } from '@bufbuild/protobuf/wkt';
import type { handleBidiStreamingCall, Server, ServerDuplexStream } from '@grpc/grpc-js';
import {
  type ServerReflectionRequest as Request,
  type ServerReflectionResponse as Response,
  ServerReflectionService as V1,
} from '../../gen/ts/grpc/reflection/v1/reflection.js';
import { ServerReflectionService as V1Alpha } from '../../gen/ts/grpc/reflection/v1alpha/reflection.js';
import type { Api } from '../api/api.js';
import type { CallTransport } from '../api/dispatch/call_transport.js';
import type { Reflection } from '../config.js';
import type { ServiceError } from '../errors.js';
import { StatusCode } from '../status_codes.js';
import { timeSlice } from '../time_slice.js';
import { transportOf } from './adapter.js';
import { grpcStatus } from './status.js';

/*
 * Server reflection, v1 and v1alpha: the same messages under two names. The library @grpc/reflection 1.0.4 merges the
 * files of a package and drops their comments and options, so that buf curl finds no service and the annotations of the
 * contract are lost. This implementation returns the files unchanged.
 */
export function addReflection(
  server: Server,
  { contract: { registry }, authorizer }: Pick<Api, 'contract' | 'authorizer'>,
  reflection: Reflection,
): void {
  if (reflection === 'off') return;
  const admit = ({ credentials }: CallTransport) => {
    if (reflection === 'authenticated') authorizer.identify(credentials, 'grpc.reflection');
  };
  const implementation = {
    serverReflectionInfo: respondToAll(admit, (request) => respond(registry, request)) as handleBidiStreamingCall<
      Request,
      Response
    >,
  };
  server.addService(V1, implementation);
  server.addService(V1Alpha, implementation);
}

/** Responds to requests in order. Reads the next one after the response is sent, in a later turn of the event loop. */
function respondToAll(
  admit: (transport: CallTransport) => void,
  respondToOne: (request: Request) => Partial<Response>,
) {
  return (stream: ServerDuplexStream<Request, Response>): void => {
    const transport = transportOf(stream);
    try {
      admit(transport);
    } catch (error) {
      stream.emit('error', grpcStatus(error as ServiceError));
      return;
    }
    const destroy = () => stream.destroy();
    stream.on('error', destroy);
    const { connection } = transport;
    stream.on('data', (original_request: Request) => {
      if (stream.writableEnded) return;
      try {
        connection?.checkRoom();
      } catch (error) {
        // grpc-js sends the emitted error as the status.
        stream.off('error', destroy).emit('error', grpcStatus(error as ServiceError));
        return;
      }
      const response = { valid_host: original_request.host, original_request, ...respondToOne(original_request) };
      const sent = connection?.add(sizeOf(response));
      // Thousands of requests fit into one packet, and one response may be 200 KB.
      stream.pause();
      stream.write(response as Response, () => {
        sent?.();
        void timeSlice.next().then(() => stream.resume());
      });
    });
    stream.on('end', () => stream.end());
  };
}

const sizeOf = ({ file_descriptor_response: files }: Partial<Response>): number =>
  files?.file_descriptor_proto.reduce((size, { length }) => size + length, 0) ?? 0;

function respond(registry: Registry, request: Request): Partial<Response> {
  if (request.list_services !== undefined) return { list_services_response: { service: services(registry) } };
  if (request.file_by_filename !== undefined) return files(fileNamed(registry, request.file_by_filename));
  if (request.file_containing_symbol !== undefined) return files(fileOf(registry, request.file_containing_symbol));
  if (request.file_containing_extension) {
    const { containing_type, extension_number } = request.file_containing_extension;
    return files(extensionsOf(registry, containing_type).find((e) => e.number === extension_number)?.file);
  }
  if (request.all_extension_numbers_of_type !== undefined) {
    const base_type_name = request.all_extension_numbers_of_type;
    if (!registry.getMessage(base_type_name)) return NOT_FOUND;
    const extension_number = extensionsOf(registry, base_type_name).map((e) => e.number);
    return { all_extension_numbers_response: { base_type_name, extension_number } };
  }
  return { error_response: { error_code: StatusCode.INVALID_ARGUMENT, error_message: 'The request is empty' } };
}

const NOT_FOUND = {
  error_response: { error_code: StatusCode.NOT_FOUND, error_message: 'No such file, symbol or extension' },
};

const services = (registry: Registry) =>
  [...registry].flatMap((type) => (type.kind === 'service' ? [{ name: type.typeName }] : []));

const extensionsOf = (registry: Registry, typeName: string) =>
  [...registry].flatMap((type) => (type.kind === 'extension' && type.extendee.typeName === typeName ? [type] : []));

function fileNamed(registry: Registry, name: string): DescFile | undefined {
  const withoutEnding = name.replace(/\.proto$/, '');
  for (const type of registry) if (type.file.name === withoutEnding) return type.file;
  return undefined;
}

/** The file that declares a type, or the type that a method, field or value belongs to. */
function fileOf(registry: Registry, symbol: string): DescFile | undefined {
  const parent = symbol.slice(0, Math.max(0, symbol.lastIndexOf('.')));
  return (registry.get(symbol) ?? registry.get(parent))?.file;
}

/** A file and all its imports, imports first and without duplicates, so that a caller needs no further request. */
function files(file: DescFile | undefined): Partial<Response> {
  if (!file) return NOT_FOUND;
  const cached = responses.get(file);
  if (cached) return cached;
  const needed = new Set<DescFile>();
  const collect = (current: DescFile) => {
    for (const dependency of current.dependencies) if (!needed.has(dependency)) collect(dependency);
    needed.add(current);
  };
  collect(file);
  const encode = ({ proto }: DescFile) => Buffer.from(toBinary(FileDescriptorProtoSchema, proto));
  const response = { file_descriptor_response: { file_descriptor_proto: [...needed].map(encode) } };
  responses.set(file, response);
  return response;
}

/** Responses by file: the encoding of a file with its imports takes milliseconds. */
const responses = new WeakMap<DescFile, Partial<Response>>();
