import type { Knex } from 'knex';
import { CHECKS } from '../../../migrations/0005_chain_columns.js';
import { DEFAULT_MODEL_CHECKS } from '../../../migrations/0015_optional_default_model.js';
import { isAdopted } from '../../../migrations/adopt.js';
import { listed } from '../../../migrations/take_over.js';
import type { State } from '../../domain/state.js';
import { REBOUND, UNBOUND } from '../../domain/vault.js';
import type { Store } from '../store.js';
import type { Plan } from '../write/planned_write.js';
import { transact } from '../write/transact.js';

/*
 * What is particular to a database that the Python system made. The migrations
 * take over its tables. What remains is to enter its rows in the log, and to
 * report what is wrong with them.
 */

/** What an operator has to know of an imported database. */
export interface DatabaseImport {
  /** The tables that were there before ours. */
  readonly tables: readonly string[];
  /** What is or was wrong with them, one sentence each; what is put right is not said again. */
  readonly findings: readonly string[];
}

/** Reads only; also in a database that was not adopted, or is not migrated to the end. */
export async function readImport(db: Knex): Promise<DatabaseImport> {
  if (!(await db.schema.hasTable('adopted_tables'))) return { tables: [], findings: [] };
  const adopted: { name: string; notes: string[] }[] = await db('adopted_tables').orderBy('name');
  const tables = adopted.map(({ name }) => name);
  const notes = adopted.flatMap(({ name, notes }) => notes.map((note) => `${name}: ${note}`));
  return { tables, findings: [...notes, ...(await violations(db, tables)), ...(await unboundKeys(db))] };
}

const SHOWN = 20;

/** What a table is or was held to; those that stand are looked up by their names. */
const checksOf = (table: string): readonly [string, string][] => [
  ...Object.entries(CHECKS[table] ?? {}),
  ...(table === 'agent_configs' ? Object.entries(DEFAULT_MODEL_CHECKS) : []),
];

/** Rows that break a check now. */
async function violations(db: Knex, tables: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const table of tables)
    for (const [name, predicate] of checksOf(table)) {
      if (!(await isChecked(db, name))) continue;
      const rows: { id: number; count: string | number }[] = await db(table)
        .select('id', db.raw('count(*) over () as count'))
        .whereRaw(`not (${predicate})`)
        .orderBy('id')
        .limit(SHOWN);
      const ids = rows.map(({ id }) => id);
      const rule = predicate.replace(/\s+/g, ' ');
      if (rows[0]) found.push(`${table}: ${listed(ids, Number(rows[0].count))} must be corrected to keep to: ${rule}`);
    }
  return found;
}

const isChecked = async (db: Knex, name: string): Promise<boolean> =>
  (await db('pg_constraint').select('conname').where({ conname: name, convalidated: false }).limit(1)).length > 0;

/** Ciphertexts that are still as the Python system wrote them. */
async function unboundKeys(db: Knex): Promise<string[]> {
  if (!(await db.schema.hasColumn('agent_llm_configs', 'key_id'))) return [];
  const ids: number[] = await db('agent_llm_configs').where({ key_id: UNBOUND }).orderBy('id').pluck('id');
  if (ids.length === 0) return [];
  const isOver =
    (await db.schema.hasTable('store_seeds')) && (await db('store_seeds').where({ name: REBOUND }).limit(1)).length > 0;
  return [
    isOver
      ? `agent_llm_configs: the API keys of ${listed(ids)} cannot be read. ENCRYPTION_KEY did not list their encryption key when the keys of this database were imported. Store these API keys again`
      : `agent_llm_configs: the API keys of ${listed(ids)} become readable when the service starts with every encryption key of the Python system in ENCRYPTION_KEY`,
  ];
}

/**
 * Whether the database was imported. The migration that takes over a table also
 * notes that it did, in the same transaction, so an import that was interrupted
 * is still known as one.
 */
export async function isImported(db: Knex): Promise<boolean> {
  return await isAdopted(db, 'agent_configs');
}

/**
 * Enters the rows in the log that it does not know, all under one revision, with
 * the names of their providers made canonical. Every row that goes through the
 * log has a revision, so what is done is not done again.
 * @returns how many they were.
 */
export async function importRows(store: Store): Promise<number> {
  if (rowsWithoutRevision(store.state).next().done) return 0;
  let entered = 0;
  await transact(store, {
    actor: 'agentllm',
    method: 'adopt',
    requestId: undefined,
    reason: 'rows that the database had before agentllm',
    plan: enterRows,
    answer: (count) => {
      entered = count;
      return new Uint8Array();
    },
    body: () => new Uint8Array(),
  });
  return entered;
}

const enterRows: Plan<number> = (state, draft) => {
  const canonical = (name: string) => state.provider(name.trim())?.name ?? name;
  for (const one of rowsWithoutRevision(state))
    if (one.entity === 'agent') draft.adopt('agent', { ...one.row, llm_provider: canonical(one.row.llm_provider) });
    else {
      const fallback_provider = one.row.fallback_provider && canonical(one.row.fallback_provider);
      const key_revision = one.row.key_id === null ? null : (one.row.key_revision ?? draft.revision);
      draft.adopt('config', { ...one.row, provider: canonical(one.row.provider), fallback_provider, key_revision });
    }
  return draft.changes.length;
};

function* rowsWithoutRevision(state: State) {
  for (const row of state.agentsInOrder.after()) if (row.revision === 0) yield { entity: 'agent', row } as const;
  for (const row of state.configsInOrder.after()) if (row.revision === 0) yield { entity: 'config', row } as const;
}
