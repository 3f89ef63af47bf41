import type { Knex } from 'knex';
import { CannotAdoptError, listed, q, rowsOf, type TakeOverOptions, takeOver } from './take_over.js';

// A database that the Python system made has the tables of the document already. The steps that mirror the document
// take such a table over where they would create it, and it is remembered which ones: what others have made is not
// dropped by rolling back. `adopted_tables` and `adopted_orphans` stand only where something was adopted.

type Build = (table: Knex.CreateTableBuilder) => void;

/** What rows of the served tables cannot do without. */
const ESSENTIAL: Readonly<Record<string, readonly string[]>> = {
  agent_configs: ['id', 'name', 'agent_type'],
  agent_llm_configs: ['id', 'agent_id', 'provider', 'model_name'],
};
/** What later steps add: a column of the same name would be another thing. */
const ADDED: Readonly<Record<string, readonly string[]>> = {
  agent_configs: ['revision', 'chain_revision', 'substitution_policy'],
  agent_llm_configs: ['priority', 'revision', 'extra_params', 'price_given', 'key_id', 'key_revision', 'credential_id'],
};

/** Looks at the whole before any of it is touched. */
export async function refuseForeignTables(knex: Knex, tables: readonly string[]): Promise<void> {
  const standing: string[] = [];
  for (const name of tables) if (await stands(knex, name)) standing.push(name);
  if (standing.length > 0 && !standing.includes('agent_configs'))
    throw new CannotAdoptError(
      `The schema has tables ${standing.join(', ')} but no agent_configs, so it is not that of the Python system. Create a schema for agentllm and add it to DATABASE_URL as the parameter schema.`,
    );
  for (const [name, needed] of Object.entries(ESSENTIAL)) {
    if (!(await stands(knex, name))) continue;
    const columns = Object.keys(await knex(name).columnInfo());
    const missing = needed.filter((column) => !columns.includes(column));
    if (missing.length > 0)
      throw new CannotAdoptError(
        `The table ${name} has no column ${missing.join(', ')}, so it is not that of the Python system. Give agentllm a database or a schema of its own.`,
      );
    const taken = (ADDED[name] ?? []).filter((column) => columns.includes(column));
    if (taken.length > 0)
      throw new CannotAdoptError(
        `The table ${name} has columns of its own named ${taken.join(', ')}, which agentllm adds. Rename them, for example with: alter table ${name} rename column ${taken[0]} to old_${taken[0]}; then run this again.`,
      );
  }
}

/** Creates a table, or takes over the one that stands there. */
export async function createOrAdopt(
  knex: Knex,
  name: string,
  build: Build,
  options: TakeOverOptions = {},
): Promise<void> {
  if (!(await stands(knex, name))) return knex.schema.createTable(name, build);
  await remember(knex, name);
  await note(knex, name, await takeOver(knex, name, build, options));
}

/** Adds columns to a table, or takes over those that stand in one that was adopted. */
export async function extendOrAdopt(knex: Knex, name: string, build: Build): Promise<void> {
  if (!(await isAdopted(knex, name))) return knex.schema.alterTable(name, build);
  await note(knex, name, await takeOver(knex, name, build, { others: 'all', served: name in ESSENTIAL }));
}

/** A foreign key to the id of another table, under the name that PostgreSQL would give it. */
export async function addForeignKey(knex: Knex, table: string, column: string, parent: string): Promise<void> {
  const name = `${table}_${column}_fkey`;
  const wanted = `FOREIGN KEY (${column}) REFERENCES ${parent}(id)`;
  const adopted = await isAdopted(knex, table);
  if (adopted && (await keepsForeignKey(knex, table, column, name, wanted))) return;
  const lost = adopted ? await rowsWithout(knex, table, column, parent) : [];
  await knex.raw(`alter table ${q(table)} add constraint ${q(name)} ${wanted} ${lost.length > 0 ? 'not valid' : ''}`);
  if (lost.length > 0) await note(knex, table, [`${column} names no row of ${parent} in ${listed(lost)}`]);
}

/** Whether the key stands already; one that is another is dropped. */
async function keepsForeignKey(knex: Knex, table: string, column: string, name: string, wanted: string) {
  const { rows: keys } = await knex.raw<{ rows: { name: string; definition: string }[] }>(
    `select k.conname as name, pg_get_constraintdef(k.oid) as definition
     from pg_constraint k join pg_attribute a on a.attrelid = k.conrelid and k.conkey = array[a.attnum]
     where k.contype = 'f' and k.conrelid = to_regclass(quote_ident(?)) and a.attname = ?`,
    [table, column],
  );
  const kept = keys.some((key) => key.name === name && key.definition === wanted);
  for (const key of keys)
    if (!kept || key.name !== name) await knex.raw(`alter table ${q(table)} drop constraint ${q(key.name)}`);
  return kept;
}

