import type { Knex } from 'knex';

// Converts an existing table of the Python system to the table that a migration would create, without losing rows. The
// target is not described separately: the migration creates the table as an empty temporary one, and the two tables are
// compared in the system catalogue of PostgreSQL.

/** The database cannot be imported. The message states the remedy. The database is unchanged. */
export class ImportError extends Error {
  override readonly name = 'ImportError';
}

export interface ConvertOptions {
  /** Columns of the target that other migrations add; `all`: every column that this one does not add. */
  readonly others?: readonly string[] | 'all';
  /** Whether the service reads the table. Then missing values are an error, and NaN and infinities are replaced. */
  readonly served?: boolean;
  /** Runs after the columns have their types and before constraints are added; returns notes. */
  readonly beforeConstraints?: () => Promise<readonly string[]>;
}

interface Column {
  readonly name: string;
  readonly type: string;
  readonly not_null: boolean;
  readonly default: string | null;
  /** Whether PostgreSQL generates the value: an identity or a generated column. */
  readonly generated: boolean;
}

interface Index {
  readonly name: string;
  readonly unique: boolean;
  /** The definition after USING. */
  readonly method: string;
  /** Its columns, as a list for SQL. */
  readonly columns: string;
  readonly constraint: string | null;
}

interface Description {
  readonly columns: ReadonlyMap<string, Column>;
  readonly primary: Index | undefined;
  readonly indexes: readonly Index[];
}

/** @returns findings for an operator, as sentences. */
export async function convertTable(
  knex: Knex,
  name: string,
  build: (table: Knex.CreateTableBuilder) => void,
  { others = [], served = false, beforeConstraints = async () => [] }: ConvertOptions = {},
): Promise<string[]> {
  const target = await describeTarget(knex, name, build);
  const existing = await describe(knex, name, CURRENT_SCHEMA);
  const notes: string[] = [];
  const columns = [...target.columns.values()].filter(isNotId);
  const actions: string[] = [];
  for (const column of columns) {
    const current = existing.columns.get(column.name);
    if (current) actions.push(...(await columnChanges(knex, name, column, current, notes)));
    else actions.push(await columnAddition(knex, name, column, served, notes));
  }
  if (others !== 'all')
    for (const column of existing.columns.values())
      if (!target.columns.has(column.name) && !others.includes(column.name) && rejectsInserts(column)) {
        actions.push(`alter column ${quoteIdentifier(column.name)} drop not null`);
        notes.push(`column ${column.name}, which agentllm does not fill, is nullable now`);
      }
  await alter(knex, name, actions);
  if (target.columns.has('id')) await continueIds(knex, name, existing.columns.get('id'));
  if (served) notes.push(...(await replaceNonFinite(knex, name, columns)));
  notes.push(...(await beforeConstraints()));
  await requireValues(knex, name, columns, existing, served, notes);
  if (target.primary && !existing.primary) await ensureIndex(knex, name, target.primary, existing, true);
  for (const index of target.indexes) await ensureIndex(knex, name, index, existing, false);
  return notes;
}

/** An identifier in quotes, for SQL text. */
export const quoteIdentifier = (identifier: string): string => `"${identifier.replaceAll('"', '""')}"`;

const isNotId = ({ name }: Column) => name !== 'id';
const rejectsInserts = (column: Column) => column.not_null && column.default === null && !column.generated;

/** The schemas of the two tables. */
/** The schema in which tables are created, as an SQL expression. */
export const CURRENT_SCHEMA = '(select oid from pg_namespace where nspname = current_schema())';
const TEMPORARY_SCHEMA = 'pg_my_temp_schema()';

async function describeTarget(
  knex: Knex,
  name: string,
  build: (table: Knex.CreateTableBuilder) => void,
): Promise<Description> {
  await knex.schema.withSchema('pg_temp').createTable(name, build);
  const described = await describe(knex, name, TEMPORARY_SCHEMA);
  // Dropped at once, because its name hides the other table.
  await knex.raw(`drop table pg_temp.${quoteIdentifier(name)}`);
  return described;
}

async function describe(knex: Knex, name: string, schema: string): Promise<Description> {
  const table = `(select oid from pg_class where relname = ? and relnamespace = ${schema})`;
  const columns = await queryRows<Column>(
    knex,
    `select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null,
       case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end as default,
       a.attidentity <> '' or a.attgenerated <> '' as generated
     from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = ${table} and a.attnum > 0 and not a.attisdropped order by a.attnum`,
    name,
  );
  const indexes = await queryRows<Index & { primary: boolean }>(
    knex,
    `select c.relname as name, i.indisunique as unique, i.indisprimary as primary,
       substring(pg_get_indexdef(i.indexrelid) from ' USING (.*)$') as method,
       (select string_agg(pg_get_indexdef(i.indexrelid, k, true), ', ') from generate_series(1, i.indnkeyatts) k)
         as columns,
       (select conname from pg_constraint where conindid = i.indexrelid and contype in ('p', 'u')) as constraint
     from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = ${table} order by 1`,
    name,
  );
  return {
    columns: new Map(columns.map((column) => [column.name, column])),
    primary: indexes.find(({ primary }) => primary),
    indexes: indexes.filter(({ primary }) => !primary),
  };
}

