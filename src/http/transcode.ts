import {
  create,
  type DescMessage,
  fromBinary,
  fromJson,
  fromJsonString,
  type JsonObject,
  type JsonValue,
  type Registry,
  toBinary,
  toJson,
} from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { EmptySchema } from '@bufbuild/protobuf/wkt';
import { invalidFields, ServiceError } from '../errors.js';
import { explain } from './explain.js';
import { maskOf, takeMasks } from './masks.js';
import { setQuery, setVariables } from './parameters.js';
import type { Route } from './routes.js';

/** What of a request becomes the message: as it came, nothing decoded. */
export interface Parts {
  /** The texts that the path's variables matched. */
  readonly values: readonly string[];
  readonly query: string;
  readonly body: Buffer | undefined;
}

/** Reads a request message, and gives its bytes. */
export function requestBytes(registry: Registry, route: Route, parts: Parts): Uint8Array {
  const { input } = route.method;
  const request = reflect(input, readJson(registry, route, parts.body) as never);
  const problems = [...setVariables(request, route, parts.values), ...setQuery(request, route, parts.query)];
  if (problems.length > 0) throw invalidFields(problems);
  return toBinary(input, request.message);
}

/** An answer's bytes as JSON. Fields without presence are always there: only what can be absent ever is. */
export function answerJson(registry: Registry, desc: DescMessage, bytes: Uint8Array): string {
  return JSON.stringify(toJson(desc, fromBinary(desc, bytes), { registry, alwaysEmitImplicit: true }));
}

const isObject = (value: JsonValue): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function readJson(registry: Registry, { method: { input }, body }: Route, bytes: Buffer | undefined) {
  if (bytes === undefined || bytes.length === 0) return create(input);
  if (body === '') throw invalidFields([{ field: 'body', description: 'must be empty: fields go into the query' }]);
  const parsed = parse(input, bytes);
  const value = body === '*' ? parsed : { [body]: parsed };
  const { masks, rest } = isObject(value) ? takeMasks(input, value) : { masks: new Map(), rest: value };
  const message = decodeJson(registry, input, rest);
  for (const [field, text] of masks) reflect(input, message).set(field, maskOf(input, field.message, text));
  return message;
}

/** Parses strictly: a key that stands twice means different things to different readers. */
function parse({ typeName }: DescMessage, bytes: Buffer): JsonValue {
  const fail = (description: string) =>
    ServiceError.of('MALFORMED_REQUEST', { type: typeName }, { violations: [{ field: 'body', description }] });
  let text: string;
  let value: JsonValue;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw fail('must be UTF-8');
  }
  try {
    value = JSON.parse(text);
  } catch {
    throw fail('must be JSON');
  }
  try {
    fromJsonString(EmptySchema, text, { ignoreUnknownFields: true });
  } catch {
    if (isObject(value)) throw fail('must not name a key twice');
  }
  return value;
}

function decodeJson(registry: Registry, desc: DescMessage, value: JsonValue) {
  try {
    return fromJson(desc, value, { registry });
  } catch {
    const violations = explain(registry, desc, value);
    if (violations.length > 0) throw invalidFields(violations);
    throw ServiceError.of('MALFORMED_REQUEST', { type: desc.typeName });
  }
}
