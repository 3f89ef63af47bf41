import type { Knex } from 'knex';
import { CHECKS } from '../../../migrations/0005_chain_columns.js';
import { DEFAULT_MODEL_CHECKS } from '../../../migrations/0015_optional_default_model.js';
import { describeRows } from '../../../migrations/convert_table.js';
import { columnsOf, hasTable, isImportedTable } from '../../../migrations/import_tables.js';
import { REBOUND, UNBOUND } from '../../domain/encryption_state.js';
import type { State } from '../../domain/state.js';
import type { Store } from '../store.js';
import type { Plan } from '../write/planned_write.js';
import { transact } from '../write/transact.js';

/*
 * Import of a database of the original Python system. The migrations convert its tables. This module adds the rows to
 * the log and reports findings about them.
 */

/** Report about an imported database for an operator. */
export interface DatabaseImport {
  /** The imported tables. */
  readonly tables: readonly string[];
  /** Changes that the import made and problems that remain, one sentence each. */
  readonly findings: readonly string[];
}

/** Reads the report. Also works for a database that was not imported or is not migrated completely. */
export async function readImport(db: Knex): Promise<DatabaseImport> {
  if (!(await hasTable(db, 'adopted_tables'))) return { tables: [], findings: [] };
  const imported: { name: string; notes: string[] }[] = await db('adopted_tables').orderBy('name');
  const tables = imported.map(({ name }) => name);
  const notes = imported.flatMap(({ name, notes }) => notes.map((note) => `${name}: ${note}`));
  return { tables, findings: [...notes, ...(await violations(db, tables)), ...(await unboundKeys(db))] };
}

const SHOWN = 20;

/**
 * The checks of a table in every version of the schema. `hasUnvalidatedCheck` finds by name which of them exist now.
 */
const checksOf = (table: string): readonly [string, string][] => [
  ...Object.entries(CHECKS[table] ?? {}),
  ...(table === 'agent_configs' ? Object.entries(DEFAULT_MODEL_CHECKS) : []),
];

/** Findings for rows that violate a check now. */
async function violations(db: Knex, tables: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const table of tables)
    for (const [name, predicate] of checksOf(table)) {
      if (!(await hasUnvalidatedCheck(db, name))) continue;
      const rows: { id: number; count: string | number }[] = await db(table)
        .select('id', db.raw('count(*) over () as count'))
        .whereRaw(`not (${predicate})`)
        .orderBy('id')
        .limit(SHOWN);
      const ids = rows.map(({ id }) => id);
      const rule = predicate.replace(/\s+/g, ' ');
      if (rows[0])
        found.push(`${table}: ${describeRows(ids, Number(rows[0].count))} must be corrected to satisfy: ${rule}`);
    }
  return found;
}

const hasUnvalidatedCheck = async (db: Knex, name: string): Promise<boolean> =>
  (await db('pg_constraint').select('conname').where({ conname: name, convalidated: false }).limit(1)).length > 0;

/** Findings for ciphertexts that are not bound to their rows yet. */
async function unboundKeys(db: Knex): Promise<string[]> {
  if (!(await columnsOf(db, 'agent_llm_configs')).includes('key_id')) return [];
  const ids: number[] = await db('agent_llm_configs').where({ key_id: UNBOUND }).orderBy('id').pluck('id');
  if (ids.length === 0) return [];
  const isBindingDone =
    (await hasTable(db, 'store_seeds')) && (await db('store_seeds').where({ name: REBOUND }).limit(1)).length > 0;
  return [
    isBindingDone
      ? `agent_llm_configs: the API keys of ${describeRows(ids)} cannot be read. ENCRYPTION_KEY did not list their encryption key when the keys of this database were imported. Store these API keys again`
      : `agent_llm_configs: the API keys of ${describeRows(ids)} become readable when the service starts with every encryption key of the Python system in ENCRYPTION_KEY`,
  ];
}

/**
 * Whether the database was imported. The migration that converts a table records this in the same transaction, so an
 * interrupted import is detected too.
 */
export async function isImported(db: Knex): Promise<boolean> {
  return await isImportedTable(db, 'agent_configs');
}

/**
 * Adds the imported rows that have no revision to the log, as one revision, and makes their provider names canonical.
 * Rows in the log have a revision, so a repeated call does not add them again.
 * @returns the number of rows.
 */
export async function importRows(store: Store): Promise<number> {
  if (rowsWithoutRevision(store.state).next().done) return 0;
  let imported = 0;
  await transact(store, {
    actor: 'agentllm',
    method: 'database/import',
    requestId: undefined,
    reason: 'rows that the database had before agentllm',
    plan: importPlan,
    encodeResponse: (count) => {
      imported = count;
      return new Uint8Array();
    },
    body: () => new Uint8Array(),
  });
  return imported;
}

const importPlan: Plan<number> = (state, draft) => {
  const canonical = (name: string) => state.provider(name.trim())?.name ?? name;
  for (const { entity, row } of rowsWithoutRevision(state))
    if (entity === 'agent') draft.addImported('agent', { ...row, llm_provider: canonical(row.llm_provider) });
    else {
      const fallback_provider = row.fallback_provider && canonical(row.fallback_provider);
      const key_revision = row.key_id === null ? null : (row.key_revision ?? draft.revision);
      draft.addImported('config', { ...row, provider: canonical(row.provider), fallback_provider, key_revision });
    }
  return draft.changes.length;
};

function* rowsWithoutRevision(state: State) {
  for (const row of state.agentsInOrder.after()) if (row.revision === 0) yield { entity: 'agent', row } as const;
  for (const row of state.configsInOrder.after()) if (row.revision === 0) yield { entity: 'config', row } as const;
}
