import type { Knex } from 'knex';

// Brings a table that another system made to what ours is, without losing anything that it holds. What ours is, is not
// said twice: the table is created beside the standing one, for a moment and empty, and the two are compared in the
// catalogue of PostgreSQL.

/** A database that cannot be taken over as it is. The message says what to do; what was standing is as it was. */
export class CannotAdoptError extends Error {
  override readonly name = 'CannotAdoptError';
}

export interface TakeOverOptions {
  /** Columns of the table that other steps bring. `all`: whatever this one does not, they do. */
  readonly others?: readonly string[] | 'all';
  /** A table that the service reads: it must have the columns and the numbers that rows need. */
  readonly served?: boolean;
  /** Runs when the columns have their types, before anything is demanded of the rows; returns notes. */
  readonly sortOut?: () => Promise<readonly string[]>;
}

interface Column {
  readonly name: string;
  readonly type: string;
  readonly not_null: boolean;
  readonly default: string | null;
  /** Filled by PostgreSQL itself: an identity, or generated. */
  readonly filled: boolean;
}

interface Index {
  readonly name: string;
  readonly unique: boolean;
  /** What comes after USING. */
  readonly method: string;
  /** Columns as they stand in it. */
  readonly columns: string;
  readonly constraint: string | null;
}

interface Description {
  readonly columns: ReadonlyMap<string, Column>;
  readonly primary: Index | undefined;
  readonly indexes: readonly Index[];
}

/** @returns what a person has to know of it. */
export async function takeOver(
  knex: Knex,
  name: string,
  build: (table: Knex.CreateTableBuilder) => void,
  { others = [], served = false, sortOut = async () => [] }: TakeOverOptions = {},
): Promise<string[]> {
  const ours = await describeOurs(knex, name, build);
  const theirs = await describe(knex, name, STANDING);
  const notes: string[] = [];
  const own = [...ours.columns.values()].filter(isOwn);
  const actions: string[] = [];
  for (const column of own) {
    const there = theirs.columns.get(column.name);
    if (there) actions.push(...(await changes(knex, name, column, there, notes)));
    else actions.push(await addition(knex, name, column, served, notes));
  }
  if (others !== 'all')
    for (const column of theirs.columns.values())
      if (!ours.columns.has(column.name) && !others.includes(column.name) && isInTheWay(column)) {
        actions.push(`alter column ${q(column.name)} drop not null`);
        notes.push(`column ${column.name}, which agentllm does not fill, may be NULL from now on`);
      }
  await alter(knex, name, actions);
  if (ours.columns.has('id')) await continueIds(knex, name, theirs.columns.get('id'));
  if (served) notes.push(...(await mendNumbers(knex, name, own)));
  notes.push(...(await sortOut()));
  await demandValues(knex, name, own, theirs, served, notes);
  if (ours.primary && !theirs.primary) await putIndex(knex, name, ours.primary, theirs, true);
  for (const index of ours.indexes) await putIndex(knex, name, index, theirs, false);
  return notes;
}

export const q = (identifier: string): string => `"${identifier.replaceAll('"', '""')}"`;

const isOwn = ({ name }: Column) => name !== 'id';
const isInTheWay = (column: Column) => column.not_null && column.default === null && !column.filled;

/** The schemas of the two tables. */
const STANDING = '(select oid from pg_namespace where nspname = current_schema())';
const BESIDE = 'pg_my_temp_schema()';

async function describeOurs(
  knex: Knex,
  name: string,
  build: (table: Knex.CreateTableBuilder) => void,
): Promise<Description> {
  await knex.schema.withSchema('pg_temp').createTable(name, build);
  const described = await describe(knex, name, BESIDE);
  // At once: as long as it stands, its name hides that of the other table.
  await knex.raw(`drop table pg_temp.${q(name)}`);
  return described;
}

