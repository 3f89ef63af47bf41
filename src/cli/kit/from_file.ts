import { readFileSync } from 'node:fs';
import {
  createFileRegistry,
  type DescMessage,
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
  toBinary,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { packageFile } from '../../package.js';
import { readNamedFile } from './connection.js';
import { type Input, type ParsedInputs, requestPaths, UsageError } from './inputs.js';
import { readStdin } from './stdin.js';

/** The resource that a write sends, and its field in the request. */
export interface Body {
  readonly at: string;
  /** The name of its proto message, `AgentLLMConfig`. */
  readonly type: string;
  readonly message: { decode(bytes: Uint8Array): object };
}

/** Reads a message from a JSON file. A field that is present is set, null clears it, and an absent field is kept. */
export async function readBody(body: Body, inputs: readonly Input[], path: string): Promise<Partial<ParsedInputs>> {
  const typed = `--from-file ${path}`;
  const json = unwrap(body, parse(typed, path === '-' ? await readStdin() : readNamedFile(typed, path)), typed);
  const touched = inputs
    .flatMap((input) => requestPaths(input))
    .filter((path) => path.startsWith(`${body.at}.`) && hasField(json, path.split('.').slice(1)));
  return {
    message: { [body.at]: decodeJson(body, json, typed) },
    touched: new Set(touched),
    causes: [{ path: body.at, typed }],
  };
}

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function parse(typed: string, text: string): JsonValue {
  try {
    return JSON.parse(text);
  } catch {
    throw UsageError.of([{ typed, description: 'must be JSON' }]);
  }
}

/** Accepts the output of `get --json` too, which has the message under its field name. */
function unwrap({ at }: Body, json: JsonValue, typed: string): JsonObject {
  const inner = isObject(json) && isObject(json[at]) ? json[at] : json;
  if (isObject(inner)) return inner;
  throw UsageError.of([{ typed, description: 'must be a JSON object' }]);
}

/** Decodes the JSON of a message. */
export function decodeJson<Message extends object>(
  { type, message }: Pick<Body, 'type'> & { readonly message: { decode(bytes: Uint8Array): Message } },
  json: JsonValue,
  typed: string,
): Message {
  const desc = messageNamed(type);
  try {
    return message.decode(toBinary(desc, fromJson(desc, json)));
  } catch (error) {
    const description = (error as Error).message.replace(
      /^cannot decode (message|field) agentllm\.v1\.(\S+) from JSON: /,
      '$2: ',
    );
    throw UsageError.of([{ typed, description }]);
  }
}

function messageNamed(type: string): DescMessage {
  const set = fromBinary(FileDescriptorSetSchema, readFileSync(packageFile('gen/descriptor.binpb')));
  const desc = createFileRegistry(set).getMessage(`agentllm.v1.${type}`);
  if (!desc) throw new Error(`gen/descriptor.binpb has no message ${type}`);
  return desc;
}

/**
 * Whether the JSON has a field at a path, in snake_case or camelCase. If a parent field is null, all fields below it
 * count as present.
 */
function hasField(json: JsonValue, [step, ...rest]: readonly string[]): boolean {
  if (step === undefined || json === null) return true;
  if (!isObject(json)) return false;
  const camel = step.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase());
  const name = [step, camel].find((one) => one in json);
  return name !== undefined && hasField(json[name] as JsonValue, rest);
}
