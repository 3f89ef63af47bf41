const MAX_INT64 = 2n ** 63n - 1n;

/** An amount as a message contains it: a sum beyond the range of int64 is reported as the nearest number of the range. */
export const int64Amount = (amount: bigint): bigint => {
  if (amount > MAX_INT64) return MAX_INT64;
  return amount < -MAX_INT64 ? -MAX_INT64 : amount;
};
