import type { DescField, DescMessage, JsonObject } from '@bufbuild/protobuf';
import { type ReflectList, type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { maxElements } from '../limits.js';

export const FIELD_MASK = 'google.protobuf.FieldMask';
const MOST_PATHS = maxElements['google.protobuf.FieldMask.paths'];

/*
 * In JSON a mask is a text of paths in lowerCamelCase, which is turned back by
 * rule: `costPer1kInputTokens` becomes `cost_per1k_input_tokens`, a field that
 * nobody has. So the names are looked up, and names as the proto files write
 * them are taken too, as everywhere else in JSON.
 */

/** Makes a FieldMask of its text, `temperature,maxTokens`, for a request of the type given. */
export function maskOf(request: DescMessage, desc: DescMessage, text: string): ReflectMessage {
  const mask = reflect(desc);
  const paths = mask.get(desc.field['paths'] as DescField) as ReflectList<string>;
  const names = protoNames(request);
  const protoName = (name: string) => names.get(name) ?? name;
  // One path more than the most, so that the check of the whole request refuses them.
  for (const path of text === '' ? [] : text.split(',', MOST_PATHS + 1))
    paths.add(path.trim().split('.').map(protoName).join('.'));
  return mask;
}

/** The top-level masks of a body, by field, and the body without them. */
export function takeMasks(request: DescMessage, body: JsonObject): { masks: Map<DescField, string>; rest: JsonObject } {
  const masks = new Map<DescField, string>();
  const rest = Object.entries(body).filter(([key, value]) => {
    const field = request.fields.find((f) => f.name === key || f.jsonName === key);
    if (field?.fieldKind !== 'message' || field.message.typeName !== FIELD_MASK) return true;
    // A mask that is given twice or is no text is left for the decoder to refuse.
    if (typeof value !== 'string' || masks.has(field)) return true;
    masks.set(field, value);
    return false;
  });
  return { masks, rest: Object.fromEntries(rest) };
}

const known = new WeakMap<DescMessage, ReadonlyMap<string, string>>();

/** The names of all fields of a message and of those within it, by their names in JSON. */
function protoNames(desc: DescMessage): ReadonlyMap<string, string> {
  const before = known.get(desc);
  if (before) return before;
  const names = new Map<string, string>();
  known.set(desc, names);
  for (const field of desc.fields) {
    if (field.message) for (const [json, name] of protoNames(field.message)) names.set(json, name);
    names.set(field.jsonName, field.name);
  }
  return names;
}
