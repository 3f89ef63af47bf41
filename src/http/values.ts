import { type DescField, type DescMessage, type JsonValue, ScalarType } from '@bufbuild/protobuf';
import { maxElementsOf } from '../api/dispatch/request_shape.js';
import { Problems } from '../problems.js';
import { fieldNamed, isTextMessage, NUMBER } from './fields.js';
import { FIELD_MASK } from './masks.js';

/** The problem of a repeated field with too many elements. */
export const elementsProblem = (field: DescField): string => `must have at most ${maxElementsOf(field)} elements`;

/** Adds the repeated fields with too many elements, whose decoding would take long even if every element is invalid. */
export function checkElements(problems: Problems, desc: DescMessage, json: JsonValue, at = ''): void {
  for (const { field, value, path } of fieldsIn(desc, json, at)) {
    const isList = field.fieldKind === 'list' && Array.isArray(value);
    if (isList && value.length > maxElementsOf(field)) problems.add(path, elementsProblem(field));
    else if (field.message && !isTextMessage(field.message))
      for (const [index, item] of (isList ? value : [value]).entries())
        checkElements(problems, field.message, item, isList ? `${path}[${index}]` : path);
  }
}

/**
 * Whether a message has a text that the decoder accepts as a number and proto3 JSON does not, such as `0x10` or ` 5`.
 */
export const hasLooseNumbers = (desc: DescMessage, json: JsonValue): boolean =>
  fieldsIn(desc, json, '').some(({ field, value }) => hasLooseNumber(field, value));

export function hasLooseNumber(field: DescField, value: JsonValue): boolean {
  if (field.fieldKind === 'list' && Array.isArray(value)) return value.some((item) => isLoose(field, item));
  return isLoose(field, value);
}

function isLoose(field: DescField, value: JsonValue): boolean {
  if (field.message) return !isTextMessage(field.message) && hasLooseNumbers(field.message, value);
  return isNumeric(field) && typeof value === 'string' && !NUMBER.test(value);
}

const NOT_NUMERIC = new Set([ScalarType.BOOL, ScalarType.STRING, ScalarType.BYTES]);
const isNumeric = ({ scalar }: DescField) => scalar !== undefined && !NOT_NUMERIC.has(scalar);

/** The values of a JSON object that are fields of a message. */
function fieldsIn(desc: DescMessage, json: JsonValue, at: string) {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) return [];
  return Object.entries(json).flatMap(([key, value]) => {
    const field = fieldNamed(desc, key);
    return field ? [{ field, value, path: at ? `${at}.${field.name}` : field.name }] : [];
  });
}

/**
 * Rejects a null in the resource of an update without a mask. In proto3 JSON a null is the same as an absent field, but
 * the caller most likely wants to clear the field.
 */
export function refuseNulls(request: DescMessage, json: JsonValue): void {
  if (!request.fields.some(({ message }) => message?.typeName === FIELD_MASK)) return;
  const problems = new Problems();
  for (const { field, value, path } of fieldsIn(request, json, ''))
    if (field.fieldKind === 'message' && !isTextMessage(field.message)) addNulls(problems, field.message, value, path);
  problems.throwIfAny();
}

function addNulls(problems: Problems, desc: DescMessage, json: JsonValue, at: string): void {
  for (const { field, value, path } of fieldsIn(desc, json, at)) {
    // A null member of a oneof only means that another member is set.
    if (field.oneof) continue;
    if (value === null) problems.add(path, 'null does not clear the field; name it in updateMask and omit it');
    else if (field.fieldKind === 'message' && !isTextMessage(field.message))
      addNulls(problems, field.message, value, path);
  }
}
