import { z } from 'zod';
import { limits } from '../limits.js';
import { normalName } from './name_index.js';
import { jsonProblem, nameProblem, textProblem } from './text.js';

/*
 * The types of field values. Each is a zod schema whose messages describe the
 * valid values; the ranges are in limits.ts.
 */

const checked = <T extends z.ZodType>(schema: T, problem: (value: z.output<T>) => string | undefined) =>
  schema.superRefine((value, context) => {
    const message = problem(value);
    if (message) context.addIssue({ code: 'custom', message });
  });

/** Text of at most `max` code points that PostgreSQL can store. */
export const text = (max: number) => checked(z.string(), (value) => textProblem(value, max));

/** A name: text that is not empty, without control characters or white space around it. */
export const name = (max: number) => checked(z.string(), (value) => nameProblem(value, max));

/** The name of a resource that is created or renamed: stored in normalization form C. */
export const ownName = (max: number) => z.string().transform(normalName).pipe(name(max));

/** A name, or an empty text. */
export const nameOrEmpty = (max: number) =>
  checked(z.string(), (value) => (value === '' ? undefined : nameProblem(value, max)));

/** A text that holds a JSON object or list. */
export const json = (kind: 'object' | 'array') => checked(z.string(), (value) => jsonProblem(value, kind));

const inRange = (value: number, { min, max }: Range, what: string) =>
  value >= min && value <= max ? undefined : `must be ${what} between ${min} and ${max}, not ${value}`;

interface Range {
  readonly min: number;
  readonly max: number;
}

// z.number() rejects NaN and infinities with other messages; the union has one message for all values.
const anyNumber = z.union([z.number(), z.nan(), z.literal(Infinity), z.literal(-Infinity)]);

/** A finite number in a range. */
export const number = (range: Range) =>
  checked(anyNumber, (value) => inRange(value, range, 'a number')).transform((value) => (value === 0 ? 0 : value));

/** A whole number in a range. */
export const integer = (range: Range) =>
  checked(anyNumber, (value) =>
    Number.isInteger(value) ? inRange(value, range, 'a whole number') : `must be a whole number, not ${value}`,
  );

/** A 64-bit integer of the wire as a number; the range must be exact in a number. */
export const int64 = (range: Range) =>
  checked(z.bigint(), (value) =>
    value >= BigInt(range.min) && value <= BigInt(range.max)
      ? undefined
      : `must be a whole number between ${range.min} and ${range.max}, not ${value}`,
  ).transform(Number);

/** A count from 1 to the maximum of its column. */
export const count = integer({ min: 1, max: limits.maxInt32 });

export const flag = z.boolean();

const A_TIME = 'must be a time between the years 1970 and 9999';
/** ts-proto encodes fractions of seconds before 1970 as negative nanos, which other decoders reject. */
export const time = z
  .date({ error: A_TIME })
  .refine((value) => value.getTime() >= 0 && value.getUTCFullYear() <= 9999, A_TIME);

/** One of the listed words. */
export const oneOf = <const T extends readonly [string, ...string[]]>(...values: T) =>
  z.enum(values, { error: () => `must be one of ${values.join(', ')}` });

/** A list of at most `max` distinct items. */
export const list = <T extends z.ZodType>(item: T, max: number) =>
  checked(z.array(item), (values) => {
    if (values.length > max) return `must have at most ${max} entries, not ${values.length}`;
    const repeated = values.find((value, at) => values.indexOf(value) !== at);
    return repeated === undefined ? undefined : `must not have ${JSON.stringify(repeated)} twice`;
  });