async function describe(knex: Knex, name: string, schema: string): Promise<Description> {
  const table = `(select oid from pg_class where relname = ? and relnamespace = ${schema})`;
  const columns = await rowsOf<Column>(
    knex,
    `select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as not_null,
       case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end as default,
       a.attidentity <> '' or a.attgenerated <> '' as filled
     from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
     where a.attrelid = ${table} and a.attnum > 0 and not a.attisdropped order by a.attnum`,
    name,
  );
  const indexes = await rowsOf<Index & { primary: boolean }>(
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

/** What changes a standing column into ours. NOT NULL comes later, when the rows are in order. */
async function changes(knex: Knex, table: string, ours: Column, theirs: Column, notes: string[]): Promise<string[]> {
  const column = q(ours.name);
  const actions: string[] = [];
  const retyped = ours.type !== theirs.type && (await canBecome(knex, table, ours, theirs, notes));
  // A default is dropped before its column gets another type: it would be read in the time zone of the session.
  if (theirs.default !== null && (retyped || ours.default === null))
    actions.push(`alter column ${column} drop default`);
  if (retyped) actions.push(`alter column ${column} type ${ours.type} using ${conversion(ours, theirs)}`);
  if (ours.default !== null && (retyped || ours.default !== theirs.default))
    actions.push(`alter column ${column} set default ${ours.default}`);
  if (theirs.not_null && !ours.not_null) actions.push(`alter column ${column} drop not null`);
  return actions;
}

const isZoneless = (type: string) => type === 'date' || /^timestamp.* without time zone$/.test(type);

/** The times of the source are UTC and do not say so. */
function conversion(ours: Column, theirs: Column): string {
  const column = q(ours.name);
  if (ours.type === 'timestamp with time zone' && isZoneless(theirs.type))
    return `${column}::timestamp at time zone 'UTC'`;
  return `${column}::${ours.type}`;
}

/** Whether every value survives the change of type; a column for which one does not keeps its own. */
async function canBecome(knex: Knex, table: string, ours: Column, theirs: Column, notes: string[]): Promise<boolean> {
  // A number is the same number however it is written.
  if (/^(timestamp|double|boolean)/.test(ours.type)) return true;
  const column = q(ours.name);
  const [found] = await naming(table, ours, theirs, () =>
    rowsOf<{ lost: number }>(
      knex,
      `select count(*)::int as lost from ${q(table)}
       where (${column}::${ours.type})::text is distinct from ${column}::text`,
    ),
  );
  if (!found?.lost) return true;
  notes.push(`column ${ours.name} stays ${theirs.type}: ${found.lost} values do not fit into ${ours.type}`);
  return false;
}

async function naming<T>(table: string, ours: Column, theirs: Column, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    throw new CannotAdoptError(
      `The column ${ours.name} of the table ${table} is of type ${theirs.type}, and what it holds cannot become ${ours.type}. Change it, then run this again.`,
      { cause },
    );
  }
}

async function addition(knex: Knex, table: string, column: Column, served: boolean, notes: string[]): Promise<string> {
  const { name, type, not_null, default: fallback } = column;
  const add = `add column ${q(name)} ${type}`;
  if (fallback !== null) return `${add} default ${fallback}${not_null ? ' not null' : ''}`;
  if (!not_null) return add;
  const rows = await rowsOf(knex, `select from ${q(table)} limit 1`);
  if (rows.length === 0) return `${add} not null`;
  if (served)
    throw new CannotAdoptError(
      `The table ${table} has no column ${name}, so it is not that of the Python system. Give agentllm a database or a schema of its own.`,
    );
  notes.push(`column ${name} was missing; nobody knows what the rows should have in it, so it may be NULL`);
  return add;
}

async function alter(knex: Knex, table: string, actions: readonly string[]): Promise<void> {
  if (actions.length === 0) return;
  try {
    await knex.raw(`alter table ${q(table)} ${actions.join(', ')}`);
  } catch (cause) {
    if ((cause as { code?: unknown }).code !== '0A000') throw cause;
    throw new CannotAdoptError(
      `A view or a rule uses columns of ${table} whose type has to change. Drop it, run this again, then create it anew.`,
      { cause },
    );
  }
}

/** New ids come from a sequence, behind all that were ever given. */
async function continueIds(knex: Knex, table: string, id: Column | undefined): Promise<void> {
  if (!id || !/^(smallint|integer|bigint)$/.test(id.type))
    throw new CannotAdoptError(
      `The table ${table} has no integer column id, so it is not that of the Python system. Give agentllm a database or a schema of its own.`,
    );
  // GENERATED ALWAYS would refuse ids that are drawn before the row is written.
  if (id.filled) await knex.raw(`alter table ${q(table)} alter column id drop identity`);
  if (id.type !== 'integer') await knex.raw(`alter table ${q(table)} alter column id type integer`);
  const serial = `pg_get_serial_sequence(quote_ident(?), 'id')`;
  const [found] = await rowsOf<{ sequence: string | null }>(knex, `select ${serial} as sequence`, table);
  const sequence = found?.sequence ?? q(`${table}_id_seq`);
  if (!found?.sequence) {
    await knex.raw(`create sequence if not exists ${sequence} as integer`);
    await knex.raw(`alter sequence ${sequence} owned by ${q(table)}.id`);
  }
  if (!found?.sequence)
    await knex.raw(`alter table ${q(table)} alter column id set default nextval(${literal(sequence)}::regclass)`);
  await knex.raw(
    `select setval(${literal(sequence)}::regclass, max(id)) from ${q(table)}
     having max(id) > (select case when is_called then last_value else last_value - 1 end from ${sequence})`,
  );
}

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** NaN and the infinities: JSON cannot hold them, so neither can the log, and no model takes them. */
async function mendNumbers(knex: Knex, table: string, columns: readonly Column[]): Promise<string[]> {
  const notes: string[] = [];
  for (const { name, type, default: fallback } of columns) {
    if (type !== 'double precision') continue;
    const mended = await rowsOf<{ id: number }>(
      knex,
      `update ${q(table)} set ${q(name)} = ${fallback ?? 'null'}
       where ${q(name)} in ('NaN', 'Infinity', '-Infinity') returning id`,
    );
    if (mended.length > 0)
      notes.push(`${name} was not a number in ${listed(mended.map(({ id }) => id))} and is ${fallback ?? 'NULL'} now`);
  }
  return notes;
}

/** Fills what is NULL and must not be, where there is a default for it. */
async function demandValues(
  knex: Knex,
  table: string,
  columns: readonly Column[],
  theirs: Description,
  served: boolean,
  notes: string[],
): Promise<void> {
  const demands: string[] = [];
  for (const { name, not_null, default: fallback } of columns) {
    if (!not_null || !theirs.columns.has(name) || theirs.columns.get(name)?.not_null) continue;
    const column = q(name);
    if (fallback !== null) await knex.raw(`update ${q(table)} set ${column} = ${fallback} where ${column} is null`);
    const empty = await rowsOf<{ id: number }>(knex, `select id from ${q(table)} where ${column} is null order by id`);
    if (empty.length === 0) demands.push(`alter column ${column} set not null`);
    else if (!served) notes.push(`${name} is missing in ${listed(empty.map(({ id }) => id))}`);
    else
      throw new CannotAdoptError(
        `The table ${table} has no ${name} in ${listed(empty.map(({ id }) => id))}. Fill it in or delete the rows, then run this again.`,
      );
  }
  await alter(knex, table, demands);
}

async function putIndex(knex: Knex, table: string, index: Index, theirs: Description, primary: boolean): Promise<void> {
  const standing = theirs.indexes.find(({ name }) => name === index.name);
  if (standing?.unique === index.unique && standing.method === index.method && !standing.constraint) return;
  if (index.unique) await refuseDuplicates(knex, table, index.columns);
  if (standing?.constraint) await knex.raw(`alter table ${q(table)} drop constraint ${q(standing.constraint)}`);
  else if (standing) await knex.raw(`drop index ${q(index.name)}`);
  await knex.raw(
    primary
      ? `alter table ${q(table)} add constraint ${q(index.name)} primary key (${index.columns})`
      : `create ${index.unique ? 'unique ' : ''}index ${q(index.name)} on ${q(table)} using ${index.method}`,
  );
}

async function refuseDuplicates(knex: Knex, table: string, column: string): Promise<void> {
  const found = await rowsOf<{ value: string; ids: number[] }>(
    knex,
    `select ${column}::text as value, array_agg(id order by id) as ids from ${q(table)}
     where ${column} is not null group by ${column} having count(*) > 1 order by 1 limit 20`,
  );
  if (found.length === 0) return;
  const each = found.map(({ value, ids }) => `${JSON.stringify(value)} (${listed(ids)})`).join(', ');
  throw new CannotAdoptError(
    `The table ${table} has the same ${column} more than once, and it must be unique: ${each}. Nothing was changed. ` +
      `Rename or delete all rows but one of each, for example with: update ${table} set ${column} = ${column} || '_' || id where id = ${found[0]?.ids.at(-1)}; then run this again.`,
  );
}

const SHOWN = 20;

/** Ids for a person to read. */
export function listed(ids: readonly number[], count = ids.length): string {
  const more = count > SHOWN ? ` and ${count - SHOWN} more` : '';
  return `${count === 1 ? 'row' : 'rows'} ${ids.slice(0, SHOWN).join(', ')}${more}`;
}

/** Rows of a query; every `?` of it is the same value. */
export async function rowsOf<Row>(knex: Knex, sql: string, value?: string): Promise<Row[]> {
  const bindings = value === undefined ? [] : [...sql.matchAll(/\?/g)].map(() => value);
  const { rows } = await knex.raw<{ rows: Row[] }>(sql, bindings);
  return rows;
}
