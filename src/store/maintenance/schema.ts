import type pg from 'pg';
import { quoteIdentifier } from '../../../migrations/convert_table.js';
import { StartError } from '../../errors.js';

/** The schema of the store. */
export interface ChosenSchema {
  readonly schema: string;
  /** `server_version_num`: 150004 is 15.4. */
  readonly serverVersion: number;
}

interface Facts {
  readonly version: number;
  readonly encoding: string;
  readonly role: string;
  readonly database: string;
  readonly path: string;
}

const FACTS = `
  select current_setting('server_version_num')::int as version, current_setting('server_encoding') as encoding,
    current_user as role, current_database() as database, current_setting('search_path') as path`;

/** The transaction ends when the connection is closed. */
const BEGIN = `begin isolation level read committed read only; select set_config('statement_timeout', '0', true),
  set_config('idle_in_transaction_session_timeout', '0', true)`;

/**
 * Chooses the schema once, before anything is read. Every connection, or every transaction through a
 * pooler, then sets it as search_path, so a later change of the role's search_path has no effect.
 * @param requested the parameter `schema` of the URL; undefined: the first existing schema of the search_path.
 * @throws StartError with the remedy when the schema cannot be used.
 */
export async function chooseSchema(client: pg.Client, requested: string | undefined): Promise<ChosenSchema> {
  await client.query(BEGIN);
  const { rows } = await client.query<Facts>(FACTS);
  const facts = rows[0] as Facts;
  refuseEncoding(facts);
  const path = requested === undefined ? pathOf(facts) : [requested];
  const existing = await schemasOf(client, path);
  const first = path.map((name) => existing.get(name)).find((schema) => schema !== undefined);
  if (!first) throw new StartError(missingMessage(facts, path, requested));
  if (!first.usable)
    throw new StartError(
      `Role "${facts.role}" may not use schema "${first.name}" of database "${facts.database}". Run: grant usage, create on schema ${quoted(first.name)} to ${quoted(facts.role)}`,
    );
  if (requested === undefined) await refuseOtherStore(client, facts, first.name);
  return { schema: first.name, serverVersion: facts.version };
}

function refuseEncoding({ encoding, database }: Facts): void {
  if (encoding === 'UTF8') return;
  throw new StartError(
    `Database "${database}" has the encoding ${encoding}, and agentllm needs UTF8. Create another one: create database <name> encoding 'UTF8' template template0`,
  );
}

/** The schema names of search_path. A name that contains a comma is not supported. */
function pathOf({ path, role }: Facts): string[] {
  const names = path.split(',').map((name) => name.trim());
  return names
    .map((name) => (/^".*"$/.test(name) ? name.slice(1, -1).replaceAll('""', '"') : name))
    .map((name) => (name === '$user' ? role : name))
    .filter((name) => name !== '' && !/^(pg_|information_schema$)/.test(name));
}

async function schemasOf(client: pg.Client, names: readonly string[]) {
  const { rows } = await client.query<{ name: string; usable: boolean }>(
    `select nspname as name, has_schema_privilege(oid, 'usage') as usable from pg_namespace where nspname = any($1)`,
    [names],
  );
  return new Map(rows.map((row) => [row.name, row]));
}

function missingMessage(
  { role, database, path }: Facts,
  names: readonly string[],
  requested: string | undefined,
): string {
  const create = `create schema ${quoted(names[0] ?? 'agentllm')} authorization ${quoted(role)}`;
  if (requested !== undefined) return `Database "${database}" has no schema "${requested}". Run: ${create}`;
  return `No schema of the search_path of role "${role}" (${path || 'empty'}) exists in database "${database}". Run: ${create}; or name a schema with the parameter schema of DATABASE_URL`;
}

/** Throws when another schema has a store: a changed search_path would otherwise create a second, empty store. */
async function refuseOtherStore(client: pg.Client, { role, database }: Facts, schema: string): Promise<void> {
  const { rows } = await client.query<{ schema: string }>(
    `select n.nspname as schema from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relname = 'store_state' and c.relkind = 'r'
       and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
     order by n.nspname = $1 desc, 1`,
    [schema],
  );
  const [found] = rows;
  if (!found || found.schema === schema) return;
  throw new StartError(
    `Database "${database}" has a store in schema "${found.schema}", but the search_path of role "${role}" leads to schema "${schema}", which has none. Add the parameter schema to DATABASE_URL: schema=${found.schema} for that store, schema=${schema} for a new one`,
  );
}

/** An identifier for a statement that an operator runs: in quotes only where SQL needs them. */
export const quoted = (name: string): string => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : quoteIdentifier(name));
