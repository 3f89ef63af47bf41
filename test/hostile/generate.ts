import { randomBytes } from 'node:crypto';
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { methods } from '../support/access.js';

/*
 * Generates requests of any method as bytes. They are written field by field from the descriptor, so that they include
 * encodings that no library produces, and contain known values often enough to pass the first validation.
 */

const EXTREMES = [
  0n,
  1n,
  2n,
  8n,
  -1n,
  2n ** 31n - 1n,
  2n ** 31n,
  -(2n ** 31n),
  2n ** 53n,
  2n ** 63n - 1n,
  -(2n ** 63n),
];
const FLOATS = [0, -0, 0.7, 1, 1e-320, 1e308, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
const ODD_TEXTS = [
  '',
  ' ',
  '\u0000',
  '%s%n',
  "'; drop table agents; --",
  '../../../etc/passwd',
  '__proto__',
  'constructor',
  '\u202e\ufeff',
  '\r\nx: 1',
  '𝕏'.repeat(300),
  'x'.repeat(70_000),
  '9'.repeat(400),
  '*',
];
const INVALID_UTF8 = ['ff', '61fffe', 'eda080', 'c080', 'f4908080', 'e28', '80'].map((hex) => Buffer.from(hex, 'hex'));

/** Values that exist in every store, by the names of the fields that can hold them. */
const KNOWN_VALUES: Readonly<Record<string, readonly string[]>> = {
  name: ['trader', 'market_analyst', 'openai', 'gpt-4o', 'desk', 'nobody'],
  agents: ['trader', 'market_analyst'],
  provider: ['openai', 'claude', 'grok', 'mine'],
  model_name: ['gpt-4o', 'gpt-4', 'claude-3-haiku-20240307'],
  credential_name: ['desk', ''],
  agent_type: ['analyst', 'trader'],
  base_url: ['https://llm.example.com/v1', 'http://127.0.0.1:1', 'https://[::1]', 'nonsense'],
  api_key: ['sk-fuzz-0123456789', 'sk with a space'],
  metadata_json: [
    '{}',
    '{"a":[1,null]}',
    '['.repeat(40) + ']'.repeat(40),
    `${'{"a":'.repeat(9000)}1${'}'.repeat(9000)}`,
  ],
  extra_parameters_json: ['{"top_k": 5}', '{"model":"x"}', '[[[]]]', '{"a":1e999}', '{"__proto__":{"x":1}}'],
  request_id: ['3f333df6-90a4-4fda-8dd3-9485d27cee36', '', 'no-uuid'],
  client_id: ['3f333df6-90a4-4fda-8dd3-9485d27cee37', 'no-uuid'],
  paths: [...new Set(methods.flatMap(({ input }) => fieldsIn(input)))],
};

/** The names of the fields of the messages that a request contains. */
function fieldsIn({ fields }: DescMessage): string[] {
  return fields.flatMap(({ message }) => message?.fields.map(({ name }) => name) ?? []);
}

function varint(value: bigint): Buffer {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, value);
  do {
    bytes.push(Number(rest & 127n) | (rest > 127n ? 128 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(bytes);
}

const delimited = (bytes: Buffer) => Buffer.concat([varint(BigInt(bytes.length)), bytes]);
const tag = (number: number, wireType: number) => varint(BigInt(number * 8 + wireType));

function fixed(bytes: 4 | 8, write: (buffer: Buffer) => void): Buffer {
  const buffer = Buffer.alloc(bytes);
  write(buffer);
  return buffer;
}

/** How values are generated: plausible ones pass more of the validation than arbitrary ones, or succeed. */
export type ValueKind = 'plausible' | 'arbitrary';

/** The wire type and the encoded value of a field, without the tag. */
interface WireValue {
  readonly type: number;
  readonly bytes: fc.Arbitrary<Buffer>;
}

const plausibleIntegers = fc.constantFrom(0n, 1n, 2n, 5n, 8n);
const arbitraryIntegers = fc.oneof(
  { arbitrary: fc.constantFrom(...EXTREMES), weight: 3 },
  fc.bigInt({ min: -99n, max: 99n }),
);
const integerOf = (kind: ValueKind) => (kind === 'plausible' ? plausibleIntegers : arbitraryIntegers);
const floatOf = (kind: ValueKind) =>
  kind === 'plausible' ? fc.constantFrom(0, 0.5, 1) : fc.oneof(fc.constantFrom(...FLOATS), fc.double());

function textOf(name: string, kind: ValueKind): fc.Arbitrary<Buffer> {
  const known = KNOWN_VALUES[name];
  const plain = known ? fc.constantFrom(...known) : fc.stringMatching(/^[a-z]{1,12}$/);
  if (kind === 'plausible') return plain.map((text) => Buffer.from(text));
  const odd = fc.constantFrom(...ODD_TEXTS).map((text) => Buffer.from(text));
  const any = fc.string({ unit: 'binary', maxLength: 20 }).map((text) => Buffer.from(text));
  const broken = fc.constantFrom(...INVALID_UTF8);
  const usual = known ? fc.constantFrom(...known).map((text) => Buffer.from(text)) : any;
  return fc.oneof(
    { arbitrary: usual, weight: 12 },
    { arbitrary: odd, weight: 2 },
    { arbitrary: any, weight: 1 },
    { arbitrary: broken, weight: 1 },
  );
}

const publicKey = fc.constant(null).map(() => randomBytes(32));
const bytesOf = fc.oneof(
  fc.constantFrom(Buffer.alloc(32), Buffer.alloc(32, 0xff), Buffer.alloc(0), Buffer.alloc(100_000)),
  publicKey,
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
);

function scalar(type: ScalarType, name: string, kind: ValueKind): WireValue {
  const [integer, float] = [integerOf(kind), floatOf(kind)];
  switch (type) {
    case ScalarType.DOUBLE:
      return { type: 1, bytes: float.map((value) => fixed(8, (buffer) => buffer.writeDoubleLE(value))) };
    case ScalarType.FLOAT:
      return { type: 5, bytes: float.map((value) => fixed(4, (buffer) => buffer.writeFloatLE(value))) };
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return { type: 1, bytes: integer.map((value) => fixed(8, (b) => b.writeBigUInt64LE(BigInt.asUintN(64, value)))) };
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return {
        type: 5,
        bytes: integer.map((value) => fixed(4, (b) => b.writeUInt32LE(Number(BigInt.asUintN(32, value))))),
      };
    case ScalarType.STRING:
      return { type: 2, bytes: textOf(name, kind).map(delimited) };
    case ScalarType.BYTES:
      return { type: 2, bytes: (kind === 'plausible' ? publicKey : bytesOf).map(delimited) };
    case ScalarType.BOOL:
      return { type: 0, bytes: fc.constantFrom(0n, 1n, 2n).map(varint) };
    default:
      // An unreached min_revision blocks until the deadline; test/api/handlers/check_deadlines.test.ts tests it.
      return { type: 0, bytes: (name === 'min_revision' ? fc.constantFrom(0n, 1n, -1n) : integer).map(varint) };
  }
}

const MAX_DEPTH = 4;

function wireOf(field: DescField, depth: number, kind: ValueKind): WireValue | undefined {
  const type = field.fieldKind === 'list' ? field.listKind : field.fieldKind;
  if (type === 'message' && field.message)
    return depth >= MAX_DEPTH
      ? undefined
      : { type: 2, bytes: messageOf(field.message, kind, depth + 1).map(delimited) };
  if (type === 'enum' && field.enum) {
    const known = field.enum.values.map(({ number }) => number);
    const numbers = kind === 'plausible' ? known.slice(1) : [...known, -1, 99, 2 ** 31 - 1];
    return { type: 0, bytes: fc.constantFrom(...numbers).map((number) => varint(BigInt(number))) };
  }
  if (type === 'scalar' && field.scalar) return scalar(field.scalar, field.name, kind);
  throw new Error(`${field} is of a kind that nothing is generated for`);
}

const joined = (parts: readonly Buffer[]) => Buffer.concat(parts);

/** Fields that most requests must have. */
const USUALLY_REQUIRED = new Set([
  'name',
  'id',
  'provider',
  'model_name',
  'agent_type',
  'dialect',
  'base_url',
  'api_key',
  'role',
]);
/** Fields that the service sets: in a request they are rejected or ignored. */
const isOutputOnly = ({ name, message }: DescField) =>
  message?.typeName === 'google.protobuf.Timestamp' ||
  ['etag', 'revision', 'page_token', 'resume_token'].includes(name);

/** A field with its tag: absent, once or several times. */
function entryOf(field: DescField, depth: number, kind: ValueKind): fc.Arbitrary<Buffer> {
  const wire = wireOf(field, depth, kind);
  if (!wire) return fc.constant(Buffer.alloc(0));
  const one = wire.bytes.map((bytes) => joined([tag(field.number, wire.type), bytes]));
  const none = fc.constant(Buffer.alloc(0));
  if (kind === 'plausible') {
    // Other fields without presence are options of the call and are mostly left unset.
    const weight = USUALLY_REQUIRED.has(field.name) || field.message ? 12 : 1;
    return fc.oneof({ arbitrary: none, weight: 3 }, { arbitrary: one, weight });
  }
  const several = fc.array(one, { maxLength: 3 }).map(joined);
  // A long list repeats one element, which is cheap to generate.
  const many = fc.tuple(one, fc.constantFrom(150, 2_000)).map(([bytes, count]) => joined(Array(count).fill(bytes)));
  const isList = field.fieldKind === 'list';
  return fc.oneof(
    { arbitrary: none, weight: depth === 0 ? 4 : 6 },
    { arbitrary: one, weight: 8 },
    { arbitrary: several, weight: isList ? 6 : 1 },
    ...(isList && depth < 2 ? [{ arbitrary: many.filter(({ length }) => length < 500_000), weight: 1 }] : []),
  );
}

/** Unknown fields of every wire type, groups included. */
const unknown = fc.oneof(
  { arbitrary: fc.constant(Buffer.alloc(0)), weight: 12 },
  fc.constantFrom(
    joined([tag(2047, 0), varint(7n)]),
    joined([tag(2047, 2), delimited(Buffer.from('who knows'))]),
    joined([tag(2047, 1), Buffer.alloc(8)]),
    joined([tag(2047, 5), Buffer.alloc(4)]),
    joined([tag(2047, 3), tag(1, 0), varint(1n), tag(2047, 4)]),
    joined([tag(2 ** 29 - 1, 0), varint(1n)]),
    Buffer.alloc(20_000, tag(1000, 3)),
  ),
);

/** A message of a type: known fields with valid and invalid values, in any order, and sometimes an unknown field. */
export function messageOf(desc: DescMessage, kind: ValueKind, depth = 0): fc.Arbitrary<Buffer> {
  const plausible = kind === 'plausible';
  const fields = fc.tuple(
    ...desc.fields.filter((field) => !plausible || !isOutputOnly(field)).map((field) => entryOf(field, depth, kind)),
  );
  if (plausible) return fields.map(joined);
  return fc
    .tuple(fields, unknown, fc.constantFrom(false, false, true))
    .map(([parts, unknownFields, reversed]) => joined([...(reversed ? parts.toReversed() : parts), unknownFields]));
}

/** One field at any depth of a message type, with any value, to be appended to a valid request. */
export function fieldOf(desc: DescMessage, depth = 0): fc.Arbitrary<Buffer> {
  const fields = desc.fields.flatMap((field) => {
    const wire = wireOf(field, depth, 'arbitrary');
    const complete = wire ? [wire.bytes.map((bytes) => joined([tag(field.number, wire.type), bytes]))] : [];
    const within =
      field.message && depth < 3 && field.message.fields.length > 0 ? fieldOf(field.message, depth + 1) : undefined;
    if (!within) return complete;
    // Mostly a part of the inner message, seldom all of it.
    const inside = within.map((bytes) => joined([tag(field.number, 2), delimited(bytes)]));
    return [...complete, ...Array<typeof inside>(field.message?.fields.length ?? 0).fill(inside)];
  });
  return fields.length > 0 ? fc.oneof(...fields) : fc.constant(Buffer.alloc(0));
}

/** Corrupted bytes: flipped bits, truncation, duplication, inserted and removed bytes. */
export const mutated = (bytes: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> => {
  const position = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const step = fc.tuple(fc.constantFrom('flip', 'cut', 'double', 'insert', 'drop'), position, fc.nat({ max: 255 }));
  return fc.tuple(bytes, fc.array(step, { minLength: 1, maxLength: 4 })).map(([start, steps]) =>
    steps.reduce((current, [operation, where, byte]) => {
      const index = Math.floor(where * current.length);
      const [before, after] = [current.subarray(0, index), current.subarray(index)];
      if (operation === 'cut') return before;
      if (operation === 'double') return joined([current, after]);
      if (operation === 'insert') return joined([before, Buffer.from([byte]), after]);
      if (operation === 'drop') return joined([before, after.subarray(1 + (byte % 4))]);
      const flipped = Buffer.from(current);
      if (flipped.length > 0) flipped.writeUInt8((flipped[index] ?? 0) ^ (1 << (byte % 8)), index);
      return flipped;
    }, start),
  );
};

/** Text that is not a valid request: JSON of a wrong shape, or not JSON. */
export const invalidJson: fc.Arbitrary<string> = fc.oneof(
  fc.json(),
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.constantFrom(
    '',
    'null',
    '[]',
    '{"agent":null}',
    '{"agent":{"name":"trader"},"agent":{}}',
    '{"__proto__":{"name":"trader"}}',
    '{"config":{"temperature":"NaN"}}',
    '{"config":{"temperature":1e999}}',
    '{"agent":{"id":1.5}}',
    '{"agent":{"id":"9999999999999999999999"}}',
    '{"updateMask":"*,a.b.c,,"}',
    '{"lifetime":"1e9s"}',
    '{"agent":{"name":"\\ud800"}}',
    '['.repeat(100_000),
    `${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}`,
  ),
);
