import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Knex } from 'knex';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { type BatchOptions, deleteInBatches } from '../batched_delete.js';
import { prepared } from '../session.js';
import type { ChangeAuthor } from './planned_write.js';
import type { Statement } from './rows.js';

/*
 * Stored responses of writes with a request_id, so that a retry after a lost response returns the same one. A response
 * is stored in the transaction of its write.
 */

/** A keyed hash of the request, because the request may contain an API key. */
export const bodyHash = (key: Buffer, body: Uint8Array): Buffer => createHmac('sha256', key).update(body).digest();

/** A response and the hash of its request. */
export interface StoredResponse {
  readonly hash: Buffer;
  readonly bytes: Uint8Array;
}

/** Stored responses by caller, method and request id. */
export class StoredResponses {
  private readonly all = new Map<string, StoredResponse>();

  /** The stored response with the request id of this write. */
  of(entry: ChangeAuthor): StoredResponse | undefined {
    return entry.requestId === undefined ? undefined : this.all.get(keyOf(entry));
  }

  put(entry: ChangeAuthor, response: StoredResponse): void {
    this.all.set(keyOf(entry), response);
  }

  copy(): StoredResponses {
    const copy = new StoredResponses();
    for (const [key, response] of this.all) copy.all.set(key, response);
    return copy;
  }
}

const keyOf = ({ actor, method, requestId }: ChangeAuthor) => JSON.stringify([actor, method, requestId]);

/**
 * The bytes of a stored response.
 * @throws REQUEST_ID_REUSED when it belongs to a different request.
 */
export function matchingResponse({ requestId }: ChangeAuthor, response: StoredResponse, hash: Buffer): Uint8Array {
  if (timingSafeEqual(response.hash, hash)) return response.bytes;
  throw ServiceError.of('REQUEST_ID_REUSED', { request_id: requestId as string });
}

interface StoredRow {
  readonly caller: string;
  readonly method: string;
  readonly request_id: string;
  readonly body_hash: Buffer;
  readonly response: Buffer;
}

/** Reads the stored responses for the request ids of these writes. */
export async function readResponses(db: Knex, entries: readonly ChangeAuthor[]): Promise<StoredResponses> {
  const stored = new StoredResponses();
  const withId = entries.filter(({ requestId }) => requestId !== undefined);
  if (withId.length === 0) return stored;
  const query = db('idempotent_answers')
    .select('caller', 'method', 'request_id', 'body_hash', 'response')
    .whereIn(
      ['caller', 'method', 'request_id'],
      withId.map(({ actor, method, requestId }) => [actor, method, requestId as string]),
    )
    .where('created_at', '>', expiryTime(db));
  const rows: StoredRow[] = await prepared(query);
  for (const { caller, method, request_id, body_hash, response } of rows)
    stored.put(
      { actor: caller, method, requestId: request_id, reason: undefined },
      { hash: body_hash, bytes: response },
    );
  return stored;
}

/** A response to store. */
export interface NewStoredResponse extends StoredResponse {
  readonly entry: ChangeAuthor;
  readonly revision: number;
}

/** The statements that store responses. An expired response with the same key is replaced. */
export function storeResponses(tx: Knex, now: Date, responses: readonly NewStoredResponse[]): Statement[] {
  if (responses.length === 0) return [];
  const rows = responses.map(({ entry, hash, bytes, revision }) => ({
    caller: entry.actor,
    method: entry.method,
    request_id: entry.requestId,
    body_hash: hash,
    response: Buffer.from(bytes),
    revision,
    created_at: now,
  }));
  const insert = tx('idempotent_answers').insert(rows).onConflict(['caller', 'method', 'request_id']);
  return [insert.merge(['body_hash', 'response', 'revision', 'created_at'])];
}

/** Deletes responses older than `limits.requestIdHours`. */
export const deleteExpiredResponses = (db: Knex, options?: BatchOptions): Promise<void> =>
  deleteInBatches(db, 'idempotent_answers', ['created_at <= ?', [expiryTime(db)]], options);

const expiryTime = (db: Knex) => db.raw(`now() - ? * interval '1 hour'`, [limits.requestIdHours]);
