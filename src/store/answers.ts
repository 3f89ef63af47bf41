import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Knex } from 'knex';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import type { Entry } from './log.js';

/*
 * Answers that are kept for their request ids, so that a lost reply can be asked
 * for again. They are stored in the transaction of the write that they answer.
 */

/** A request may carry a key, so what is kept of it is a keyed hash. */
export const bodyHash = (key: Buffer, body: Uint8Array): Buffer => createHmac('sha256', key).update(body).digest();

const answerKey = (entry: Entry) => ({
  caller: entry.actor,
  method: entry.method,
  request_id: entry.requestId,
});

/** The answer that was given to a request id; throws when it stood for another request. */
export async function keptAnswer(db: Knex, entry: Entry, hash: Buffer): Promise<Uint8Array | undefined> {
  const rows: { body_hash: Buffer; response: Buffer }[] = await db('idempotent_answers')
    .select('body_hash', 'response')
    .where(answerKey(entry))
    .where('created_at', '>', hoursAgo(db));
  const kept = rows[0];
  if (!kept) return undefined;
  if (timingSafeEqual(kept.body_hash, hash)) return kept.response;
  throw ServiceError.of('REQUEST_ID_REUSED', { request_id: entry.requestId as string });
}

/** Keeps an answer; one that is past its time makes room. */
export async function keepAnswer(
  tx: Knex,
  entry: Entry,
  hash: Buffer,
  response: Uint8Array,
  at: { readonly revision: number; readonly now: Date },
): Promise<void> {
  const answer = { body_hash: hash, response: Buffer.from(response), revision: at.revision, created_at: at.now };
  await tx('idempotent_answers')
    .insert({ ...answerKey(entry), ...answer })
    .onConflict(['caller', 'method', 'request_id'])
    .merge(answer);
}

/** Deletes answers that are past their time. */
export async function forgetAnswers(db: Knex): Promise<void> {
  await db('idempotent_answers').where('created_at', '<=', hoursAgo(db)).delete();
}

const hoursAgo = (db: Knex) => db.raw(`now() - ? * interval '1 hour'`, [limits.requestIdHours]);
