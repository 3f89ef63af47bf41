import type { Knex } from 'knex';
import { ImportError } from '../../../migrations/convert_table.js';
import { hasTable, isImportedTable } from '../../../migrations/import_tables.js';
import { migrations as allMigrations, type Migration } from '../../../migrations/index.js';
import { errorMessage } from '../../error_properties.js';
import { StartError } from '../../errors.js';
import { outsideTransaction } from '../session.js';
import { type DatabaseImport, readImport } from './database_import.js';
import { foreignTable, refuseForeignNames, refuseForeignTable } from './foreign_names.js';
import { type LockableDatabase, withMigrationLock } from './migration_lock.js';
import { missingForMigrations, missingPrivileges, refuseMissing } from './privileges.js';

/** The properties of a database that the migrator uses. */
export interface MigratableDatabase extends LockableDatabase {
  readonly knex: Knex;
  readonly kind: 'embedded' | 'postgres';
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
   * @param options.dropImported also drop imported tables; otherwise a rollback that would drop one fails.
   */
  down(options?: { dropImported?: boolean }): Promise<string | undefined>;
  /** Reads only: creates nothing and takes no lock. */
  status(): Promise<MigrationStatus>;
  /** Every migration of the code in order, then those that only the database contains. */
  history(): Promise<MigrationEntry[]>;
  /** Throws SchemaMismatchError when the schema is newer than the code or, when asked, has migrations pending. */
  check(options?: { pending?: boolean }): Promise<void>;
  /** The report about an imported database. Reads only. */
  readImport(): Promise<DatabaseImport>;
}

/** The schema does not match the code. `newer`: the code is too old. `older`: migrations are pending. */
export class SchemaMismatchError extends Error {
  override readonly name = 'SchemaMismatchError';

