import { limits } from '../limits.js';

/** Length as PostgreSQL's varchar counts it: code points, not UTF-16 units. */
export function codePoints(text: string): number {
  let count = text.length;
  for (let at = 1; at < text.length; at++)
    if ((text.charCodeAt(at) & 0xfc00) === 0xdc00 && (text.charCodeAt(at - 1) & 0xfc00) === 0xd800) count--;
  return count;
}

/** Why a text cannot be stored, or undefined. `varchar(n)` counts code points; PostgreSQL text cannot contain NUL. */
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

const JSON_TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\],:]/g;

/**
 * Why a JSON text cannot be stored, or undefined. After JSON.parse has accepted
 * the text, a scan of its tokens checks the nesting depth (a database engine hangs
 * on JSON that is 10 000 levels deep), duplicate keys (parsers differ in which one
 * they use) and characters that PostgreSQL cannot store.
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
  for (const [token] of text.matchAll(JSON_TOKEN)) {
    if (token === '{' || token === '[') {
      keys.push(token === '{' ? new Set() : undefined);
      if (keys.length > limits.jsonDepth) return `must not nest deeper than ${limits.jsonDepth} levels`;
    } else if (token === '}' || token === ']') {
      keys.pop();
    } else if (token === ':') {
      const seen = keys.at(-1);
      if (seen?.has(lastString as string)) return `must not contain a key twice: ${JSON.stringify(lastString)}`;
      seen?.add(lastString as string);
    } else if (token !== ',') {
      lastString = JSON.parse(token) as string;
      if (lastString.includes('\0') || !lastString.isWellFormed()) return 'must not contain \\u0000 or lone surrogates';
    }
  }
  return undefined;
}

/**
 * Makes a text safe for an error message, a log line or a trailer. A lone
 * surrogate in the details of a status makes grpc-js throw, which ends the process,
 * and control characters can change the state of a terminal.
 */
export function printable(text: string, max = 1000): string {
  // Only the part that can be shown is processed: a text may have megabytes.
  const start = text.length > 4 * max ? `${text.slice(0, 4 * max)}…` : text;
  const clean = start.toWellFormed().replace(/[\p{Cc}\p{Zl}\p{Zp}]+/gu, ' ');
  if (clean.length <= max || codePoints(clean) <= max) return clean;
  const cut = [...clean].slice(0, max - 1).join('');
  return `${cut}…`;
}

/**
 * The name that is nearest to the input, if it is near enough to be a typing
 * error. With too many names there is no suggestion: a search in 100 000 names
 * blocks the process for 0.3 s.
 */
export function nearest(input: string, names: Iterable<string>): string | undefined {
  const candidates = [...take(names, limits.maxSuggestionNames + 1)];
  if (candidates.length > limits.maxSuggestionNames) return undefined;
  const lower = input.slice(0, 100).toLowerCase();
  let best: string | undefined;
  let least = Math.max(2, Math.floor(lower.length / 3)) + 1;
  for (const name of candidates) {
    if (Math.abs(name.length - lower.length) >= least) continue;
    const distance = editDistance(lower, name.toLowerCase(), least);
    if (distance < least) [best, least] = [name, distance];
  }
  return best;
}

function* take<T>(items: Iterable<T>, max: number): Generator<T> {
  let count = 0;
  for (const item of items) {
    if (count++ === max) return;
    yield item;
  }
}

/** The Levenshtein distance, computed row by row; stops when it reaches the limit. */
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

/** A UUID, in upper or lower case. */
export const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
