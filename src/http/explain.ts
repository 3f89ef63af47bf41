import { type DescField, type DescMessage, fromJson, type JsonValue, type Registry } from '@bufbuild/protobuf';
import { printable } from '../domain/text.js';
import type { Violation } from '../errors.js';
import type { Problems } from '../problems.js';
import { expectation, fieldNamed, isTextMessage, noField } from './fields.js';
import { hasLooseNumber } from './values.js';

/**
 * Adds the problems of a JSON body that cannot be decoded, by field. Values are not repeated, because one of them may
 * be an API key in the wrong field.
 */
export function explain(problems: Problems, registry: Registry, desc: DescMessage, json: JsonValue, at = ''): void {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    problems.add(at || 'body', 'must be an object');
    return;
  }
  const fields: PresentField[] = [];
  for (const [key, value] of Object.entries(json)) {
    const field = fieldNamed(desc, key);
    if (field) fields.push({ field, value, path: join(at, field.name) });
    else problems.add(join(at, printable(key, 100)), () => noField(desc, key));
  }
  for (const { field, value, path } of fields) explainField(problems, registry, field, value, path);
  for (const { field, description } of collisions(fields)) problems.add(field, description);
}

const join = (at: string, name: string) => (at ? `${at}.${name}` : name);

function explainField(problems: Problems, registry: Registry, field: DescField, value: JsonValue, path: string): void {
  if (value === null || decodes(registry, field, value)) return;
  const { message } = field;
  const isObject = message !== undefined && !isTextMessage(message);
  if (field.fieldKind === 'list') {
    if (!Array.isArray(value)) problems.add(path, 'must be an array');
    else
      for (const [index, item] of value.entries()) {
        const itemPath = `${path}[${index}]`;
        if (decodes(registry, field, [item])) continue;
        if (isObject) explain(problems, registry, message, item, itemPath);
        else problems.add(itemPath, expected(field));
      }
  } else if (field.fieldKind === 'message' && isObject) explain(problems, registry, message, value, path);
  else problems.add(path, expected(field));
}

const expected = (field: DescField): string =>
  field.fieldKind === 'map' ? 'must be an object' : `must be ${expectation(field)}`;

function decodes(registry: Registry, field: DescField, value: JsonValue): boolean {
  if (hasLooseNumber(field, value)) return false;
  try {
    fromJson(field.parent as DescMessage, { [field.name]: value }, { registry });
    return true;
  } catch {
    return false;
  }
}

interface PresentField {
  readonly field: DescField;
  readonly value: JsonValue;
  readonly path: string;
}

/** Fields that are set under both of their names, and fields of which only one may be set. */
function collisions(fields: readonly PresentField[]): Violation[] {
  const present = fields.filter(({ value }) => value !== null);
  return present.flatMap(({ field, path }, index) => {
    const others = present.slice(0, index);
    if (others.some((other) => other.field === field)) return [{ field: path, description: 'must be given only once' }];
    const conflicting = others.find((other) => field.oneof && other.field.oneof === field.oneof);
    return conflicting ? [{ field: path, description: `must not be set together with ${conflicting.field.name}` }] : [];
  });
}
