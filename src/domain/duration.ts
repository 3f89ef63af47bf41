/** Why the nanoseconds of a Duration are not valid, or undefined. Negative durations are never valid. */
export const nanosProblem = ({ nanos }: { readonly nanos: number }): string | undefined =>
  nanos >= 0 && nanos < 1e9 ? undefined : `must have nanos of 0 to 999999999, not ${nanos}`;
