import type { Knex } from 'knex';
import {
  type ConvertOptions,
  CURRENT_SCHEMA,
  convertTable,
  describeRows,
  ImportError,
  queryRows,
  quoteIdentifier,
} from './convert_table.js';

// Import of a database of the original Python system. Its tables exist already, so the migrations 0001 to 0004 convert
// a table where they would otherwise create it. `adopted_tables` records the imported tables, because a rollback must
// not drop tables of another system by default. `adopted_tables` and `adopted_orphans` exist only in an imported
// database.

type Build = (table: Knex.CreateTableBuilder) => void;

/** Columns without which an existing table cannot be imported. */
const REQUIRED: Readonly<Record<string, readonly string[]>> = {
  agent_configs: ['id', 'name', 'agent_type'],
  agent_llm_configs: ['id', 'agent_id', 'provider', 'model_name'],
};
/** Columns that later migrations add. An existing column of the same name has another meaning. */
const ADDED: Readonly<Record<string, readonly string[]>> = {
  agent_configs: ['revision', 'chain_revision', 'substitution_policy'],
  agent_llm_configs: ['priority', 'revision', 'extra_params', 'price_given', 'key_id', 'key_revision', 'credential_id'],
};

/**
 * Checks all tables before any of them is changed.
 * @throws ImportError when the tables are not those of the Python system.
 */
export async function refuseForeignTables(knex: Knex, tables: readonly string[]): Promise<void> {
  const existing: string[] = [];
  for (const name of tables) if (await hasTable(knex, name)) existing.push(name);
  if (existing.length > 0 && !existing.includes('agent_configs'))
    throw new ImportError(
      `The schema has tables ${existing.join(', ')} but no agent_configs, so it is not a schema of the Python system. Create a schema for agentllm and add it to DATABASE_URL as the parameter schema.`,
    );
  for (const [name, required] of Object.entries(REQUIRED)) {
    if (!(await hasTable(knex, name))) continue;
    const columns = await columnsOf(knex, name);
    const missing = required.filter((column) => !columns.includes(column));
    if (missing.length > 0)
      throw new ImportError(
        `The table ${name} has no column ${missing.join(', ')}, so it is not a table of the Python system. Give agentllm a separate database or schema.`,
      );
    const conflicting = (ADDED[name] ?? []).filter((column) => columns.includes(column));
    if (conflicting.length > 0)
      throw new ImportError(
        `The table ${name} already has the columns ${conflicting.join(', ')}, which agentllm adds. Rename them, for example with: alter table ${name} rename column ${conflicting[0]} to old_${conflicting[0]}; then run this again.`,
      );
  }
}

/** Creates a table, or imports an existing one. */
export async function createOrImport(
  knex: Knex,
  name: string,
  build: Build,
  options: ConvertOptions = {},
): Promise<void> {
  if (!(await hasTable(knex, name))) return knex.schema.createTable(name, build);
  await recordImport(knex, name);
  await addNotes(knex, name, await convertTable(knex, name, build, options));
}

/** Adds columns to a table. In an imported table, existing columns are converted. */
export async function extendOrImport(knex: Knex, name: string, build: Build): Promise<void> {
  if (!(await isImportedTable(knex, name))) return knex.schema.alterTable(name, build);
  await addNotes(knex, name, await convertTable(knex, name, build, { others: 'all', served: name in REQUIRED }));
}

/**
 * Adds a foreign key to the id of another table, with the name that PostgreSQL would give it. In an imported table,
 * rows that violate it are kept: the key is then NOT VALID and applies to new rows only.
 */
export async function addForeignKey(knex: Knex, table: string, column: string, parent: string): Promise<void> {
  const name = `${table}_${column}_fkey`;
  const definition = `FOREIGN KEY (${column}) REFERENCES ${parent}(id)`;
  const imported = await isImportedTable(knex, table);
  if (imported && (await hasForeignKey(knex, table, column, name, definition))) return;
  const violating = imported ? await rowsWithoutParent(knex, table, column, parent) : [];
  await knex.raw(
    `alter table ${quoteIdentifier(table)} add constraint ${quoteIdentifier(name)} ${definition} ${violating.length > 0 ? 'not valid' : ''}`,
  );
  if (violating.length > 0)
    await addNotes(knex, table, [`${column} refers to no row of ${parent} in ${describeRows(violating)}`]);
}

/** Whether the foreign key exists. Different foreign keys of the column are dropped. */
async function hasForeignKey(knex: Knex, table: string, column: string, name: string, definition: string) {
  const { rows: keys } = await knex.raw<{ rows: { name: string; definition: string }[] }>(
    `select k.conname as name, pg_get_constraintdef(k.oid) as definition
     from pg_constraint k join pg_attribute a on a.attrelid = k.conrelid and k.conkey = array[a.attnum]
     where k.contype = 'f' and k.conrelid = to_regclass(quote_ident(?)) and a.attname = ?`,
    [table, column],
  );
  const exists = keys.some((key) => key.name === name && key.definition === definition);
  for (const key of keys)
    if (!exists || key.name !== name)
      await knex.raw(`alter table ${quoteIdentifier(table)} drop constraint ${quoteIdentifier(key.name)}`);
  return exists;
}

