import { randomUUID } from 'node:crypto';
import type { CallOptions, Connection, Outgoing } from './connection.js';

/** A message in which every field is optional. Omitted fields have their default. */
export type Partially<T> = T extends Date | Uint8Array | string | number | boolean | bigint | undefined
  ? T
  : T extends readonly (infer E)[]
    ? readonly Partially<E>[]
    : { readonly [K in keyof T]?: Partially<T[K]> | undefined };

interface UnaryDefinition<Request, Response> {
  readonly path: string;
  readonly requestStream: false;
  readonly responseStream: false;
  readonly requestSerialize: (request: Request) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

/** The unary methods of a service as functions that return promises, with the comments of the proto. */
export type Methods<Definition> = {
  readonly [M in keyof Definition]: Definition[M] extends UnaryDefinition<infer Request, infer Response>
    ? (request?: Partially<Request>, options?: CallOptions) => Promise<Response>
    : never;
};

interface MessageType {
  fromPartial(partial: object): object;
}

/**
 * Creates a function for every unary method of a service definition. `messages`
 * is the module that defines the service and its request types; buf lint ensures
 * that the request of `GetConfig` is named `GetConfigRequest`.
 */
export function methodsOf<Definition extends object>(
  definition: Definition,
  messages: Readonly<Record<string, unknown>>,
  connection: Connection,
): Methods<Definition> {
  const all = Object.entries(definition) as [string, UnaryDefinition<object, object>][];
  // Streams do not fit into a promise; the resident client handles them.
  const methods = all.filter(([, { responseStream }]) => !responseStream);
  const entries = methods.map(([name, method]) => {
    const type = messages[`${name[0]?.toUpperCase()}${name.slice(1)}Request`] as MessageType;
    const call = (request: object = {}, options?: CallOptions) =>
      connection.call(method, () => outgoing(method, type, request), options);
    return [name, call];
  });
  return Object.fromEntries(entries);
}

/**
 * Encodes a request. A write without a request id gets one, so that this library
 * or its caller can send it again without executing it twice. A caller that wants
 * no request id passes an empty one.
 */
function outgoing(method: UnaryDefinition<object, object>, type: MessageType, input: object): Outgoing {
  const request = type.fromPartial(input) as { request_id?: string };
  if ('request_id' in request && (input as typeof request).request_id === undefined) request.request_id = randomUUID();
  return { bytes: method.requestSerialize(request), requestId: request.request_id || undefined };
}
