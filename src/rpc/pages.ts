import { createHash } from 'node:crypto';
import type { Ordered } from '../domain/ordered.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { Problems } from '../problems.js';

export interface PageRequest {
  readonly page_size: number;
  readonly page_token: string;
}

type Key = string | number;

/** A list that is paged by keys: where a page goes on is a place in the order, not a count of rows. */
export interface Paging<V> {
  readonly values: Ordered<V>;
  /** The key of a value, in the order of the list. */
  readonly keyOf: (value: V) => readonly Key[];
  readonly keep: (value: V) => boolean;
  /** What the token is bound to: the method and its filter. */
  readonly filter: readonly unknown[];
}

export interface Page<V> {
  readonly values: readonly V[];
  readonly nextPageToken: string;
}

export function checkPage(problems: Problems, request: PageRequest): void {
  if (request.page_size < 0) problems.add('page_size', `must be 0 to ${limits.maxPageSize}, not ${request.page_size}`);
}

/** Where a page begins, and how long it is. */
export interface PageStart {
  readonly size: number;
  /** The key of the last value of the page before. */
  readonly last: readonly Key[] | undefined;
  readonly mark: string;
}

/** Reads where a page begins; `filter` is what its token is bound to. */
export function pageFrom(request: PageRequest, filter: readonly unknown[]): PageStart {
  const mark = markOf(filter);
  return {
    size: Math.min(request.page_size || limits.defaultPageSize, limits.maxPageSize),
    last: request.page_token === '' ? undefined : readToken(request.page_token, mark),
    mark,
  };
}

/** Makes a page of what was found from its start on: as many values as it has, and one more when there are more. */
export function nextPage<V>(
  { size, mark }: PageStart,
  found: readonly V[],
  keyOf: (value: V) => readonly Key[],
): Page<V> {
  if (found.length <= size) return { values: found, nextPageToken: '' };
  const values = found.slice(0, size);
  return { values, nextPageToken: writeToken(mark, keyOf(values.at(-1) as V)) };
}

/** One page of a list from memory. */
export function pageOf<V>(request: PageRequest, { values, keyOf, keep, filter }: Paging<V>): Page<V> {
  const page = pageFrom(request, filter);
  const { last } = page;
  const found: V[] = [];
  for (const value of values.after(last && ((v) => (compareKeys(keyOf(v), last) <= 0 ? -1 : 1)))) {
    if (!keep(value)) continue;
    found.push(value);
    if (found.length > page.size) break;
  }
  return nextPage(page, found, keyOf);
}

export function compareKeys(a: readonly Key[], b: readonly Key[]): number {
  for (const [at, key] of a.entries()) {
    const other = b[at] as Key;
    if (key !== other) return key < other ? -1 : 1;
  }
  return 0;
}

const markOf = (filter: readonly unknown[]) =>
  createHash('sha256').update(JSON.stringify(filter)).digest('base64url').slice(0, 12);

const writeToken = (mark: string, key: readonly Key[]) =>
  Buffer.from(JSON.stringify([mark, ...key])).toString('base64url');

function readToken(token: string, mark: string): readonly Key[] {
  try {
    if (token.length > limits.pageToken) throw new RangeError();
    const [found, ...key] = JSON.parse(Buffer.from(token, 'base64url').toString());
    const types = mark === found && key.every((k: unknown) => typeof k === 'string' || typeof k === 'number');
    if (types && key.length > 0) return key;
  } catch {
    // Fall through: whatever is wrong with a token, the caller can only start again.
  }
  throw ServiceError.of('INVALID_PAGE_TOKEN', {});
}
