/*
 * Attempts are retained in whole months of UTC: a month is removed by truncating its partition.
 */

/** The start of the oldest attempt that is accepted, and that reports can read, in ms since 1970. */
export function oldestAccepted(now: number, retentionMs: number): number {
  if (retentionMs === Number.POSITIVE_INFINITY) return 0;
  const oldest = new Date(Math.max(0, now - retentionMs));
  return Date.UTC(oldest.getUTCFullYear(), oldest.getUTCMonth(), 1);
}
