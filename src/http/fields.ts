import { type DescField, type DescMessage, fromJson, type JsonValue, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { nearest, printable } from '../domain/text.js';
import { FIELD_MASK, maskOf } from './masks.js';

/** The path to a field within a message; the field is the last element. */
export interface FieldPath {
  readonly fields: readonly DescField[];
  /** The path with the names of the proto files, `agent.id`. */
  readonly text: string;
}

/** Messages that are a single value in JSON instead of an object. */
const AS_TEXT = /^google\.protobuf\.(Timestamp|Duration|FieldMask|(Double|Float|U?Int(32|64)|Bool|String|Bytes)Value)$/;
export const isTextMessage = (desc: DescMessage): boolean => AS_TEXT.test(desc.typeName);

/** Finds a field by its name in the proto file or in JSON. */
export const fieldNamed = (desc: DescMessage, name: string): DescField | undefined =>
  desc.fields.find((field) => field.name === name || field.jsonName === name);

/** The problem of an unknown field name. */
export function noField(desc: DescMessage, name: string): string {
  const names = desc.fields.map((field) => field.name);
  const suggestion = nearest(printable(name, 100), names);
  return `is not a field of ${desc.typeName}${suggestion ? `; did you mean ${suggestion}?` : ''}`;
}

/** Finds a field by names joined with dots; undefined if there is none. */
export function resolvePath(desc: DescMessage, path: string): FieldPath | undefined {
  const fields: DescField[] = [];
  let at: DescMessage | undefined = desc;
  for (const name of path.split('.')) {
    const field: DescField | undefined = at && fieldNamed(at, name);
    if (!field) return undefined;
    fields.push(field);
    at = field.fieldKind === 'message' && !isTextMessage(field.message) ? field.message : undefined;
  }
  return { fields, text: fields.map((field) => field.name).join('.') };
}

const leafOf = ({ fields }: FieldPath) => fields.at(-1) as DescField;

/** Whether a field can be written as one text, or as one text per element. */
export function isText(path: FieldPath, { lists = false } = {}): boolean {
  const field = leafOf(path);
  if (field.fieldKind === 'map' || (field.fieldKind === 'list' && !lists)) return false;
  return !field.message || isTextMessage(field.message);
}

/** Sets a field from the texts of a path or query; returns a problem, or undefined. */
export function setText(root: ReflectMessage, path: FieldPath, texts: readonly string[]): string | undefined {
  const field = leafOf(path);
  const isList = field.fieldKind === 'list';
  if (!isList && texts.length > 1) return 'must be given only once';
  const parent = path.fields.slice(0, -1).reduce(enter, root);
  const other = field.oneof && parent.oneofCase(field.oneof);
  if (other && other !== field) return `must not be set together with ${other.name}`;
  const value = readTexts(root.desc, field, texts);
  if (value === undefined) return `must be ${expectation(field)}`;
  if (!isList && parent.isSet(field) && parent.get(field) !== value) return 'differs between path and body';
  parent.set(field, value);
  return undefined;
}

function readTexts(root: DescMessage, field: DescField, texts: readonly string[]): unknown {
  if (field.message?.typeName === FIELD_MASK) return maskOf(root, field.message, texts[0] as string);
  const values = texts.map((text) => jsonOf(field, text));
  try {
    const json = { [field.name]: field.fieldKind === 'list' ? values : (values[0] as JsonValue) };
    return reflect(field.parent, fromJson(field.parent, json)).get(field);
  } catch {
    return undefined;
  }
}

function enter(message: ReflectMessage, field: DescField): ReflectMessage {
  const inner = message.get(field) as ReflectMessage;
  message.set(field, inner);
  return inner;
}

const INTEGER = /^-?(0|[1-9]\d*)$/;
/** A number in proto3 JSON, also within a string. */
export const NUMBER = /^(-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|NaN|-?Infinity)$/;

const BOOLEANS = new Map<string, boolean>([
  ['true', true],
  ['false', false],
]);

/** Converts a text to the JSON of a field; an invalid number becomes a text that the decoder rejects. */
function jsonOf(field: DescField, text: string): JsonValue {
  if (field.enum) return INTEGER.test(text) ? Number(text) : text;
  if (field.scalar === ScalarType.BOOL || field.message?.name === 'BoolValue') return BOOLEANS.get(text) ?? text;
  if (field.message) return text;
  if (field.scalar === ScalarType.STRING || field.scalar === ScalarType.BYTES) return text;
  const isFloat = field.scalar === ScalarType.DOUBLE || field.scalar === ScalarType.FLOAT;
  return (isFloat ? NUMBER : INTEGER).test(text) ? text : 'not a number';
}

/** Describes the values that a field accepts. */
export function expectation(field: DescField): string {
  if (field.enum) return `one of ${field.enum.values.map((value) => value.name).join(', ')}`;
  if (field.message) return MESSAGES[field.message.name] ?? 'an object';
  switch (field.scalar) {
    case ScalarType.BOOL:
      return 'true or false';
    case ScalarType.STRING:
      return 'a string of valid Unicode';
    case ScalarType.BYTES:
      return 'a string of base64';
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT:
      return 'a number';
    case ScalarType.INT64:
    case ScalarType.UINT64:
      return 'a whole number of 64 bits, as a string or a number';
    default:
      return 'a whole number of 32 bits';
  }
}

const MESSAGES: Readonly<Record<string, string>> = {
  Timestamp: 'a time like 2026-01-31T12:00:00Z',
  Duration: 'a duration like 1.5s',
  FieldMask: 'a string of field names separated by commas',
};
