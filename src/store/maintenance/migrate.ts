import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import type pg from 'pg';
import { ImportError } from '../../../migrations/convert_table.js';
import { hasTable, isImportedTable } from '../../../migrations/import_tables.js';
import { migrations as allMigrations, type Migration } from '../../../migrations/index.js';
import { StartError } from '../../errors.js';
import { withConnection } from '../connection.js';
import { outsideTransaction } from '../session.js';
import { type DatabaseImport, readImport } from './database_import.js';
import { foreignTable, refuseForeignNames, refuseForeignTable } from './foreign_names.js';
import { missingForMigrations, missingPrivileges, refuseMissing } from './privileges.js';

/** The properties of a database that the migrator uses. */
export interface MigratableDatabase {
  readonly knex: Knex;
  readonly kind: 'embedded' | 'postgres';
  /** URL of the server. */
  readonly url?: string | undefined;
  /** URL without a pooler (DATABASE_DIRECT_URL), because the lock belongs to a session. */
  readonly directUrl?: string | undefined;
}

export interface MigratorOptions {
  /** The migrations to apply. Tests use other lists. */
  readonly migrations?: readonly Migration[];
  /** How long to wait for another process that migrates, in ms. */
  readonly lockWaitMs?: number;
}

export interface MigrationStatus {
  /** The last applied migration. */
  readonly current: string | undefined;
  /** Names in the order of application. */
  readonly applied: string[];
  /** Known to the code and not applied, in order. */
  readonly pending: string[];
  /** Applied and not known to the code: the schema is newer. */
  readonly unknown: string[];
}

export interface MigrationEntry {
  readonly name: string;
  readonly appliedAt: Date | undefined;
}

export interface Migrator {
  /** Applies all pending migrations and returns their names. Calls `onStep` after each commit. */
  up(onStep?: (name: string) => void): Promise<string[]>;
  /**
   * Rolls back the last migration and returns its name.
   * @param options.dropAdopted also drop imported tables; otherwise a rollback that would drop one fails.
   */
  down(options?: { dropAdopted?: boolean }): Promise<string | undefined>;
  /** Reads only: creates nothing and takes no lock. */
  status(): Promise<MigrationStatus>;
  /** Every migration of the code in order, then those that only the database contains. */
  history(): Promise<MigrationEntry[]>;
  /** Throws SchemaMismatchError when the schema is newer than the code or, when asked, has migrations pending. */
  check(options?: { pending?: boolean }): Promise<void>;
  /** The report about an imported database. Reads only. */
  readImport(): Promise<DatabaseImport>;
}

/** The schema does not match the code. `newer`: the code is too old. `behind`: migrations are pending. */
export class SchemaMismatchError extends Error {
  override readonly name = 'SchemaMismatchError';

