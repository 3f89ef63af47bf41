import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { withConnection } from '../connection.js';

/** The addresses of a PostgreSQL database. */
export interface LockableDatabase {
  /** URL of the server. */
  readonly url?: string | undefined;
  /** URL without a pooler (DATABASE_DIRECT_URL), because the lock belongs to a session. */
  readonly directUrl?: string | undefined;
}

/** Another process has held the migration lock for longer than the wait limit. */
export class MigrationLockTimeoutError extends Error {
  override readonly name = 'MigrationLockTimeoutError';

  constructor(waitedMs: number) {
    super(
      `Another process has held the migration lock (advisory lock ${LOCK_ID}) for more than ${waitedMs / 1000} s. Wait until it is done; pg_locks and pg_stat_activity name its session.`,
    );
  }
}

/** "agentllm" in ASCII, as a bigint. Advisory locks are per database, so all stores can use the same number. */
const LOCK_ID = '7018690069354277997';
const LOCK_POLL_MS = 100;
const CONNECT_TIMEOUT_MS = 10_000;

/**
 * Runs `work` while this process holds the migration lock of the database. The lock of Knex is not sufficient: it is a
 * row of a table that Knex creates first, and replicas that start together would race to create the table.
 */
export async function withMigrationLock<T>(
  { url, directUrl }: LockableDatabase,
  waitMs: number,
  work: (assertLocked: () => void) => Promise<T>,
): Promise<T> {
  const target = directUrl ?? url;
  if (target === undefined) throw new Error('the migration lock of a server needs its URL');
  const setting = directUrl === undefined ? 'DATABASE_URL' : 'DATABASE_DIRECT_URL';
  const options = { timeoutMs: CONNECT_TIMEOUT_MS, applicationName: 'agentllm-migrate' };
  return withConnection(setting, target, options, async (client) => {
    let lost: Error | undefined;
    client.on('error', (error) => {
      lost = error;
    });
    await takeLock(client, waitMs);
    try {
      return await work(() => {
        if (lost) throw new Error('The session that holds the migration lock was lost', { cause: lost });
      });
    } finally {
      await releaseLock(client);
    }
  });
}

// The lock is polled. A session that blocks in pg_advisory_lock() has a snapshot, and CREATE INDEX CONCURRENTLY waits
// for every older snapshot, so the two would deadlock.
async function takeLock(client: pg.Client, waitMs: number): Promise<void> {
  const deadline = performance.now() + waitMs;
  // The session is idle while migrations run in other sessions, and a timeout of the role must not end it.
  await client.query(
    `select set_config('idle_session_timeout', '0', false), set_config('statement_timeout', '0', false)`,
  );
  for (;;) {
    const { rows } = await client.query<{ taken: boolean }>('select pg_try_advisory_lock($1) as taken', [LOCK_ID]);
    if (rows[0]?.taken) return;
    if (performance.now() >= deadline) throw new MigrationLockTimeoutError(waitMs);
    await sleep(LOCK_POLL_MS);
  }
}

// The end of the session also releases the lock. It is released explicitly because a pooler keeps sessions open. A
// failure here must not hide the result of the work.
async function releaseLock(client: pg.Client): Promise<void> {
  try {
    await client.query('select pg_advisory_unlock($1)', [LOCK_ID]);
  } catch {
    // The session is lost, so the lock is released.
  }
}
