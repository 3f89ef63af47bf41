import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Knex } from 'knex';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import type { ChangeAuthor } from './planned_write.js';

/*
 * Answers that are kept for their request ids, so that a lost reply can be asked
 * for again. They are stored in the transaction of the write that they answer.
 */

/** A request may carry a key, so what is kept of it is a keyed hash. */
export const bodyHash = (key: Buffer, body: Uint8Array): Buffer => createHmac('sha256', key).update(body).digest();

/** An answer with the hash of the request that it was given to. */
export interface StoredResponse {
  readonly hash: Buffer;
  readonly bytes: Uint8Array;
}

/** Answers by the requests that they were given to: of one caller and method, under one id. */
export class StoredResponses {
  private readonly all = new Map<string, StoredResponse>();

  /** The answer to a request with the id of this one. */
  of(entry: ChangeAuthor): StoredResponse | undefined {
    return entry.requestId === undefined ? undefined : this.all.get(keyOf(entry));
  }

  put(entry: ChangeAuthor, answer: StoredResponse): void {
    this.all.set(keyOf(entry), answer);
  }

  copy(): StoredResponses {
    const copy = new StoredResponses();
    for (const [key, answer] of this.all) copy.all.set(key, answer);
    return copy;
  }
}

const keyOf = ({ actor, method, requestId }: ChangeAuthor) => JSON.stringify([actor, method, requestId]);

/** The bytes of an answer; throws when it was given to another request. */
export function matchingResponse({ requestId }: ChangeAuthor, answer: StoredResponse, hash: Buffer): Uint8Array {
  if (timingSafeEqual(answer.hash, hash)) return answer.bytes;
  throw ServiceError.of('REQUEST_ID_REUSED', { request_id: requestId as string });
}

/** The answers that are kept for the ids of these requests. */
export async function readResponses(db: Knex, entries: readonly ChangeAuthor[]): Promise<StoredResponses> {
  const kept = new StoredResponses();
  const named = entries.filter(({ requestId }) => requestId !== undefined);
  if (named.length === 0) return kept;
  const rows: { caller: string; method: string; request_id: string; body_hash: Buffer; response: Buffer }[] = await db(
    'idempotent_answers',
  )
    .select('caller', 'method', 'request_id', 'body_hash', 'response')
    .whereIn(
      ['caller', 'method', 'request_id'],
      named.map(({ actor, method, requestId }) => [actor, method, requestId as string]),
    )
    .where('created_at', '>', hoursAgo(db));
  for (const { caller, method, request_id, body_hash, response } of rows)
    kept.put({ actor: caller, method, requestId: request_id, reason: undefined }, { hash: body_hash, bytes: response });
  return kept;
}

/** An answer that is to be kept. */
export interface NewStoredResponse extends StoredResponse {
  readonly entry: ChangeAuthor;
  readonly revision: number;
}

/** Keeps answers; one that is past its time makes room. */
export async function storeResponses(tx: Knex, now: Date, answers: readonly NewStoredResponse[]): Promise<void> {
  if (answers.length === 0) return;
  const rows = answers.map(({ entry, hash, bytes, revision }) => ({
    caller: entry.actor,
    method: entry.method,
    request_id: entry.requestId,
    body_hash: hash,
    response: Buffer.from(bytes),
    revision,
    created_at: now,
  }));
  await tx('idempotent_answers')
    .insert(rows)
    .onConflict(['caller', 'method', 'request_id'])
    .merge(['body_hash', 'response', 'revision', 'created_at']);
}

/** Deletes answers that are past their time. */
export async function deleteExpiredResponses(db: Knex): Promise<void> {
  await db('idempotent_answers').where('created_at', '<=', hoursAgo(db)).delete();
}

const hoursAgo = (db: Knex) => db.raw(`now() - ? * interval '1 hour'`, [limits.requestIdHours]);