async function rowsWithoutParent(knex: Knex, table: string, column: string, parent: string): Promise<number[]> {
  const rows = await queryRows<{ id: number }>(
    knex,
    `select id from ${quoteIdentifier(table)} c where ${column} is not null
     and not exists (select from ${quoteIdentifier(parent)} p where p.id = c.${column}) order by id`,
  );
  return rows.map(({ id }) => id);
}

/** Fernet ciphertexts, plain or encoded in base64 again. Any other text in the column is an API key in plaintext. */
const CIPHERTEXT = `'^(gAAAAA|Z0FBQUFB)[A-Za-z0-9+/_-]+={0,2}$'`;

/**
 * Moves configs of agents that do not exist to `adopted_orphans`, because the foreign key would reject them. API keys
 * in plaintext are not copied.
 * @returns notes.
 */
export async function moveOrphans(knex: Knex): Promise<string[]> {
  const orphan = `agent_id is null or not exists (select from agent_configs a where a.id = c.agent_id)`;
  const found = await queryRows(knex, `select from agent_llm_configs c where ${orphan} limit 1`);
  if (found.length === 0) return [];
  if (!(await hasTable(knex, 'adopted_orphans')))
    await knex.schema.createTable('adopted_orphans', (table) => {
      table.string('table_name', 63).notNullable();
      table.integer('row_id').notNullable();
      table.jsonb('content').notNullable();
      table.timestamp('adopted_at').notNullable().defaultTo(knex.fn.now());
      table.primary(['table_name', 'row_id']);
    });
  // Times in the JSON are formatted in the time zone of the session.
  await knex.raw(`select set_config('TimeZone', 'UTC', true)`);
  const moved = await queryRows<{ row_id: number; plaintext: boolean }>(
    knex,
    `with deleted as (
       delete from agent_llm_configs c where ${orphan}
       returning c.id, to_jsonb(c) as content, coalesce(c.api_key_encrypted <> '' and c.api_key_encrypted !~ ${CIPHERTEXT}, false) as plaintext
     ), moved as (
       insert into adopted_orphans (table_name, row_id, content)
       select 'agent_llm_configs', id, case when plaintext then content - 'api_key_encrypted' else content end from deleted
     )
     select id as row_id, plaintext from deleted order by id`,
  );
  const dropped = moved.filter(({ plaintext }) => plaintext).map(({ row_id }) => row_id);
  const ids = moved.map(({ row_id }) => row_id);
  return [
    `${describeRows(ids)} belonged to no agent and were moved to adopted_orphans`,
    ...(dropped.length > 0 ? [`the API key of ${describeRows(dropped)} was stored in plaintext and was not kept`] : []),
  ];
}

/** Whether a table was imported from the Python system. */
export async function isImportedTable(knex: Knex, name: string): Promise<boolean> {
  return (await hasTable(knex, 'adopted_tables')) && (await knex('adopted_tables').where({ name })).length > 0;
}

/** Drops tables and their import records. */
export async function dropTables(knex: Knex, names: readonly string[]): Promise<void> {
  for (const name of names) await knex.schema.dropTable(name);
  if (names.includes('agent_llm_configs')) await knex.schema.dropTableIfExists('adopted_orphans');
  if (!(await hasTable(knex, 'adopted_tables'))) return;
  await knex('adopted_tables').whereIn('name', names).delete();
  if ((await knex('adopted_tables').select('name').limit(1)).length === 0)
    await knex.schema.dropTable('adopted_tables');
}

async function recordImport(knex: Knex, name: string): Promise<void> {
  if (!(await hasTable(knex, 'adopted_tables')))
    await knex.schema.createTable('adopted_tables', (table) => {
      table.string('name', 63).primary();
      table.timestamp('adopted_at').notNullable().defaultTo(knex.fn.now());
      // Findings of the import for an operator, as sentences.
      table.jsonb('notes').notNullable().defaultTo('[]');
    });
  await knex('adopted_tables').insert({ name }).onConflict('name').ignore();
}

async function addNotes(knex: Knex, name: string, notes: readonly string[]): Promise<void> {
  if (notes.length === 0) return;
  const appended = knex.raw('notes || ?::jsonb', [JSON.stringify(notes)]);
  await knex('adopted_tables').where({ name }).update({ notes: appended });
}

/**
 * Whether the schema has a relation of this name. Knex's `hasTable` reads the information_schema, which contains only
 * relations on which the role has a privilege.
 */
export async function hasTable(knex: Knex, name: string): Promise<boolean> {
  const found = await queryRows(
    knex,
    `select from pg_class where relnamespace = ${CURRENT_SCHEMA} and relkind in ('r', 'p', 'f', 'v', 'm') and relname = ?`,
    name,
  );
  return found.length > 0;
}

/** The columns of a relation, also if the role has no privilege on them; empty if there is no such relation. */
export async function columnsOf(knex: Knex, name: string): Promise<string[]> {
  const columns = await queryRows<{ name: string }>(
    knex,
    `select a.attname as name from pg_attribute a join pg_class c on c.oid = a.attrelid
     where c.relnamespace = ${CURRENT_SCHEMA} and c.relname = ? and a.attnum > 0 and not a.attisdropped`,
    name,
  );
  return columns.map((column) => column.name);
}
