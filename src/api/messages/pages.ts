import { createHash } from 'node:crypto';
import type { Ordered } from '../../domain/ordered.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import type { Problems } from '../../problems.js';

export interface PageRequest {
  readonly page_size: number;
  readonly page_token: string;
}

type Key = string | number;

/** The fields that the response of every list has in addition to its rows. */
export interface ListResponse {
  revision: bigint;
  next_page_token: string;
}

/** The response message of a list, as ts-proto generates it. */
interface ListType<Response> {
  encode(message: Response): { finish(): Uint8Array };
  fromPartial(object: object): Response;
}

/** Converts the values of a list to the rows of its response. */
export interface Rows<V, Response extends ListResponse> {
  readonly type: ListType<Response>;
  readonly revision: number;
  /** The key of a value, in the order of the list. */
  readonly keyOf: (value: V) => readonly Key[];
  /** A response that has only the row of one value, as a message or encoded; undefined if the value has no row. */
  readonly rowOf: (value: V) => Omit<Response, keyof ListResponse> | Uint8Array | undefined;
}

/** Values in memory that are paged by keys: a page continues after a key, not after a number of rows. */
export interface Listed<V> {
  readonly values: Ordered<V>;
  readonly keyOf: (value: V) => readonly Key[];
  readonly keep: (value: V) => boolean;
}

/** A list in memory. */
export type Paging<V, Response extends ListResponse> = Rows<V, Response> &
  Listed<V> & {
    /** The method and its filter; the page token is bound to them. */
    readonly filter: readonly unknown[];
  };

export function checkPage(problems: Problems, request: PageRequest): void {
  if (request.page_size < 0) problems.add('page_size', `must be 0 to ${limits.maxPageSize}, not ${request.page_size}`);
}

/** The start and the size of a page. */
export interface PageStart {
  readonly size: number;
  /** The key of the last value of the previous page. */
  readonly last: readonly Key[] | undefined;
  /** The hash of the filter. */
  readonly filterHash: string;
}

/** Reads the page token of a request; throws if the token belongs to another `filter`. */
export function pageFrom(request: PageRequest, filter: readonly unknown[]): PageStart {
  const filterHash = hashOf(filter);
  return {
    size: Math.min(request.page_size || limits.defaultPageSize, limits.maxPageSize),
    last: request.page_token === '' ? undefined : readToken(request.page_token, filterHash),
    filterHash,
  };
}

/**
 * Encodes the response of a list with one page of values, bounded by rows and by bytes.
 * @param found the values from the start of the page, and one more if there are more.
 * @param complete false if `found` has fewer values than that, because the values are large.
 */
export function pageResponse<V, Response extends ListResponse>(
  { size, filterHash }: PageStart,
  found: readonly V[],
  { type, revision, keyOf, rowOf }: Rows<V, Response>,
  complete = true,
): Buffer {
  const empty = type.fromPartial({});
  const encode = (part: object): Uint8Array => type.encode({ ...empty, ...part }).finish();
  const rows: Uint8Array[] = [];
  let [taken, bytes] = [0, 0];
  for (const value of found) {
    if (taken === size) break;
    const row = rowOf(value);
    const encoded = row instanceof Uint8Array ? row : row && encode(row);
    if (bytes > 0 && bytes + (encoded?.length ?? 0) > limits.pageBytes) break;
    taken++;
    if (!encoded) continue;
    rows.push(encoded);
    bytes += encoded.length;
  }
  const isLast = complete && taken === found.length;
  const next_page_token = isLast || taken === 0 ? '' : writeToken(filterHash, keyOf(found[taken - 1] as V));
  // Concatenated protobuf messages merge their fields, so each row is encoded only once.
  return Buffer.concat([...rows, encode({ revision: BigInt(revision), next_page_token })]);
}

/** The values of a page of a list in memory, and one more if there is one. */
export function valuesFrom<V>({ last, size }: PageStart, { values, keyOf, keep }: Listed<V>): V[] {
  const found: V[] = [];
  for (const value of values.after(last && ((v) => (compareKeys(keyOf(v), last) <= 0 ? -1 : 1)))) {
    if (!keep(value)) continue;
    found.push(value);
    if (found.length > size) break;
  }
  return found;
}

/** Encodes the response with one page of a list in memory. */
export function pageOf<V, Response extends ListResponse>(request: PageRequest, paging: Paging<V, Response>): Buffer {
  const start = pageFrom(request, paging.filter);
  return pageResponse(start, valuesFrom(start, paging), paging);
}

export function compareKeys(a: readonly Key[], b: readonly Key[]): number {
  for (const [at, key] of a.entries()) {
    const other = b[at] as Key;
    if (key !== other) return key < other ? -1 : 1;
  }
  return 0;
}

const hashOf = (filter: readonly unknown[]) =>
  createHash('sha256').update(JSON.stringify(filter)).digest('base64url').slice(0, 12);

const writeToken = (filterHash: string, key: readonly Key[]) =>
  Buffer.from(JSON.stringify([filterHash, ...key])).toString('base64url');

function readToken(token: string, filterHash: string): readonly Key[] {
  try {
    if (token.length > limits.pageToken) throw new RangeError();
    const [found, ...key] = JSON.parse(Buffer.from(token, 'base64url').toString());
    const isValid = filterHash === found && key.every((k: unknown) => typeof k === 'string' || typeof k === 'number');
    if (isValid && key.length > 0) return key;
  } catch {
    // Fall through: every invalid token has the same error, because the caller can only start again.
  }
  throw ServiceError.of('INVALID_PAGE_TOKEN', {});
}