/** The actions that convert an existing column to the target. NOT NULL is added later, in `requireValues`. */
async function columnChanges(
  knex: Knex,
  table: string,
  target: Column,
  current: Column,
  notes: string[],
): Promise<string[]> {
  const column = quoteIdentifier(target.name);
  const actions: string[] = [];
  const typeChanges = target.type !== current.type && (await isLossless(knex, table, target, current, notes));
  // A default is dropped before the type changes: PostgreSQL would convert it in the time zone of the session.
  if (current.default !== null && (typeChanges || target.default === null))
    actions.push(`alter column ${column} drop default`);
  if (typeChanges) actions.push(`alter column ${column} type ${target.type} using ${conversion(target, current)}`);
  if (target.default !== null && (typeChanges || target.default !== current.default))
    actions.push(`alter column ${column} set default ${target.default}`);
  if (current.not_null && !target.not_null) actions.push(`alter column ${column} drop not null`);
  return actions;
}

const isZoneless = (type: string) => type === 'date' || /^timestamp.* without time zone$/.test(type);

/** The Python system stores UTC in columns without time zone. */
function conversion(target: Column, current: Column): string {
  const column = quoteIdentifier(target.name);
  if (target.type === 'timestamp with time zone' && isZoneless(current.type))
    return `${column}::timestamp at time zone 'UTC'`;
  return `${column}::${target.type}`;
}

/** Whether every value survives the conversion. Otherwise the column keeps its type. */
async function isLossless(
  knex: Knex,
  table: string,
  target: Column,
  current: Column,
  notes: string[],
): Promise<boolean> {
  // The text of these values may change in a conversion that loses nothing.
  if (/^(timestamp|double|boolean)/.test(target.type)) return true;
  const column = quoteIdentifier(target.name);
  const [found] = await orExplain(table, target, current, () =>
    queryRows<{ lost: number }>(
      knex,
      `select count(*)::int as lost from ${quoteIdentifier(table)}
       where (${column}::${target.type})::text is distinct from ${column}::text`,
    ),
  );
  if (!found?.lost) return true;
  notes.push(`column ${target.name} stays ${current.type}: ${found.lost} values do not fit into ${target.type}`);
  return false;
}

async function orExplain<T>(table: string, target: Column, current: Column, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new ImportError(
      `The column ${target.name} of the table ${table} is of type ${current.type}, and its values cannot be converted to ${target.type}. Change it, then run this again.`,
      { cause },
    );
  }
}

async function columnAddition(
  knex: Knex,
  table: string,
  column: Column,
  served: boolean,
  notes: string[],
): Promise<string> {
  const { name, type, not_null, default: fallback } = column;
  const add = `add column ${quoteIdentifier(name)} ${type}`;
  if (fallback !== null) return `${add} default ${fallback}${not_null ? ' not null' : ''}`;
  if (!not_null) return add;
  const rows = await queryRows(knex, `select from ${quoteIdentifier(table)} limit 1`);
  if (rows.length === 0) return `${add} not null`;
  if (served)
    throw new ImportError(
      `The table ${table} has no column ${name}, so it is not a table of the Python system. Give agentllm a separate database or schema.`,
    );
  notes.push(`column ${name} was missing and has no default, so it was added as nullable`);
  return add;
}

async function alter(knex: Knex, table: string, actions: readonly string[]): Promise<void> {
  if (actions.length === 0) return;
  try {
    await knex.raw(`alter table ${quoteIdentifier(table)} ${actions.join(', ')}`);
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== '0A000') throw cause;
    throw new ImportError(
      `A view or a rule uses columns of ${table} whose type has to change. Drop it, run this again, then create it again.`,
      { cause },
    );
  }
}

