const MAX_INT64 = 2n ** 63n - 1n;

/** Converts an amount for a message: a sum beyond the range of int64 becomes the nearest number of this range. */
export const int64Amount = (amount: bigint): bigint => {
  if (amount > MAX_INT64) return MAX_INT64;
  return amount < -MAX_INT64 ? -MAX_INT64 : amount;
};
