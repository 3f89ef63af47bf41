import type { DescField, DescMessage, JsonObject } from '@bufbuild/protobuf';
import { type ReflectList, type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { maxElements } from '../max_elements.js';

export const FIELD_MASK = 'google.protobuf.FieldMask';
const MAX_PATHS = maxElements['google.protobuf.FieldMask.paths'];

/*
 * In JSON a mask is a text of paths in lowerCamelCase. The standard conversion to snake_case turns
 * `costPer1kInputTokens` into `cost_per1k_input_tokens`, which is not a field. So the names are looked up instead.
 * Names as in the proto files are accepted too, as everywhere else in JSON.
 */

/** Creates a FieldMask from its text, `temperature,maxTokens`, for a request type. */
export function maskOf(request: DescMessage, desc: DescMessage, text: string): ReflectMessage {
  const mask = reflect(desc);
  const paths = mask.get(desc.field['paths'] as DescField) as ReflectList<string>;
  const names = protoNames(request);
  const protoName = (name: string) => names.get(name) ?? name;
  // One path more than the maximum, so that the check of the request rejects the mask.
  for (const path of text === '' ? [] : text.split(',', MAX_PATHS + 1))
    paths.add(path.trim().split('.').map(protoName).join('.'));
  return mask;
}

/** The top-level masks of a body, by field, and the body without them. */
export function takeMasks(request: DescMessage, body: JsonObject): { masks: Map<DescField, string>; rest: JsonObject } {
  const masks = new Map<DescField, string>();
  const rest = Object.entries(body).filter(([key, value]) => {
    const field = request.fields.find((f) => f.name === key || f.jsonName === key);
    if (field?.fieldKind !== 'message' || field.message.typeName !== FIELD_MASK) return true;
    // A mask that is given twice or is not a text stays in the body, so that the decoder rejects it.
    if (typeof value !== 'string' || masks.has(field)) return true;
    masks.set(field, value);
    return false;
  });
  return { masks, rest: Object.fromEntries(rest) };
}

const namesByMessage = new WeakMap<DescMessage, ReadonlyMap<string, string>>();

/** The names of all fields of a message and of nested messages, by their JSON names. */
function protoNames(desc: DescMessage): ReadonlyMap<string, string> {
  const cached = namesByMessage.get(desc);
  if (cached) return cached;
  const names = new Map<string, string>();
  namesByMessage.set(desc, names);
  for (const field of desc.fields) {
    if (field.message) for (const [json, name] of protoNames(field.message)) names.set(json, name);
    names.set(field.jsonName, field.name);
  }
  return names;
}
