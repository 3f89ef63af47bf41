import { randomBytes, randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { limits } from '../../limits.js';
import { StoreLostError } from '../failure.js';
import { missingPrivileges } from '../maintenance/privileges.js';
import { CHANNEL } from '../notifications.js';
import { prepared } from '../session.js';
import type { Head } from './head.js';
import type { Statement } from './rows.js';

/** The locked counter row, with the revision of the current write. */
export interface LockedCounter extends Head {
  readonly previous_nonce: string;
  readonly now: Date;
}

/**
 * The first statement of a transaction that writes. The timeouts are local to the transaction, because a pooler may
 * share the session. The notification is sent with the commit.
 * @param writer the replica id in the notification; undefined: no notification.
 */
export async function setTimeouts(tx: Knex, writer?: string): Promise<void> {
  await settings(tx, writer);
}

function settings(tx: Knex, writer: string | undefined): Knex.Raw {
  const timeouts = [limits.lockTimeoutMs, limits.statementTimeoutMs, limits.idleInTransactionTimeoutMs];
  return tx.raw(
    `select set_config('lock_timeout', ?, true) as lock, set_config('statement_timeout', ?, true) as statement,
            set_config('idle_in_transaction_session_timeout', ?, true) as idle
            ${writer === undefined ? '' : ', pg_notify(?, ?) as notified'}`,
    [...timeouts.map(String), ...(writer === undefined ? [] : [CHANNEL, writer])],
  );
}

/**
 * Applies the settings of `setTimeouts` and locks the counter row in one round trip. The update depends on the row of
 * the settings, so they take effect before it waits for the lock. This statement is bounded by the lock timeout.
 */
export async function lockCounter(tx: Knex, writer: string | undefined): Promise<LockedCounter> {
  const lock = tx.raw<{ rows: LockedCounter[] }>(
    `with applied_settings as materialized (?)
     update store_state set revision = revision + 1, previous_nonce = nonce, nonce = ?
       from applied_settings
       returning revision, nonce, previous_nonce, identity, hash_key,
                 date_trunc('milliseconds', clock_timestamp()) as now`,
    [settings(tx, writer), randomUUID()],
  );
  const { rows } = await prepared(lock);
  const [counter] = rows;
  if (!counter) throw new StoreLostError('store_state has no row');
  return counter;
}

/** Sets the locked counter to the last of several revisions. */
export const setCounter = (
  tx: Knex,
  to: { readonly revision: number; readonly nonce: string; readonly previous_nonce: string },
): Statement => tx('store_state').update(to);

/**
 * Rejects while the database does not accept writes. Changes nothing: the transaction is rolled back. The probe is
 * larger than the free space of a page, because a smaller write succeeds on a full disk.
 */
export async function tryWrite(db: Knex): Promise<void> {
  // The probe writes to two tables, but a write may need any of them.
  const [missing] = await missingPrivileges(db);
  if (missing) throw Object.assign(new Error(missing.finding), { code: '42501' });
  const tx = await db.transaction();
  try {
    await setTimeouts(tx);
    await tx('store_state').update({ revision: tx.ref('revision') });
    const bytes = randomBytes(PROBE_BYTES);
    const probe = { caller: '', method: 'probe', request_id: randomUUID(), body_hash: bytes, response: bytes };
    await tx('idempotent_answers').insert({ ...probe, revision: 0, created_at: tx.fn.now() });
  } finally {
    await tx.rollback();
  }
}

const PROBE_BYTES = 65_536;
