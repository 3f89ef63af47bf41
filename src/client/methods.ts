import { randomUUID } from 'node:crypto';
import type { CallOptions, Connection, Outgoing } from './connection.js';

/** A request as it is written: what is left out has its default. */
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

/** The methods of a service as functions that give promises, each with the comment of the proto. */
export type Methods<Definition> = {
  readonly [M in keyof Definition]: Definition[M] extends UnaryDefinition<infer Request, infer Response>
    ? (request?: Partially<Request>, options?: CallOptions) => Promise<Response>
    : never;
};

interface MessageType {
  fromPartial(partial: object): object;
}

/**
 * Methods for every method of a service definition. The module that defines the
 * service has its request types too, by the rule that the request of `GetConfig`
 * is `GetConfigRequest` (buf lint holds it).
 */
export function methodsOf<Definition extends object>(
  definition: Definition,
  messages: Readonly<Record<string, unknown>>,
  connection: Connection,
): Methods<Definition> {
  const all = Object.entries(definition) as [string, UnaryDefinition<object, object>][];
  // A stream is no promise: what it is for has functions of its own.
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
 * A request's bytes. Every write can be sent again, by this library or by its
 * caller, without being done twice: it gets a request id where it has none. An
 * empty one is left as it is, for those who want none.
 */
function outgoing(method: UnaryDefinition<object, object>, type: MessageType, given: object): Outgoing {
  const request = type.fromPartial(given) as { request_id?: string };
  if ('request_id' in request && (given as typeof request).request_id === undefined) request.request_id = randomUUID();
  return { bytes: method.requestSerialize(request), requestId: request.request_id || undefined };
}
