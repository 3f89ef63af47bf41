import { type DescField, type DescMethod, type JsonValue, ScalarType } from '@bufbuild/protobuf';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { contract } from '../support/access.js';

/** A repeated field of a request, with the fields that lead to it; the last one is the field. */
export interface RepeatedField {
  readonly method: DescMethod;
  readonly fields: readonly DescField[];
  /** The path in errors, with index 0 for repeated messages that lead to the field. */
  readonly path: string;
}

const last = <T>(items: readonly T[]): T => items.at(-1) as T;

/** Every repeated field of every request of every method, nested ones included. */
export function repeatedFields(): RepeatedField[] {
  const services = [...contract.registry].flatMap((type) =>
    type.kind === 'service' && type.typeName.startsWith('agentllm.') ? [type] : [],
  );
  return services.flatMap(({ methods }) =>
    methods.flatMap((method) => repeatedFieldsBelow(method, method.input.fields, [])),
  );
}

function repeatedFieldsBelow(
  method: DescMethod,
  fields: readonly DescField[],
  parents: readonly DescField[],
): RepeatedField[] {
  return fields.flatMap((field) => {
    const path = [...parents, field];
    const names = path.map(
      ({ name, fieldKind }, at) => name + (fieldKind === 'list' && at < path.length - 1 ? '[0]' : ''),
    );
    const own = field.fieldKind === 'list' ? [{ method, fields: path, path: names.join('.') }] : [];
    return [
      ...own,
      ...(field.message && !parents.includes(field) ? repeatedFieldsBelow(method, field.message.fields, path) : []),
    ];
  });
}

const isNumeric = ({ message, scalar }: DescField) =>
  !message && scalar !== ScalarType.STRING && scalar !== ScalarType.BYTES;

/** The encoding of a request that has only `count` elements in a repeated field. */
export function wireRequest({ fields }: RepeatedField, count: number, { packed = false } = {}): Buffer {
  const field = last(fields);
  const numeric = isNumeric(field);
  const tag = (type: WireType) => Buffer.from(new BinaryWriter().tag(field.number, type).finish());
  let bytes: Buffer;
  if (packed && numeric) bytes = delimited(field.number, Buffer.alloc(count, 1));
  else {
    const value = numeric ? Buffer.from([1]) : field.message ? Buffer.from([0]) : Buffer.from([1, 0x78]);
    const element = Buffer.concat([tag(numeric ? WireType.Varint : WireType.LengthDelimited), value]);
    bytes = Buffer.alloc(count * element.length, element);
  }
  for (const outer of fields.slice(0, -1).reverse()) bytes = delimited(outer.number, bytes);
  return bytes;
}

export const delimited = (number: number, bytes: Uint8Array): Buffer =>
  Buffer.concat([new BinaryWriter().tag(number, WireType.LengthDelimited).uint32(bytes.length).finish(), bytes]);

/** The number of elements that fit into a request of `bytes` bytes. */
export function countFor(field: RepeatedField, bytes: number, options: { packed?: boolean } = {}): number {
  const [one, two] = [wireRequest(field, 1, options), wireRequest(field, 2, options)];
  return Math.floor((bytes - 64) / (two.length - one.length));
}

/** The same request as a JSON body; with `wrong`, the elements have another type than the field. */
export function jsonRequest({ fields }: RepeatedField, count: number, { wrong = false } = {}): string {
  const field = last(fields);
  const isMask = fields.at(-2)?.message?.typeName === 'google.protobuf.FieldMask';
  const element: JsonValue = isNumeric(field) !== wrong ? 1 : field.message && !wrong ? {} : 'x';
  const list = `[${`${JSON.stringify(element)},`.repeat(count - 1)}${JSON.stringify(element)}]`;
  let text = isMask ? JSON.stringify(new Array(count).fill('x').join(',')) : list;
  for (const outer of fields.slice(0, isMask ? -1 : undefined).reverse())
    text = `{"${outer.jsonName}":${outer.fieldKind === 'list' && outer !== field ? `[${text}]` : text}}`;
  return text;
}