  constructor(
    readonly kind: 'newer' | 'older',
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

const TABLE = 'knex_migrations';
const LOCK_WAIT_MS = 60_000;

/** The counterpart of `alembic upgrade head`, `downgrade -1`, `current` and `history`. */
export function migrator(database: MigratableDatabase, options: MigratorOptions = {}): Migrator {
  const { migrations = allMigrations, lockWaitMs = LOCK_WAIT_MS } = options;
  const config = { tableName: TABLE, migrationSource: sourceOf(migrations) };
  const run: MigrationRun = { database, knex: withoutLogging(database.knex), migrations, config, lockWaitMs };
  return {
    up: (onStep) => up(run, onStep),
    down: ({ dropImported = false } = {}) => down(run, dropImported),
    status: () => readStatus(run),
    history: () => readHistory(run),
    check: ({ pending = false } = {}) => check(run, pending),
    readImport: () => readImport(run.knex),
  };
}

/** What the steps of a migrator use. */
interface MigrationRun {
  readonly database: MigratableDatabase;
  /** The pool of the database, without logging. */
  readonly knex: Knex;
  readonly migrations: readonly Migration[];
  readonly config: Knex.MigratorConfig;
  readonly lockWaitMs: number;
}

async function readStatus({ knex, migrations }: MigrationRun): Promise<MigrationStatus> {
  const applied = (await readApplied(knex, migrations)).map((entry) => entry.name);
  const known = migrations.map((migration) => migration.name);
  return {
    current: applied.at(-1),
    applied,
    pending: known.filter((name) => !applied.includes(name)),
    unknown: applied.filter((name) => !known.includes(name)),
  };
}

async function readHistory({ knex, migrations }: MigrationRun): Promise<MigrationEntry[]> {
  const applied = new Map((await readApplied(knex, migrations)).map((entry) => [entry.name, entry.appliedAt]));
  const known = migrations.map(({ name }) => ({ name, appliedAt: applied.get(name) }));
  for (const { name } of migrations) applied.delete(name);
  return [...known, ...Array.from(applied, ([name, appliedAt]) => ({ name, appliedAt }))];
}

async function check(run: MigrationRun, refusePending: boolean): Promise<void> {
  refuseMissing(await missingPrivileges(run.knex));
  refuseMismatch(await readStatus(run), refusePending);
}

async function up(run: MigrationRun, onStep?: (name: string) => void): Promise<string[]> {
  const { knex, config } = run;
  refuseMissing(await missingPrivileges(knex));
  // Usually no migration is pending at the start. Then no lock and no additional session are needed.
  if (refuseMismatch(await readStatus(run)).pending.length === 0) return [];
  return await withLock(run, async (assertLocked) => {
    const { pending } = refuseMismatch(await readStatus(run));
    if (pending.length === 0) return [];
    refuseMissing(await missingForMigrations(knex));
    await refuseForeignNames(knex, pending);
    await cleanUpAfterFailure(run, async () => {
      for (const name of pending) {
        assertLocked();
        await withMigrationName(name, () => runnerOf(run, name).migrate.up({ ...config, name }));
        onStep?.(name);
      }
    });
    return pending;
  });
}

/** If the first migration fails, also drops the tables of Knex, which are created outside of its transaction. */
async function cleanUpAfterFailure({ knex, migrations }: MigrationRun, work: () => Promise<void>): Promise<void> {
  const existedBefore = await hasTable(knex, TABLE);
  try {
    await work();
  } catch (error) {
    const isUnused = !existedBefore && (await readApplied(knex, migrations).catch(() => undefined))?.length === 0;
    if (isUnused) for (const name of [TABLE, `${TABLE}_lock`]) await knex.schema.dropTableIfExists(name);
    throw error;
  }
}

function runnerOf({ knex, migrations }: MigrationRun, name: string): Knex {
  const { config: { transaction = true } = {} } = migrations.find((one) => one.name === name) as Migration;
  return transaction ? knex : withoutLogging(outsideTransaction(knex));
}

function down(run: MigrationRun, dropImported: boolean): Promise<string | undefined> {
  return withLock(run, async () => {
    const { applied } = refuseMismatch(await readStatus(run));
    const last = run.migrations.findLast(({ name }) => applied.includes(name));
    if (last !== undefined && !dropImported) await refuseToDrop(run.knex, last);
    if (last !== undefined) await withMigrationName(last.name, () => rollBack(run, last));
    return last?.name;
  });
}

// Knex deletes the record of a rolled-back migration after the transaction of the migration. If the process were
// killed between the two, the record would remain. One transaction around both prevents that; `up` has such a
// transaction.
async function rollBack({ knex, config }: MigrationRun, migration: Migration): Promise<void> {
  const { name, config: { transaction = true } = {} } = migration;
  if (!transaction) await withoutLogging(outsideTransaction(knex)).migrate.down({ ...config, name });
  else await knex.transaction((trx) => trx.migrate.down({ ...config, name }));
}

async function refuseToDrop(knex: Knex, { name, tables = [] }: Migration): Promise<void> {
  for (const table of tables)
    if (await isImportedTable(knex, table))
      throw new StartError(
        `Rolling back ${name} would drop columns or all rows of the table ${table}, which was imported from another system. To do so nevertheless, add --drop-imported.`,
      );
}

async function withLock<T>(run: MigrationRun, work: (assertLocked: () => void) => Promise<T>): Promise<T> {
  const { database, knex, config, lockWaitMs } = run;
  const locked = async (assertLocked: () => void): Promise<T> => {
    await freeStaleLockRow(knex, config);
    return await work(assertLocked);
  };
  // The embedded engine has one owner, through the lock on its directory, and one session, in which an advisory lock
  // has no effect.
  if (database.kind === 'embedded') return await locked(() => undefined);
  return await withMigrationLock(database, lockWaitMs, locked);
}

function refuseMismatch(status: MigrationStatus, refusePending = false): MigrationStatus {
  if (status.unknown.length > 0) throw new SchemaMismatchError('newer', status.unknown);
  if (refusePending && status.pending.length > 0) throw new SchemaMismatchError('older', status.pending);
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
    throw new Error(`Migration ${name} failed: ${errorMessage(cause)}`, { cause });
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
