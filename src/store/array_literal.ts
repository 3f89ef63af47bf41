/*
 * Arrays as literals of PostgreSQL. `pg` would convert each element of an array with a chain of checks, which takes longer
 * than the rest of an insert.
 */

export const numberArray = (values: readonly (number | bigint | null)[]): string =>
  `{${values.map((value) => value ?? 'NULL').join(',')}}`;

export const booleanArray = (values: readonly boolean[]): string => `{${values.join(',')}}`;

export const timeArray = (values: readonly Date[]): string =>
  `{${values.map((value) => `"${value.toISOString()}"`).join(',')}}`;

export const bytesArray = (values: readonly Buffer[]): string =>
  `{${values.map((value) => `"\\\\x${value.toString('hex')}"`).join(',')}}`;

export const textArray = (values: readonly (string | null)[]): string => `{${values.map(quoted).join(',')}}`;

const quoted = (value: string | null): string => (value === null ? 'NULL' : `"${value.replace(/["\\]/g, '\\$&')}"`);
