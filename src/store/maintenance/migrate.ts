import { setTimeout as sleep } from 'node:timers/promises';
import type { Knex } from 'knex';
import type pg from 'pg';
import { isAdopted } from '../../../migrations/adopt.js';
import { type Migration, migrations as ours } from '../../../migrations/index.js';
import { CannotAdoptError } from '../../../migrations/take_over.js';
import { StartError } from '../../errors.js';
import { withConnection } from '../connection.js';
import { outsideTransaction } from '../session.js';
import { type DatabaseImport, readImport } from './database_import.js';
import { foreignTable, refuseForeignNames, refuseForeignTable } from './foreign_names.js';
import { missingForMigrations, missingPrivileges, refuseMissing } from './privileges.js';

/** What the migrator needs to know of a database. */
export interface MigratableDatabase {
  readonly knex: Knex;
  readonly kind: 'embedded' | 'postgres';
  /** Of the server. */
  readonly url?: string | undefined;
  /** The same database without a pooler, where the session that holds the lock is kept (DATABASE_DIRECT_URL). */
  readonly directUrl?: string | undefined;
}

export interface MigratorOptions {
  /** The migrations that the code knows; another list than ours only in tests. */
  readonly migrations?: readonly Migration[];
  /** How long to wait for another process that migrates. */
  readonly lockWaitMs?: number;
}

export interface MigrationStatus {
  /** The migration that was applied last. */
  readonly current: string | undefined;
  /** In the order in which they were applied. */
  readonly applied: string[];
  /** Known to the code and not applied, in the order in which they will be. */
  readonly pending: string[];
  /** Applied and not known to the code: the schema is newer. */
  readonly unknown: string[];
}

export interface MigrationEntry {
  readonly name: string;
  readonly appliedAt: Date | undefined;
}

export interface Migrator {
  /** Applies all that is pending and returns the names; `onStep` hears of each as soon as it is committed. */
  up(onStep?: (name: string) => void): Promise<string[]>;
  /**
   * Rolls back exactly one migration, the last one, and returns its name.
   * @param options.dropAdopted also when it destroys a table that was there before us; refused otherwise.
   */
  down(options?: { dropAdopted?: boolean }): Promise<string | undefined>;
  /** Reads only: creates nothing and takes no lock. */
  status(): Promise<MigrationStatus>;
  /** Every migration of the code in order, then those that only the database knows. */
  history(): Promise<MigrationEntry[]>;
  /** Throws SchemaMismatchError when the schema is newer than the code or, when asked, has migrations pending. */
  check(options?: { pending?: boolean }): Promise<void>;
  /** What was there before us, and what is wrong with it. Reads only. */
  adoption(): Promise<DatabaseImport>;
}

/** The schema and the code do not fit. `newer`: the code is too old. `behind`: migrations are pending. */
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

/** Another process has been migrating for longer than we are willing to wait. */
export class MigrationLockTimeoutError extends Error {
  override readonly name = 'MigrationLockTimeoutError';

  constructor(waitedMs: number) {
    super(
      `Another process has held the migration lock (advisory lock ${LOCK_ID}) for more than ${waitedMs / 1000} s. Wait until it is done; pg_locks and pg_stat_activity name its session.`,
    );
  }
}

const TABLE = 'knex_migrations';
/** "agentllm" in ASCII, as a bigint. Advisory locks are per database, so one number does for every store. */
const LOCK_ID = '7018690069354277997';
const LOCK_WAIT_MS = 60_000;
const LOCK_POLL_MS = 100;
const CONNECT_TIMEOUT_MS = 10_000;

