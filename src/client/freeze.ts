/** An object that nobody can change, down to its leaves. */
export type Frozen<T> = T extends Date | string | number | bigint | boolean | undefined | null
  ? T
  : T extends readonly (infer E)[]
    ? readonly Frozen<E>[]
    : { readonly [K in keyof T]: Frozen<T[K]> };

/** Freezes an object and all that is in it, where it stands; dates and bytes have no fields to freeze. */
export function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  if (value instanceof Date || ArrayBuffer.isView(value)) return value;
  for (const inner of Object.values(value)) freeze(inner);
  return Object.freeze(value);
}
