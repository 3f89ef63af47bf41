/** The bound of the first wait, and of all waits, without Retry-After, in ms. */
const BASE_MS = 500;
const MAX_MS = 8_000;
/** The largest part that is added to a Retry-After, so that many callers do not return at the same instant. */
const SPREAD_MS = 250;
const SPREAD = 0.1;

/** The wait before a retry in ms: a random part of a bound that doubles with every retry ("full jitter"). */
export function retryDelay(retries: number, retryAfterMs: number | undefined, random: () => number): number {
  if (retryAfterMs !== undefined) return retryAfterMs + random() * Math.min(SPREAD_MS, retryAfterMs * SPREAD);
  return random() * Math.min(MAX_MS, BASE_MS * 2 ** retries);
}

/**
 * The wait that a provider asks for, in ms: `retry-after-ms`, or `retry-after` in seconds or as an HTTP date. Returns
 * undefined if the headers have none, or none that can be read.
 */
export function retryAfter(headers: Headers, now: Date): number | undefined {
  const exact = milliseconds(headers.get('retry-after-ms'), 1);
  if (exact !== undefined) return exact;
  const value = headers.get('retry-after');
  const seconds = milliseconds(value, 1000);
  if (seconds !== undefined || value === null) return seconds;
  const date = /^[A-Za-z]{3,9}, /.test(value) ? Date.parse(value) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now.getTime());
}

function milliseconds(value: string | null, unit: number): number | undefined {
  return value !== null && /^\d{1,12}(\.\d{1,6})?$/.test(value.trim()) ? Math.ceil(Number(value) * unit) : undefined;
}