/** The counterpart of `alembic upgrade head`, `downgrade -1`, `current` and `history`. */
export function migrator(database: MigratableDatabase, options: MigratorOptions = {}): Migrator {
  const { migrations = ours, lockWaitMs = LOCK_WAIT_MS } = options;
  const knex = silenced(database.knex);
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
    // The usual start has nothing to do, and needs neither a lock nor a session to hold it.
    if (nothingToApply(await status())) return [];
    return await exclusively(async (assertHeld) => {
      const { pending } = refuseMismatch(await status());
      if (pending.length === 0) return [];
      refuseMissing(await missingForMigrations(knex));
      await refuseForeignNames(knex, pending);
      await cleaningUp(async () => {
        for (const name of pending) {
          assertHeld();
          await naming(name, () => runnerOf(name).migrate.up({ ...config, name }));
          onStep?.(name);
        }
      });
      return pending;
    });
  }

  /** A first migration that fails leaves nothing, not even the tables of Knex, which it creates outside of any. */
  async function cleaningUp(work: () => Promise<void>): Promise<void> {
    const wasThere = await knex.schema.hasTable(TABLE);
    try {
      await work();
    } catch (error) {
      const leftovers = !wasThere && (await readApplied(knex, migrations).catch(() => undefined))?.length === 0;
      if (leftovers) for (const name of [TABLE, `${TABLE}_lock`]) await knex.schema.dropTableIfExists(name);
      throw error;
    }
  }

  function runnerOf(name: string): Knex {
    const { config: { transaction = true } = {} } = migrations.find((one) => one.name === name) as Migration;
    return transaction ? knex : silenced(outsideTransaction(knex));
  }

  async function down({ dropAdopted = false } = {}): Promise<string | undefined> {
    return await exclusively(async () => {
      const { applied } = refuseMismatch(await status());
      const last = migrations.findLast(({ name }) => applied.includes(name));
      if (last !== undefined && !dropAdopted) await refuseToDrop(last);
      if (last !== undefined) await naming(last.name, () => rollBack(last));
      return last?.name;
    });
  }

  // Knex removes the record of a rolled-back migration after the migration's own transaction: a process killed between
  // the two would leave a step recorded that is gone. One transaction around both closes the gap (`up` has one anyway).
  async function rollBack({ name, config: { transaction = true } = {} }: Migration): Promise<void> {
    if (!transaction) await silenced(outsideTransaction(knex)).migrate.down({ ...config, name });
    else await knex.transaction((trx) => trx.migrate.down({ ...config, name }));
  }

  async function refuseToDrop({ name, tables = [] }: Migration): Promise<void> {
    for (const table of tables)
      if (await isAdopted(knex, table))
        throw new StartError(
          `Rolling back ${name} would destroy what the table ${table} holds, and another system made it: agentllm has only taken it over. To drop it with all its rows, add --drop-adopted.`,
        );
  }

  async function exclusively<T>(work: (assertHeld: () => void) => Promise<T>): Promise<T> {
    const run = async (assertHeld: () => void): Promise<T> => {
      await freeStaleLockRow(knex, config);
      return await work(assertHeld);
    };
    // The embedded engine has one owner, by the lock on its directory, and one session, which an advisory lock would
    // not protect from itself.
    if (database.kind === 'embedded') return await run(() => undefined);
    return await withAdvisoryLock(database, lockWaitMs, run);
  }

  return { up, down, status, history, check, adoption: () => readImport(knex) };
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
  if (!(await knex.schema.hasTable(TABLE))) return [];
  await refuseForeignTable(knex, TABLE);
  const applied: { name: string; appliedAt: Date }[] = await knex(TABLE)
    .select({ name: 'name', appliedAt: 'migration_time' })
    .orderBy('id');
  const names = [...known, ...ours].map(({ name }) => name);
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

/** Knex says which migration failed only in what it prints, and printing is not its business here. */
async function naming(name: string, step: () => Promise<unknown>): Promise<void> {
  try {
    await step();
  } catch (cause) {
    if (cause instanceof CannotAdoptError) throw new StartError(cause.message, { cause });
    throw new Error(`Migration ${name} failed: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** The same pool, with a logger of its own that says nothing: Knex prints every failure to the console. */
function silenced(knex: Knex): Knex {
  const quiet = knex.withUserParams({ ...knex.userParams });
  const ignore = (): void => undefined;
  (quiet.client as { logger: object }).logger = { debug: ignore, warn: ignore, error: ignore, deprecate: ignore };
  return quiet;
}

/** We hold the lock that counts, so a row that says "locked" was left by a process that was killed. */
async function freeStaleLockRow(knex: Knex, config: Knex.MigratorConfig): Promise<void> {
  const table = `${TABLE}_lock`;
  if (!(await knex.schema.hasTable(table))) return;
  const stale: unknown = await knex(table).whereNot('is_locked', 0).first();
  if (stale !== undefined) await knex.migrate.forceFreeMigrationsLock(config);
}

/**
 * Runs `work` while this process alone holds the database's migration lock. Knex's own lock is a row in a table that it
 * creates first, and replicas that start together race to create it.
 */
async function withAdvisoryLock<T>(
  { url, directUrl }: MigratableDatabase,
  waitMs: number,
  work: (assertHeld: () => void) => Promise<T>,
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

// Polled, never blocked: a session that waits inside pg_advisory_lock() holds a snapshot, CREATE INDEX CONCURRENTLY
// waits for every older snapshot to go, and the two would wait for each other.
async function takeLock(client: pg.Client, waitMs: number): Promise<void> {
  const deadline = performance.now() + waitMs;
  // The session is idle while the migrations run on others, and a timeout of the role must not end it for that.
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

// The end of the session releases the lock as well. It is released by name because a pooler keeps sessions alive, and
// a failure here must not hide the result of the work.
async function releaseLock(client: pg.Client): Promise<void> {
  try {
    await client.query('select pg_advisory_unlock($1)', [LOCK_ID]);
  } catch {
    // The session is lost, and the lock with it.
  }
}
