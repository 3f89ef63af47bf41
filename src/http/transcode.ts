import {
  create,
  type DescField,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
  type Registry,
  toBinary,
  toJson,
} from '@bufbuild/protobuf';
import { reflect } from '@bufbuild/protobuf/reflect';
import { ServiceError, type Violation } from '../errors.js';
import { limits } from '../limits.js';
import { invalidFields, Problems } from '../problems.js';
import { explain } from './explain.js';
import { expectation, fieldNamed } from './fields.js';
import { bodyProblem } from './json_body.js';
import { maskOf, takeMasks } from './masks.js';
import { setQuery, setVariables } from './parameters.js';
import type { Route } from './routes.js';
import { checkElements, elementsProblem, hasLooseNumbers, refuseNulls } from './values.js';

/** The undecoded parts of an HTTP request that become the message. */
export interface Parts {
  /** The texts that the variables of the path match. */
  readonly values: readonly string[];
  readonly query: string;
  readonly body: Buffer | undefined;
}

/** Converts an HTTP request to the bytes of its request message. */
export function requestBytes(registry: Registry, route: Route, parts: Parts): Uint8Array {
  const { input } = route.method;
  const request = reflect(input, readJson(registry, route, parts.body) as never);
  const problems = new Problems();
  setVariables(problems, request, route, parts.values);
  setQuery(problems, request, route, parts.query);
  problems.throwIfAny();
  return toBinary(input, request.message);
}

/** Converts the bytes of a response to JSON. Fields without presence are always included. */
export function responseJson(registry: Registry, desc: DescMessage, bytes: Uint8Array): string {
  return JSON.stringify(toJson(desc, fromBinary(desc, bytes), { registry, alwaysEmitImplicit: true }));
}

const isObject = (value: JsonValue): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function readJson(registry: Registry, { method: { input }, body }: Route, bytes: Buffer | undefined) {
  if (bytes === undefined || bytes.length === 0) return create(input);
  if (body === '') throw invalidFields([{ field: 'body', description: 'must be empty: set the fields in the query' }]);
  const parsed = parse(input, bytes);
  const value = body === '*' ? parsed : { [body]: parsed };
  const { masks, rest } = isObject(value)
    ? takeMasks(input, value)
    : { masks: new Map<DescField, string>(), rest: value };
  if ([...masks.values()].every((text) => text === '')) refuseNulls(input, rest);
  const message = decodeJson(registry, input, rest);
  for (const [field, text] of masks) {
    if (!text.isWellFormed())
      throw invalidFields([{ field: field.name, description: `must be ${expectation(field)}` }]);
    reflect(input, message).set(field, maskOf(input, field.message as DescMessage, text));
  }
  return message;
}

const malformed = (problem: string) => ServiceError.of('MALFORMED_JSON', { problem });

/** Parses a body after checking its limits. */
function parse(input: DescMessage, bytes: Buffer): JsonValue {
  const problem = bodyProblem(bytes);
  if (problem?.kind === 'malformed') throw malformed(problem.description);
  if (problem) throw invalidFields([tooMany(input, problem.path)]);
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw malformed('must be JSON');
  }
}

/** Names the repeated field with too many elements: the deepest one on the path, or the body if there is none. */
function tooMany(input: DescMessage, keys: readonly string[]): Violation {
  let desc: DescMessage | undefined = input;
  let problem = { field: 'body', description: `must have at most ${limits.maxRequestFields} keys and values` };
  const path: string[] = [];
  for (const key of keys) {
    const field: DescField | undefined = desc && fieldNamed(desc, key);
    if (!field) break;
    path.push(field.name);
    if (field.fieldKind === 'list') problem = { field: path.join('.'), description: elementsProblem(field) };
    desc = field.message;
  }
  return problem;
}

function decodeJson(registry: Registry, desc: DescMessage, value: JsonValue) {
  const problems = new Problems();
  checkElements(problems, desc, value);
  problems.throwIfAny();
  try {
    if (!hasLooseNumbers(desc, value)) return fromJson(desc, value, { registry });
  } catch {
    // `explain` reports the problems, because the decoder names only one field.
  }
  explain(problems, registry, desc, value);
  problems.throwIfAny();
  throw malformed(`is not a valid ${desc.typeName}`);
}