  constructor(
    readonly kind: 'newer' | 'behind',
    readonly migrations: readonly string[],
  ) {
    const names = migrations.join(', ');
    super(
      kind === 'newer'
        ? `The database schema is newer than this program, which does not know the applied migrations ${names}. Start the version that applied them, or roll them back with that version first.`
        : `The database schema is older than this program needs: the migrations ${names} are not applied. Apply them first.`,
    );
  }
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

const TABLE = 'knex_migrations';
/** "agentllm" in ASCII, as a bigint. Advisory locks are per database, so all stores can use the same number. */
const LOCK_ID = '7018690069354277997';
const LOCK_WAIT_MS = 60_000;
const LOCK_POLL_MS = 100;
const CONNECT_TIMEOUT_MS = 10_000;

/** The counterpart of `alembic upgrade head`, `downgrade -1`, `current` and `history`. */
export function migrator(database: MigratableDatabase, options: MigratorOptions = {}): Migrator {
  const { migrations = allMigrations, lockWaitMs = LOCK_WAIT_MS } = options;
  const knex = withoutLogging(database.knex);
  const config = { tableName: TABLE, migrationSource: sourceOf(migrations) };

  async function status(): Promise<MigrationStatus> {
    const applied = (await readApplied(knex, migrations)).map((entry) => entry.name);
    const known = migrations.map((migration) => migration.name);
    return {
      current: applied.at(-1),
      applied,
      pending: known.filter((name) => !applied.includes(name)),
      unknown: applied.filter((name) => !known.includes(name)),
    };
  }

  async function history(): Promise<MigrationEntry[]> {
    const applied = new Map((await readApplied(knex, migrations)).map((entry) => [entry.name, entry.appliedAt]));
    const known = migrations.map(({ name }) => ({ name, appliedAt: applied.get(name) }));
    for (const { name } of migrations) applied.delete(name);
    return [...known, ...Array.from(applied, ([name, appliedAt]) => ({ name, appliedAt }))];
  }

  async function check({ pending = false }: { pending?: boolean } = {}): Promise<void> {
    refuseMissing(await missingPrivileges(knex));
    refuseMismatch(await status(), pending);
  }

  async function up(onStep?: (name: string) => void): Promise<string[]> {
    refuseMissing(await missingPrivileges(knex));
    // Usually no migration is pending at the start. Then no lock and no additional session are needed.
    if (nothingToApply(await status())) return [];
    return await withLock(async (assertLocked) => {
      const { pending } = refuseMismatch(await status());
      if (pending.length === 0) return [];
      refuseMissing(await missingForMigrations(knex));
      await refuseForeignNames(knex, pending);
      await cleanUpAfterFailure(async () => {
        for (const name of pending) {
          assertLocked();
          await withMigrationName(name, () => runnerOf(name).migrate.up({ ...config, name }));
          onStep?.(name);
        }
      });
      return pending;
    });
  }

  /** If the first migration fails, also drops the tables of Knex, which are created outside of its transaction. */
  async function cleanUpAfterFailure(work: () => Promise<void>): Promise<void> {
    const existedBefore = await hasTable(knex, TABLE);
    try {
      await work();
    } catch (error) {
      const isUnused = !existedBefore && (await readApplied(knex, migrations).catch(() => undefined))?.length === 0;
      if (isUnused) for (const name of [TABLE, `${TABLE}_lock`]) await knex.schema.dropTableIfExists(name);
      throw error;
    }
  }

  function runnerOf(name: string): Knex {
    const { config: { transaction = true } = {} } = migrations.find((one) => one.name === name) as Migration;
    return transaction ? knex : withoutLogging(outsideTransaction(knex));
  }

  async function down({ dropAdopted = false } = {}): Promise<string | undefined> {
    return await withLock(async () => {
      const { applied } = refuseMismatch(await status());
      const last = migrations.findLast(({ name }) => applied.includes(name));
      if (last !== undefined && !dropAdopted) await refuseToDrop(last);
      if (last !== undefined) await withMigrationName(last.name, () => rollBack(last));
      return last?.name;
    });
  }

  // Knex deletes the record of a rolled-back migration after the transaction of the migration. If the process were
  // killed between the two, the record would remain. One transaction around both prevents that; `up` has such a
  // transaction.
  async function rollBack({ name, config: { transaction = true } = {} }: Migration): Promise<void> {
    if (!transaction) await withoutLogging(outsideTransaction(knex)).migrate.down({ ...config, name });
    else await knex.transaction((trx) => trx.migrate.down({ ...config, name }));
  }

  async function refuseToDrop({ name, tables = [] }: Migration): Promise<void> {
    for (const table of tables)
      if (await isImportedTable(knex, table))
        throw new StartError(
          `Rolling back ${name} would drop columns or all rows of the table ${table}, which was imported from another system. To do so nevertheless, add --drop-adopted.`,
        );
  }

  async function withLock<T>(work: (assertLocked: () => void) => Promise<T>): Promise<T> {
    const run = async (assertLocked: () => void): Promise<T> => {
      await freeStaleLockRow(knex, config);
      return await work(assertLocked);
    };
    // The embedded engine has one owner, through the lock on its directory, and one session, in which an advisory lock
    // has no effect.
    if (database.kind === 'embedded') return await run(() => undefined);
    return await withAdvisoryLock(database, lockWaitMs, run);
  }

  return { up, down, status, history, check, readImport: () => readImport(knex) };
}

function nothingToApply(status: MigrationStatus): boolean {
  return refuseMismatch(status).pending.length === 0;
}

function refuseMismatch(status: MigrationStatus, refusePending = false): MigrationStatus {
  if (status.unknown.length > 0) throw new SchemaMismatchError('newer', status.unknown);
  if (refusePending && status.pending.length > 0) throw new SchemaMismatchError('behind', status.pending);
  return status;
}

async function readApplied(knex: Knex, known: readonly Migration[]): Promise<{ name: string; appliedAt: Date }[]> {
  if (!(await hasTable(knex, TABLE))) return [];
  await refuseForeignTable(knex, TABLE);
  const applied: { name: string; appliedAt: Date }[] = await knex(TABLE)
    .select({ name: 'name', appliedAt: 'migration_time' })
    .orderBy('id');
  const names = [...known, ...allMigrations].map(({ name }) => name);
  if (applied.length > 0 && !applied.some(({ name }) => names.includes(name))) throw await foreignTable(knex, TABLE);
  return applied;
}

function sourceOf(migrations: readonly Migration[]): Knex.MigrationSource<Migration> {
  return {
    getMigrations: async () => [...migrations],
    getMigrationName: (migration) => migration.name,
    getMigration: async (migration) => migration,
  };
}

/** Adds the name of the migration to an error: Knex only prints it. */
async function withMigrationName(name: string, step: () => Promise<unknown>): Promise<void> {
  try {
    await step();
  } catch (cause) {
    if (cause instanceof ImportError) throw new StartError(cause.message, { cause });
    throw new Error(`Migration ${name} failed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** The same pool without logging, because Knex prints every failure to the console. */
function withoutLogging(knex: Knex): Knex {
  const silent = knex.withUserParams({ ...knex.userParams });
  const ignore = (): void => undefined;
  (silent.client as { logger: object }).logger = { debug: ignore, warn: ignore, error: ignore, deprecate: ignore };
  return silent;
}

/** This process holds the advisory lock, so a locked row of Knex was left by a process that was killed. */
async function freeStaleLockRow(knex: Knex, config: Knex.MigratorConfig): Promise<void> {
  const table = `${TABLE}_lock`;
  if (!(await hasTable(knex, table))) return;
  const stale: unknown = await knex(table).whereNot('is_locked', 0).first();
  if (stale !== undefined) await knex.migrate.forceFreeMigrationsLock(config);
}

/**
 * Runs `work` while this process holds the migration lock of the database. The lock of Knex is not sufficient: it is a
 * row of a table that Knex creates first, and replicas that start together would race to create the table.
 */
async function withAdvisoryLock<T>(
  { url, directUrl }: MigratableDatabase,
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
