import { isAscii, isUtf8 } from 'node:buffer';
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { limits } from '../../limits.js';
import { maxElements } from '../../max_elements.js';
import { invalidFields, Problems } from '../../problems.js';

/** The properties of a message type that are checked on the wire. */
interface MessageShape {
  readonly fields: ReadonlyMap<number, FieldShape>;
  /** Whether it can contain a repeated field or a time, at any depth. */
  mustBeScanned: boolean;
}

interface FieldShape {
  readonly name: string;
  /** The wire type of a single value or element. */
  readonly wireType: WireType;
  /** The maximum number of elements; undefined for a field that is not repeated. */
  readonly max: number | undefined;
  readonly isText: boolean;
  readonly isTime: boolean;
  readonly message: MessageShape | undefined;
}

/** Checks the bytes of a request before they are decoded; throws if they are invalid. */
export type RequestCheck = (bytes: Uint8Array) => void;

/** Groups that are nested deeper than this are malformed; the decoder has the same limit. */
const MAX_GROUP_DEPTH = 100;
const TIMESTAMP = 'google.protobuf.Timestamp';
/** A time that the handler checks, because an invalid attempt must not affect the other attempts of its batch. */
const CHECKED_LATER = 'agentllm.v1.Attempt.started_at';
/** The range of a Timestamp in seconds: the years 1 to 9999. Decoders turn other values into an invalid Date. */
const TIME_RANGE = { min: -62_135_596_800n, max: 253_402_300_799n };
const NANOS_PER_SECOND = 1_000_000_000;
/** A request of at most this many bytes cannot have too many fields, because each field has at least two bytes. */
const SHORT_BYTES = 2 * limits.maxRequestFields;

/**
 * Creates the check of a request type: no repeated field has more elements than its maximum, the whole request has at
 * most `limits.maxRequestFields` fields, every string is UTF-8, and every time is in the range of a Timestamp. It checks
 * the encoded bytes, because the decoding of a hostile request is expensive. Its errors name the field; the decoder would
 * silently replace invalid UTF-8 and accept times that cannot be encoded.
 */
export function requestCheckOf(desc: DescMessage): RequestCheck {
  const shape = shapeOf(desc, new Map());
  return (bytes) => {
    // Most read requests have no repeated field, no time and only ASCII text; such a request is always valid.
    const isOnlyAscii = isAscii(bytes);
    if (isOnlyAscii && !shape.mustBeScanned && bytes.length <= SHORT_BYTES) return;
    new Scan(bytes, isOnlyAscii).run(shape);
  };
}

/** The maximum number of elements of a repeated field. The service does not start if a field has no maximum. */
export function maxElementsOf(field: DescField): number {
  const name = `${field.parent.typeName}.${field.name}`;
  const max = (maxElements as Readonly<Record<string, number>>)[name];
  if (max === undefined) throw new Error(`${name} is repeated and has no maximum in src/max_elements.ts`);
  return max;
}

function shapeOf(desc: DescMessage, shapes: Map<DescMessage, MessageShape>): MessageShape {
  const cached = shapes.get(desc);
  if (cached) return cached;
  const fields = new Map<number, FieldShape>();
  const shape: MessageShape = { fields, mustBeScanned: false };
  shapes.set(desc, shape);
  for (const field of desc.fields) {
    const fieldShape = fieldShapeOf(field, shapes);
    fields.set(field.number, fieldShape);
    if (fieldShape.max !== undefined || fieldShape.isTime || fieldShape.message?.mustBeScanned)
      shape.mustBeScanned = true;
  }
  return shape;
}

function fieldShapeOf(field: DescField, shapes: Map<DescMessage, MessageShape>): FieldShape {
  // A map is a repeated message on the wire; no request has a map whose entries must be checked.
  const isRepeated = field.fieldKind === 'list' || field.fieldKind === 'map';
  return {
    name: field.name,
    wireType: field.fieldKind === 'map' ? WireType.LengthDelimited : wireTypeOf(field),
    max: isRepeated ? maxElementsOf(field) : undefined,
    isText: field.fieldKind !== 'map' && field.scalar === ScalarType.STRING,
    isTime:
      field.fieldKind !== 'map' &&
      field.message?.typeName === TIMESTAMP &&
      `${field.parent.typeName}.${field.name}` !== CHECKED_LATER,
    message: field.fieldKind !== 'map' && field.message ? shapeOf(field.message, shapes) : undefined,
  };
}

function wireTypeOf({ message, scalar }: DescField): WireType {
  if (message) return WireType.LengthDelimited;
  switch (scalar) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return WireType.LengthDelimited;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return WireType.Bit64;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return WireType.Bit32;
    default:
      return WireType.Varint;
  }
}

/** One pass over the bytes of a request. It reads the bytes in the same way as the decoder, but creates no messages. */
class Scan {
  private readonly reader: BinaryReader;
  private readonly problems = new Problems();
  private readonly path: string[] = [];
  private remainingFields: number = limits.maxRequestFields;