/** Makes new ids come from a sequence, after the highest existing id. */
async function continueIds(knex: Knex, table: string, id: Column | undefined): Promise<void> {
  if (!id || !/^(smallint|integer|bigint)$/.test(id.type))
    throw new ImportError(
      `The table ${table} has no integer column id, so it is not a table of the Python system. Give agentllm a separate database or schema.`,
    );
  // GENERATED ALWAYS would reject ids that the service draws before it inserts the row.
  if (id.generated) await knex.raw(`alter table ${quoteIdentifier(table)} alter column id drop identity`);
  if (id.type !== 'integer') await knex.raw(`alter table ${quoteIdentifier(table)} alter column id type integer`);
  const serial = `pg_get_serial_sequence(quote_ident(?), 'id')`;
  const [found] = await queryRows<{ sequence: string | null }>(knex, `select ${serial} as sequence`, table);
  const sequence = found?.sequence ?? quoteIdentifier(`${table}_id_seq`);
  if (!found?.sequence) {
    await knex.raw(`create sequence if not exists ${sequence} as integer`);
    await knex.raw(`alter sequence ${sequence} owned by ${quoteIdentifier(table)}.id`);
  }
  if (!found?.sequence)
    await knex.raw(
      `alter table ${quoteIdentifier(table)} alter column id set default nextval(${literal(sequence)}::regclass)`,
    );
  await knex.raw(
    `select setval(${literal(sequence)}::regclass, max(id)) from ${quoteIdentifier(table)}
     having max(id) > (select case when is_called then last_value else last_value - 1 end from ${sequence})`,
  );
}

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** Replaces NaN and infinities: JSON, and so the log, cannot represent them, and no model accepts them. */
async function replaceNonFinite(knex: Knex, table: string, columns: readonly Column[]): Promise<string[]> {
  const notes: string[] = [];
  for (const { name, type, default: fallback } of columns) {
    if (type !== 'double precision') continue;
    const replaced = await queryRows<{ id: number }>(
      knex,
      `update ${quoteIdentifier(table)} set ${quoteIdentifier(name)} = ${fallback ?? 'null'}
       where ${quoteIdentifier(name)} in ('NaN', 'Infinity', '-Infinity') returning id`,
    );
    if (replaced.length > 0)
      notes.push(
        `${name} was NaN or infinite in ${describeRows(replaced.map(({ id }) => id))} and was set to ${fallback ?? 'NULL'}`,
      );
  }
  return notes;
}

/** Replaces NULL by the default of the column, then adds NOT NULL. */
async function requireValues(
  knex: Knex,
  table: string,
  columns: readonly Column[],
  existing: Description,
  served: boolean,
  notes: string[],
): Promise<void> {
  const actions: string[] = [];
  for (const { name, not_null, default: fallback } of columns) {
    if (!not_null || !existing.columns.has(name) || existing.columns.get(name)?.not_null) continue;
    const column = quoteIdentifier(name);
    if (fallback !== null)
      await knex.raw(`update ${quoteIdentifier(table)} set ${column} = ${fallback} where ${column} is null`);
    const empty = await queryRows<{ id: number }>(
      knex,
      `select id from ${quoteIdentifier(table)} where ${column} is null order by id`,
    );
    if (empty.length === 0) actions.push(`alter column ${column} set not null`);
    else if (!served) notes.push(`${name} is NULL in ${describeRows(empty.map(({ id }) => id))}`);
    else
      throw new ImportError(
        `The column ${name} of the table ${table} is NULL in ${describeRows(empty.map(({ id }) => id))}. Set a value or delete the rows, then run this again.`,
      );
  }
  await alter(knex, table, actions);
}

async function ensureIndex(
  knex: Knex,
  table: string,
  index: Index,
  existing: Description,
  primary: boolean,
): Promise<void> {
  const current = existing.indexes.find(({ name }) => name === index.name);
  if (current?.unique === index.unique && current.method === index.method && !current.constraint) return;
  if (index.unique) await refuseDuplicates(knex, table, index.columns);
  if (current?.constraint)
    await knex.raw(`alter table ${quoteIdentifier(table)} drop constraint ${quoteIdentifier(current.constraint)}`);
  else if (current) await knex.raw(`drop index ${quoteIdentifier(index.name)}`);
  await knex.raw(
    primary
      ? `alter table ${quoteIdentifier(table)} add constraint ${quoteIdentifier(index.name)} primary key (${index.columns})`
      : `create ${index.unique ? 'unique ' : ''}index ${quoteIdentifier(index.name)} on ${quoteIdentifier(table)} using ${index.method}`,
  );
}

async function refuseDuplicates(knex: Knex, table: string, column: string): Promise<void> {
  const found = await queryRows<{ value: string; ids: number[] }>(
    knex,
    `select ${column}::text as value, array_agg(id order by id) as ids from ${quoteIdentifier(table)}
     where ${column} is not null group by ${column} having count(*) > 1 order by 1 limit 20`,
  );
  if (found.length === 0) return;
  const duplicates = found.map(({ value, ids }) => `${JSON.stringify(value)} (${describeRows(ids)})`).join(', ');
  throw new ImportError(
    `The column ${column} of the table ${table} must be unique, but has duplicate values: ${duplicates}. Nothing was changed. ` +
      `Rename or delete all rows except one of each value, for example with: update ${table} set ${column} = ${column} || '_' || id where id = ${found[0]?.ids.at(-1)}; then run this again.`,
  );
}

const SHOWN = 20;

/** Formats ids for a message, at most 20. */
export function describeRows(ids: readonly number[], count = ids.length): string {
  const more = count > SHOWN ? ` and ${count - SHOWN} more` : '';
  return `${count === 1 ? 'row' : 'rows'} ${ids.slice(0, SHOWN).join(', ')}${more}`;
}

/** Returns the rows of a query. Every `?` is bound to the same value. */
export async function queryRows<Row>(knex: Knex, sql: string, value?: string): Promise<Row[]> {
  const bindings = value === undefined ? [] : [...sql.matchAll(/\?/g)].map(() => value);
  const { rows } = await knex.raw<{ rows: Row[] }>(sql, bindings);
  return rows;
}
