import { type DescField, type DescMessage, fromJson, type JsonValue, type Registry } from '@bufbuild/protobuf';
import { printable } from '../domain/text.js';
import type { Violation } from '../errors.js';
import { expectation, fieldNamed, isTextMessage, noField } from './fields.js';

/**
 * What is wrong with a JSON body that could not be decoded: all of it, by field.
 * Values are not repeated: one of them may be a key in the wrong place.
 */
export function explain(registry: Registry, desc: DescMessage, json: JsonValue, at = ''): Violation[] {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    return [{ field: at || 'body', description: 'must be an object' }];
  const entries = Object.entries(json);
  const known = entries.flatMap(([key, value]) => {
    const field = fieldNamed(desc, key);
    return field ? [{ field, value, path: join(at, field.name) }] : [];
  });
  const unknown = entries.filter(([key]) => !fieldNamed(desc, key)).map(([key]) => unknownField(desc, at, key));
  const wrong = known.flatMap(({ field, value, path }) => explainField(registry, field, value, path));
  return [...unknown, ...wrong, ...collisions(known)];
}

const unknownField = (desc: DescMessage, at: string, key: string): Violation => ({
  field: join(at, printable(key, 100)),
  description: noField(desc, key),
});

const join = (at: string, name: string) => (at ? `${at}.${name}` : name);

function explainField(registry: Registry, field: DescField, value: JsonValue, path: string): Violation[] {
  if (value === null || decodes(registry, field, value)) return [];
  const { message } = field;
  if (field.fieldKind === 'list') {
    if (!Array.isArray(value)) return [{ field: path, description: 'must be an array' }];
    return value.flatMap((item, index) => {
      const place = `${path}[${index}]`;
      if (decodes(registry, field, [item])) return [];
      return message && !isTextMessage(message) ? explain(registry, message, item, place) : [plain(field, place)];
    });
  }
  if (field.fieldKind === 'message' && message && !isTextMessage(message))
    return explain(registry, message, value, path);
  return [plain(field, path)];
}

const plain = (field: DescField, path: string): Violation => ({
  field: path,
  description: field.fieldKind === 'map' ? 'must be an object' : `must be ${expectation(field)}`,
});

function decodes(registry: Registry, field: DescField, value: JsonValue): boolean {
  try {
    fromJson(field.parent as DescMessage, { [field.name]: value }, { registry });
    return true;
  } catch {
    return false;
  }
}

interface Known {
  readonly field: DescField;
  readonly value: JsonValue;
  readonly path: string;
}

/** Fields that are given under both of their names, and fields of which only one may be given. */
function collisions(known: readonly Known[]): Violation[] {
  const given = known.filter(({ value }) => value !== null);
  return given.flatMap(({ field, path }, index) => {
    const others = given.slice(0, index);
    if (others.some((other) => other.field === field)) return [{ field: path, description: 'is given twice' }];
    const rival = others.find((other) => field.oneof && other.field.oneof === field.oneof);
    return rival ? [{ field: path, description: `cannot be given together with ${rival.field.name}` }] : [];
  });
}