  constructor(
    private readonly bytes: Uint8Array,
    private readonly isOnlyAscii: boolean,
  ) {
    this.reader = new BinaryReader(bytes);
  }

  run(shape: MessageShape): void {
    this.message(shape, this.bytes.length);
    this.problems.throwIfAny();
  }

  private message(shape: MessageShape, end: number): void {
    const { reader } = this;
    // The number of elements of each repeated field of this message.
    const counts = new Map<FieldShape, number>();
    while (reader.pos < end) {
      const [number, wireType] = reader.tag();
      this.take(1);
      const field = shape.fields.get(number);
      const isPacked = field?.max !== undefined && wireType === WireType.LengthDelimited && !isDelimited(field);
      if (!field || !(isPacked || wireType === field.wireType)) this.skip(wireType, number, 0);
      else if (field.max === undefined) this.value(field, field.name);
      else this.elements(field, counts, isPacked);
    }
    // A field that ends after its message is malformed.
    if (reader.pos !== end) throw new RangeError('a field ends after its message');
  }

  private elements(field: FieldShape, counts: Map<FieldShape, number>, isPacked: boolean): void {
    const before = counts.get(field) ?? 0;
    const count = before + (isPacked ? this.packed(field) : 1);
    counts.set(field, count);
    if (count > (field.max as number)) throw this.tooMany(field);
    if (!isPacked) this.value(field, `${field.name}[${before}]`);
  }

  private value(field: FieldShape, name: string): void {
    const { reader } = this;
    if (!isDelimited(field)) {
      reader.skip(field.wireType);
      return;
    }
    const length = reader.uint32();
    const end = reader.pos + length;
    if (end > this.bytes.length) throw new RangeError('a field ends after the request');
    if (field.isTime) {
      this.time(name, end);
      return;
    }
    if (field.message) {
      this.path.push(name);
      this.message(field.message, end);
      this.path.pop();
      return;
    }
    if (field.isText && !this.isOnlyAscii && !isUtf8(this.bytes.subarray(reader.pos, end)))
      this.problems.add([...this.path, name].join('.'), 'must be valid UTF-8');
    reader.pos = end;
  }

  private time(name: string, end: number): void {
    const { reader } = this;
    let [seconds, nanos] = [0n, 0];
    while (reader.pos < end) {
      const [number, wireType] = reader.tag();
      this.take(1);
      if (number === 1 && wireType === WireType.Varint) seconds = BigInt(reader.int64());
      else if (number === 2 && wireType === WireType.Varint) nanos = reader.int32();
      else this.skip(wireType, number, 0);
    }
    if (reader.pos !== end) throw new RangeError('a field ends after its message');
    const field = [...this.path, name].join('.');
    if (seconds < TIME_RANGE.min || seconds > TIME_RANGE.max)
      this.problems.add(field, 'must be a time between the years 1 and 9999');
    else if (nanos < 0 || nanos >= NANOS_PER_SECOND)
      this.problems.add(field, `must have nanos of 0 to 999999999, not ${nanos}`);
  }

  /** Skips packed elements and returns their number. */
  private packed(field: FieldShape): number {
    const { reader, bytes } = this;
    const length = reader.uint32();
    const end = reader.pos + length;
    if (end > bytes.length) throw new RangeError('a field ends after the request');
    let count = 0;
    if (field.wireType === WireType.Varint) {
      // The last byte of a varint has no high bit.
      for (let at = reader.pos; at < end; at++) if ((bytes[at] as number) < 0x80) count++;
    } else count = Math.ceil(length / (field.wireType === WireType.Bit64 ? 8 : 4));
    reader.pos = end;
    if (count > (field.max as number)) throw this.tooMany(field);
    this.take(count);
    return count;
  }

  private skip(wireType: WireType, number: number, depth: number): void {
    const { reader } = this;
    if (wireType !== WireType.StartGroup) {
      reader.skip(wireType, number);
      return;
    }
    if (depth === MAX_GROUP_DEPTH) throw new RangeError('groups are nested too deep');
    for (;;) {
      const [inner, type] = reader.tag();
      if (type === WireType.EndGroup) {
        if (inner !== number) throw new RangeError('a group ends that has not begun');
        return;
      }
      this.take(1);
      this.skip(type, inner, depth + 1);
    }
  }

  private take(fields: number): void {
    this.remainingFields -= fields;
    if (this.remainingFields < 0)
      throw invalidFields([
        { field: 'request', description: `must have at most ${limits.maxRequestFields} fields, nested ones included` },
      ]);
  }

  private tooMany({ name, max }: FieldShape): Error {
    const field = [...this.path, name].join('.');
    return invalidFields([{ field, description: `must have at most ${max} elements` }]);
  }
}

const isDelimited = ({ wireType }: FieldShape) => wireType === WireType.LengthDelimited;
