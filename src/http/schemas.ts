import { type DescEnum, type DescField, type DescMessage, type JsonObject, ScalarType } from '@bufbuild/protobuf';
import { limits } from '../limits.js';
import { maxElements } from '../max_elements.js';
import { commentOf } from './comments.js';

/** JSON Schemas of messages and enums in canonical proto3 JSON, by their full names. */
export interface Schemas {
  /** A reference to the schema of a type, which is created on first use. */
  refer(desc: DescMessage | DescEnum): JsonObject;
  /** The schema of the value of a field, without its comment. */
  value(field: DescField): JsonObject;
  readonly all: JsonObject;
}

export function createSchemas(): Schemas {
  const all: JsonObject = {};
  const refer = (desc: DescMessage | DescEnum): JsonObject => {
    const wellKnown = desc.kind === 'message' ? WELL_KNOWN[desc.typeName] : undefined;
    if (wellKnown) return wellKnown;
    if (!(desc.typeName in all)) {
      // Registered before it is filled, because messages can be recursive.
      const schema: JsonObject = {};
      all[desc.typeName] = schema;
      Object.assign(schema, desc.kind === 'enum' ? enumSchema(desc) : messageSchema(desc, value));
    }
    return { $ref: `#/components/schemas/${desc.typeName}` };
  };
  const value = (field: DescField): JsonObject => {
    if (field.fieldKind === 'map') return { type: 'object', additionalProperties: single(field, refer) };
    if (field.fieldKind !== 'list') return single(field, refer);
    const maxItems = (maxElements as Readonly<Record<string, number>>)[`${field.parent.typeName}.${field.name}`];
    return { type: 'array', items: single(field, refer), ...(maxItems !== undefined && { maxItems }) };
  };
  return { all, refer, value };
}

/** Adds a comment of the proto file to a schema. */
export const described = (schema: JsonObject, comment: string): JsonObject =>
  comment ? { ...schema, description: comment } : schema;

function enumSchema(desc: DescEnum): JsonObject {
  const values = desc.values.map((value) => `- \`${value.name}\`: ${commentOf(value)}`);
  const description = [commentOf(desc), ...values].join('\n');
  return { type: 'string', enum: desc.values.map((value) => value.name), description };
}

function messageSchema(desc: DescMessage, value: Schemas['value']): JsonObject {
  const properties = desc.fields.map((field) => [field.jsonName, property(field, value(field))]);
  return described({ type: 'object', properties: Object.fromEntries(properties) }, commentOf(desc));
}

function property(field: DescField, schema: JsonObject): JsonObject {
  const comment = commentOf(field);
  const others = field.oneof?.fields.filter((other) => other !== field).map((other) => other.jsonName) ?? [];
  const choice = others.length > 0 ? [`Not together with ${others.map((name) => `\`${name}\``).join(', ')}.`] : [];
  const described_ = described(schema, [comment, ...choice].filter(Boolean).join(' '));
  return comment.startsWith('Output only') ? { ...described_, readOnly: true } : described_;
}

function single(field: DescField, refer: Schemas['refer']): JsonObject {
  if (field.message) return refer(field.message);
  if (field.enum) return refer(field.enum);
  return SCALARS[field.scalar as ScalarType];
}

const int64 = { type: 'string', format: 'int64', pattern: '^-?[0-9]+$' };
const uint64 = { type: 'string', format: 'uint64', pattern: '^[0-9]+$' };
const int32 = { type: 'integer', format: 'int32', minimum: -limits.maxInt32 - 1, maximum: limits.maxInt32 };
const uint32 = { type: 'integer', format: 'uint32', minimum: 0, maximum: 2 ** 32 - 1 };

const SCALARS: Readonly<Record<ScalarType, JsonObject>> = {
  [ScalarType.DOUBLE]: { type: 'number', format: 'double' },
  [ScalarType.FLOAT]: { type: 'number', format: 'float' },
  [ScalarType.INT64]: int64,
  [ScalarType.SINT64]: int64,
  [ScalarType.SFIXED64]: int64,
  [ScalarType.UINT64]: uint64,
  [ScalarType.FIXED64]: uint64,
  [ScalarType.INT32]: int32,
  [ScalarType.SINT32]: int32,
  [ScalarType.SFIXED32]: int32,
  [ScalarType.UINT32]: uint32,
  [ScalarType.FIXED32]: uint32,
  [ScalarType.BOOL]: { type: 'boolean' },
  [ScalarType.STRING]: { type: 'string' },
  [ScalarType.BYTES]: { type: 'string', contentEncoding: 'base64' },
};

const anything: JsonObject = {};
const WELL_KNOWN: Readonly<Record<string, JsonObject>> = {
  'google.protobuf.Timestamp': { type: 'string', format: 'date-time' },
  'google.protobuf.Duration': { type: 'string', pattern: '^-?[0-9]+(\\.[0-9]{1,9})?s$' },
  'google.protobuf.FieldMask': { type: 'string' },
  'google.protobuf.Struct': { type: 'object', additionalProperties: true },
  'google.protobuf.Value': anything,
  'google.protobuf.ListValue': { type: 'array', items: anything },
  'google.protobuf.Any': {
    type: 'object',
    properties: { '@type': { type: 'string' } },
    required: ['@type'],
    additionalProperties: true,
  },
};
