import { limits } from '../limits.js';

/** Length as PostgreSQL's varchar counts it: code points, not UTF-16 units. */
export function codePoints(text: string): number {
  let count = text.length;
  for (let at = 1; at < text.length; at++)
    if ((text.charCodeAt(at) & 0xfc00) === 0xdc00 && (text.charCodeAt(at - 1) & 0xfc00) === 0xd800) count--;
  return count;
}

/** Why a text cannot be stored, or undefined. `varchar(n)` counts code points; NUL fits no PostgreSQL text. */
export function textProblem(text: string, max: number): string | undefined {
  if (text.includes('\0')) return 'must not contain a NUL character';
  if (!text.isWellFormed()) return 'must be valid Unicode, without lone surrogates';
  if (text.length > max) {
    const length = codePoints(text);
    if (length > max) return `must have at most ${max} characters, not ${length}`;
  }
  return undefined;
}

const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}]/u;

/** Why a text cannot be a name, or undefined. */
export function nameProblem(text: string, max: number): string | undefined {
  if (text === '') return 'must not be empty';
  const problem = textProblem(text, max);
  if (problem) return problem;
  if (CONTROL.test(text)) return 'must not contain control characters';
  if (text.trim() !== text) return 'must not begin or end with white space';
  return undefined;
}

const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g;

/**
 * Why a JSON text cannot be stored, or undefined. The scan runs over what
 * JSON.parse has accepted, so its tokens are all it has to know: it finds the
 * nesting (an engine wedges on JSON 10 000 deep), keys that stand twice (which
 * one counts depends on the reader) and characters that PostgreSQL cannot hold.
 */
export function jsonProblem(text: string, kind: 'object' | 'array'): string | undefined {
  if (text.includes('\0') || !text.isWellFormed()) return 'must be valid Unicode without NUL characters';
  const bytes = Buffer.byteLength(text);
  if (bytes > limits.jsonBytes) return `must have at most ${limits.jsonBytes} bytes, not ${bytes}`;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return `must be a JSON ${kind}`;
  }
  const isKind = kind === 'array' ? Array.isArray(value) : isPlain(value);
  return isKind ? scanJson(text) : `must be a JSON ${kind}`;
}

const isPlain = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value);

function scanJson(text: string): string | undefined {
  const keys: (Set<string> | undefined)[] = [];
  let lastString: string | undefined;
  for (const [token] of text.matchAll(TOKEN)) {
    if (token === '{' || token === '[') {
      keys.push(token === '{' ? new Set() : undefined);
      if (keys.length > limits.jsonDepth) return `must not nest deeper than ${limits.jsonDepth} levels`;
    } else if (token === '}' || token === ']') {
      keys.pop();
    } else if (token === ':') {
      const seen = keys.at(-1);
      if (seen?.has(lastString as string)) return `must not name a key twice: ${JSON.stringify(lastString)}`;
      seen?.add(lastString as string);
    } else if (token !== ',') {
      lastString = JSON.parse(token) as string;
      if (lastString.includes('\0') || !lastString.isWellFormed()) return 'must not contain \\u0000 or lone surrogates';
    }
  }
  return undefined;
}

/**
 * A text that can stand in an error message, a log line or a trailer. A lone
 * surrogate in a status' details throws inside grpc-js and ends the process,
 * and control characters break terminals.
 */
export function printable(text: string, max = 1000): string {
  // No more is looked at than can be shown: a text may have megabytes.
  const start = text.length > 4 * max ? `${text.slice(0, 4 * max)}…` : text;
  const clean = start.toWellFormed().replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ');
  if (clean.length <= max || codePoints(clean) <= max) return clean;
  const cut = [...clean].slice(0, max - 1).join('');
  return `${cut}…`;
}

/**
 * The known name that is nearest to what was written, when it is near enough to
 * be meant. Of more names than a caller should wait for none is suggested: at
 * 100 000 names the search takes 0.3 s of everybody's time.
 */
export function nearest(written: string, names: Iterable<string>): string | undefined {
  const known = [...take(names, limits.maxSuggestionNames + 1)];
  if (known.length > limits.maxSuggestionNames) return undefined;
  const lower = written.slice(0, 100).toLowerCase();
  let best: string | undefined;
  let least = Math.max(2, Math.floor(lower.length / 3)) + 1;
  for (const name of known) {
    if (Math.abs(name.length - lower.length) >= least) continue;
    const distance = editDistance(lower, name.toLowerCase(), least);
    if (distance < least) [best, least] = [name, distance];
  }
  return best;
}

function* take<T>(items: Iterable<T>, most: number): Generator<T> {
  let taken = 0;
  for (const item of items) {
    if (taken++ === most) return;
    yield item;
  }
}

/** Levenshtein's distance, row by row, given up once it reaches the limit. */
export function editDistance(a: string, b: string, limit: number): number {
  const width = b.length;
  let row = new Uint16Array(width + 1);
  let next = new Uint16Array(width + 1);
  for (let j = 0; j <= width; j++) row[j] = j;
  for (let i = 1; i <= a.length; i++) {
    const letter = a.charCodeAt(i - 1);
    let least = i;
    let left = i;
    next[0] = i;
    for (let j = 1; j <= width; j++) {
      const substitution = (row[j - 1] as number) + (letter === b.charCodeAt(j - 1) ? 0 : 1);
      left = Math.min((row[j] as number) + 1, left + 1, substitution);
      next[j] = left;
      if (left < least) least = left;
    }
    if (least >= limit) return limit;
    [row, next] = [next, row];
  }
  return row[width] as number;
}

/** The spellings of a UUID. */
export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