async function rowsWithout(knex: Knex, table: string, column: string, parent: string): Promise<number[]> {
  const rows = await rowsOf<{ id: number }>(
    knex,
    `select id from ${q(table)} c where ${column} is not null
     and not exists (select from ${q(parent)} p where p.id = c.${column}) order by id`,
  );
  return rows.map(({ id }) => id);
}

/** Fernet tokens, plain and encoded once more; another text in the place of one is a key in clear. */
const SEALED = `'^(gAAAAA|Z0FBQUFB)[A-Za-z0-9+/_-]+={0,2}$'`;

/** Moves configs of agents that do not exist out of the way of the foreign key, whole but for keys in clear. */
export async function moveOrphans(knex: Knex): Promise<string[]> {
  const orphan = `agent_id is null or not exists (select from agent_configs a where a.id = c.agent_id)`;
  const found = await rowsOf(knex, `select from agent_llm_configs c where ${orphan} limit 1`);
  if (found.length === 0) return [];
  if (!(await stands(knex, 'adopted_orphans')))
    await knex.schema.createTable('adopted_orphans', (table) => {
      table.string('table_name', 63).notNullable();
      table.integer('row_id').notNullable();
      table.jsonb('content').notNullable();
      table.timestamp('adopted_at').notNullable().defaultTo(knex.fn.now());
      table.primary(['table_name', 'row_id']);
    });
  // Times in the JSON are written in the zone of the session.
  await knex.raw(`select set_config('TimeZone', 'UTC', true)`);
  const moved = await rowsOf<{ row_id: number; in_clear: boolean }>(
    knex,
    `with gone as (
       delete from agent_llm_configs c where ${orphan}
       returning c.id, to_jsonb(c) as content, coalesce(c.api_key_encrypted <> '' and c.api_key_encrypted !~ ${SEALED}, false) as in_clear
     ), kept as (
       insert into adopted_orphans (table_name, row_id, content)
       select 'agent_llm_configs', id, case when in_clear then content - 'api_key_encrypted' else content end from gone
     )
     select id as row_id, in_clear from gone order by id`,
  );
  const dropped = moved.filter(({ in_clear }) => in_clear).map(({ row_id }) => row_id);
  const ids = moved.map(({ row_id }) => row_id);
  return [
    `${listed(ids)} belonged to no agent and stand in adopted_orphans now`,
    ...(dropped.length > 0 ? [`the API key of ${listed(dropped)} was stored in clear and was not kept`] : []),
  ];
}

/** Whether a table was there before us. */
export async function isAdopted(knex: Knex, name: string): Promise<boolean> {
  return (await stands(knex, 'adopted_tables')) && (await knex('adopted_tables').where({ name })).length > 0;
}

/** Drops tables and what is remembered of them. */
export async function dropTables(knex: Knex, names: readonly string[]): Promise<void> {
  for (const name of names) await knex.schema.dropTable(name);
  if (names.includes('agent_llm_configs')) await knex.schema.dropTableIfExists('adopted_orphans');
  if (!(await stands(knex, 'adopted_tables'))) return;
  await knex('adopted_tables').whereIn('name', names).delete();
  if ((await knex('adopted_tables').select('name').limit(1)).length === 0)
    await knex.schema.dropTable('adopted_tables');
}

async function remember(knex: Knex, name: string): Promise<void> {
  if (!(await stands(knex, 'adopted_tables')))
    await knex.schema.createTable('adopted_tables', (table) => {
      table.string('name', 63).primary();
      table.timestamp('adopted_at').notNullable().defaultTo(knex.fn.now());
      // What a person has to know of it, as sentences.
      table.jsonb('notes').notNullable().defaultTo('[]');
    });
  await knex('adopted_tables').insert({ name }).onConflict('name').ignore();
}

async function note(knex: Knex, name: string, notes: readonly string[]): Promise<void> {
  if (notes.length === 0) return;
  const all = knex.raw('notes || ?::jsonb', [JSON.stringify(notes)]);
  await knex('adopted_tables').where({ name }).update({ notes: all });
}

const stands = (knex: Knex, name: string): Promise<boolean> => knex.schema.hasTable(name);
