import { randomBytes } from 'node:crypto';
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import fc from 'fast-check';
import { methods } from '../support/access.js';

/*
 * Requests of any method, as bytes: written field by field from the descriptor, so that what no library would send can be
 * among them, and with values that mean something often enough to come past the first check.
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
const NO_UTF8 = ['ff', '61fffe', 'eda080', 'c080', 'f4908080', 'e28', '80'].map((hex) => Buffer.from(hex, 'hex'));

/** What is known in every store, by the names of the fields that it could stand in. */
const KNOWN: Readonly<Record<string, readonly string[]>> = {
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

/** The names of the fields of the messages in a request. */
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

/** How far a request keeps to what the service expects: a tame one comes further before it is refused, or is done. */
export type Manner = 'tame' | 'wild';

/** A value as it stands behind its tag. */
interface Wire {
  readonly type: number;
  readonly bytes: fc.Arbitrary<Buffer>;
}

const few = fc.constantFrom(0n, 1n, 2n, 5n, 8n);
const wild = fc.oneof({ arbitrary: fc.constantFrom(...EXTREMES), weight: 3 }, fc.bigInt({ min: -99n, max: 99n }));
const wholeOf = (manner: Manner) => (manner === 'tame' ? few : wild);
const realOf = (manner: Manner) =>
  manner === 'tame' ? fc.constantFrom(0, 0.5, 1) : fc.oneof(fc.constantFrom(...FLOATS), fc.double());

function textOf(name: string, manner: Manner): fc.Arbitrary<Buffer> {
  const known = KNOWN[name];
  const plain = known ? fc.constantFrom(...known) : fc.stringMatching(/^[a-z]{1,12}$/);
  if (manner === 'tame') return plain.map((text) => Buffer.from(text));
  const odd = fc.constantFrom(...ODD_TEXTS).map((text) => Buffer.from(text));
  const any = fc.string({ unit: 'binary', maxLength: 20 }).map((text) => Buffer.from(text));
  const broken = fc.constantFrom(...NO_UTF8);
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

function scalar(type: ScalarType, name: string, manner: Manner): Wire {
  const [whole, real] = [wholeOf(manner), realOf(manner)];
  switch (type) {
    case ScalarType.DOUBLE:
      return { type: 1, bytes: real.map((value) => fixed(8, (buffer) => buffer.writeDoubleLE(value))) };
    case ScalarType.FLOAT:
      return { type: 5, bytes: real.map((value) => fixed(4, (buffer) => buffer.writeFloatLE(value))) };
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return { type: 1, bytes: whole.map((value) => fixed(8, (b) => b.writeBigUInt64LE(BigInt.asUintN(64, value)))) };
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return {
        type: 5,
        bytes: whole.map((value) => fixed(4, (b) => b.writeUInt32LE(Number(BigInt.asUintN(32, value))))),
      };
    case ScalarType.STRING:
      return { type: 2, bytes: textOf(name, manner).map(delimited) };
    case ScalarType.BYTES:
      return { type: 2, bytes: (manner === 'tame' ? publicKey : bytesOf).map(delimited) };
    case ScalarType.BOOL:
      return { type: 0, bytes: fc.constantFrom(0n, 1n, 2n).map(varint) };
    default:
      // A wait for a revision that never comes is as long as the deadline; test/api/handlers/check_deadlines.test.ts waits.
      return { type: 0, bytes: (name === 'min_revision' ? fc.constantFrom(0n, 1n, -1n) : whole).map(varint) };
  }
}

const DEEPEST = 4;

function wireOf(field: DescField, depth: number, manner: Manner): Wire | undefined {
  const kind = field.fieldKind === 'list' ? field.listKind : field.fieldKind;
  if (kind === 'message' && field.message)
    return depth >= DEEPEST
      ? undefined
      : { type: 2, bytes: messageOf(field.message, manner, depth + 1).map(delimited) };
  if (kind === 'enum' && field.enum) {
    const known = field.enum.values.map(({ number }) => number);
    const numbers = manner === 'tame' ? known.slice(1) : [...known, -1, 99, 2 ** 31 - 1];
    return { type: 0, bytes: fc.constantFrom(...numbers).map((number) => varint(BigInt(number))) };
  }
  if (kind === 'scalar' && field.scalar) return scalar(field.scalar, field.name, manner);
  throw new Error(`${field} is of a kind that nothing is generated for`);
}

const joined = (parts: readonly Buffer[]) => Buffer.concat(parts);

/** What most requests must have. */
const WANTED = new Set([
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
/** What the service says and nobody tells it: only refused, or not looked at, in a request. */
const isOut = ({ name, message }: DescField) =>
  message?.typeName === 'google.protobuf.Timestamp' ||
  ['etag', 'revision', 'page_token', 'resume_token'].includes(name);

/** A field with its tag, none, once or several times. */
function entryOf(field: DescField, depth: number, manner: Manner): fc.Arbitrary<Buffer> {
  const wire = wireOf(field, depth, manner);
  if (!wire) return fc.constant(Buffer.alloc(0));
  const one = wire.bytes.map((bytes) => joined([tag(field.number, wire.type), bytes]));
  const none = fc.constant(Buffer.alloc(0));
  if (manner === 'tame') {
    // What has no presence of its own is about the call, and mostly left as it is.
    const weight = WANTED.has(field.name) || field.message ? 12 : 1;
    return fc.oneof({ arbitrary: none, weight: 3 }, { arbitrary: one, weight });
  }
  const several = fc.array(one, { maxLength: 3 }).map(joined);
  // As a list of many is: the same element, so that it costs no time to make.
  const many = fc.tuple(one, fc.constantFrom(150, 2_000)).map(([bytes, count]) => joined(Array(count).fill(bytes)));
  const isList = field.fieldKind === 'list';
  return fc.oneof(
    { arbitrary: none, weight: depth === 0 ? 4 : 6 },
    { arbitrary: one, weight: 8 },
    { arbitrary: several, weight: isList ? 6 : 1 },
    ...(isList && depth < 2 ? [{ arbitrary: many.filter(({ length }) => length < 500_000), weight: 1 }] : []),
  );
}

/** Fields that nobody knows: of every wire type, groups among them. */
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

/** A message of a type: known fields with right and wrong values, in order or not, and now and then an unknown one. */
export function messageOf(desc: DescMessage, manner: Manner, depth = 0): fc.Arbitrary<Buffer> {
  const tame = manner === 'tame';
  const fields = fc.tuple(
    ...desc.fields.filter((field) => !tame || !isOut(field)).map((field) => entryOf(field, depth, manner)),
  );
  if (tame) return fields.map(joined);
  return fc
    .tuple(fields, unknown, fc.constantFrom(false, false, true))
    .map(([parts, more, backwards]) => joined([...(backwards ? parts.toReversed() : parts), more]));
}

/** One field, somewhere in a message of a type, with any value: to be added to a request that is sound without it. */
export function touchOf(desc: DescMessage, depth = 0): fc.Arbitrary<Buffer> {
  const touches = desc.fields.flatMap((field) => {
    const wire = wireOf(field, depth, 'wild');
    const whole = wire ? [wire.bytes.map((bytes) => joined([tag(field.number, wire.type), bytes]))] : [];
    const within =
      field.message && depth < 3 && field.message.fields.length > 0 ? touchOf(field.message, depth + 1) : undefined;
    if (!within) return whole;
    // Mostly not all of the inner message, but a part of it.
    const inside = within.map((bytes) => joined([tag(field.number, 2), delimited(bytes)]));
    return [...whole, ...Array<typeof inside>(field.message?.fields.length ?? 0).fill(inside)];
  });
  return touches.length > 0 ? fc.oneof(...touches) : fc.constant(Buffer.alloc(0));
}

/** What becomes of bytes on a bad day: bits flip, ends are lost, pieces come twice. */
export const mutated = (bytes: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> => {
  const at = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const step = fc.tuple(fc.constantFrom('flip', 'cut', 'double', 'insert', 'drop'), at, fc.nat({ max: 255 }));
  return fc.tuple(bytes, fc.array(step, { minLength: 1, maxLength: 4 })).map(([start, steps]) =>
    steps.reduce((now, [what, where, byte]) => {
      const index = Math.floor(where * now.length);
      const [before, after] = [now.subarray(0, index), now.subarray(index)];
      if (what === 'cut') return before;
      if (what === 'double') return joined([now, after]);
      if (what === 'insert') return joined([before, Buffer.from([byte]), after]);
      if (what === 'drop') return joined([before, after.subarray(1 + (byte % 4))]);
      const flipped = Buffer.from(now);
      if (flipped.length > 0) flipped.writeUInt8((flipped[index] ?? 0) ^ (1 << (byte % 8)), index);
      return flipped;
    }, start),
  );
};

/** JSON that is no request: of a wrong shape, or no JSON at all. */
export const strangeJson: fc.Arbitrary<string> = fc.oneof(
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
