import type { Knex } from 'knex';
import { CURRENT_SCHEMA, ImportError } from '../../../migrations/convert_table.js';
import { columnsOf, hasTable, refuseForeignTables } from '../../../migrations/import_tables.js';
import { type CreatedName, IMPORTABLE, namesOf } from '../../../migrations/names.js';
import { StartError } from '../../errors.js';

/*
 * A schema may contain tables of another application. Therefore every name that pending migrations would create is
 * looked up before any of them runs.
 */

/** An existing object of the schema with one of the names. */
interface ExistingObject {
  readonly name: string;
  /** `relkind`, or `T` for a type. */
  readonly kind: string;
  /** The table of an index; null for other objects. */
  readonly table: string | null;
}

const KINDS: Readonly<Record<string, string>> = {
  r: 'table',
  p: 'table',
  f: 'foreign table',
  v: 'view',
  m: 'materialized view',
  i: 'index',
  I: 'index',
  S: 'sequence',
  c: 'type',
  T: 'type',
};

/** Throws a StartError that names the existing objects with names that the migrations need. */
export async function refuseForeignNames(knex: Knex, pending: readonly string[]): Promise<void> {
  const created = pending.flatMap(namesOf);
  const existing = await existingObjects(knex, [
    ...created.map(({ name }) => name),
    ...(await missingKnexTables(knex)),
  ]);
  const tableExists = (name: string) => existing.some((object) => object.name === name && /^[rp]$/.test(object.kind));
  const isImport = pending.includes('0001_initial')
    ? tableExists('agent_configs')
    : (await existingObjects(knex, ['agent_configs'])).length > 0;
  const foreign = existing.filter((object) => {
    const name = created.find((candidate) => candidate.name === object.name);
    return !(
      name &&
      isImport &&
      isImportable(object, name, tableExists(name.table) || !pending.includes('0001_initial'))
    );
  });
  if (foreign.length > 0) throw new StartError(await refusal(knex, foreign));
  if (pending.includes('0001_initial')) await refuseOtherSystems(knex);
}

async function refuseOtherSystems(knex: Knex): Promise<void> {
  try {
    await refuseForeignTables(knex, IMPORTABLE);
  } catch (error) {
    throw error instanceof ImportError ? new StartError(error.message, { cause: error }) : error;
  }
}

/** Whether an object may be part of a database of the Python system. */
function isImportable(object: ExistingObject, { kind, table }: CreatedName, ownTableExists: boolean): boolean {
  if (!IMPORTABLE.includes(table) || !ownTableExists) return false;
  if (kind === 'table') return /^[rp]$/.test(object.kind);
  if (kind === 'sequence') return object.kind === 'S';
  return /^[iI]$/.test(object.kind) && object.table === table;
}

/**
 * The tables of Knex if they do not exist yet. Existing ones belong to this store, or `refuseForeignTable` rejects
 * them.
 */
async function missingKnexTables(knex: Knex): Promise<string[]> {
  return (await hasTable(knex, 'knex_migrations')) ? [] : ['knex_migrations', 'knex_migrations_lock'];
}

async function existingObjects(knex: Knex, names: readonly string[]): Promise<ExistingObject[]> {
  const { rows } = await knex.raw<{ rows: ExistingObject[] }>(
    `select c.relname as name, c.relkind::text as kind, t.relname as table
       from pg_class c left join pg_index i on i.indexrelid = c.oid left join pg_class t on t.oid = i.indrelid
      where c.relnamespace = ${CURRENT_SCHEMA} and c.relname = any(?::text[])
     union all
     select typname, 'T', null from pg_type
      where typnamespace = ${CURRENT_SCHEMA} and typrelid = 0 and typname = any(?::text[])
        and not (typelem <> 0 and typname like '\\\\_%')
     order by 1`,
    [names as string[], names as string[]],
  );
  return rows;
}

async function refusal(knex: Knex, foreign: readonly ExistingObject[]): Promise<string> {
  const { rows } = await knex.raw<{ rows: { schema: string }[] }>('select current_schema() as schema');
  const names = foreign.map(({ name, kind }) => `${KINDS[kind] ?? 'relation'} ${name}`).join(', ');
  return `Schema "${rows[0]?.schema}" contains objects of another application with names that agentllm needs: ${names}. Nothing was created. Create a schema for agentllm and add it to DATABASE_URL as the parameter schema, for example: create schema agentllm; then postgres://…/database?schema=agentllm`;
}

const COLUMNS = ['id', 'name', 'batch', 'migration_time'];

/** Throws a StartError when a table does not have the columns of Knex's table of migrations. */
export async function refuseForeignTable(knex: Knex, table: string): Promise<void> {
  const columns = await columnsOf(knex, table);
  if (!COLUMNS.every((column) => columns.includes(column))) throw await foreignTable(knex, table);
}

/** The error for a table of migrations that belongs to another application. */
export const foreignTable = async (knex: Knex, table: string): Promise<StartError> =>
  new StartError(await refusal(knex, [{ name: table, kind: 'r', table: null }]));
