import type { Knex } from 'knex';
import { CHECKS } from '../../migrations/0005_chain_columns.js';
import { DEFAULT_MODEL_CHECKS } from '../../migrations/0015_optional_default_model.js';
import { listed } from '../../migrations/take_over.js';
import type { State } from '../domain/state.js';
import { UNBOUND } from '../domain/vault.js';
import type { Store } from './store.js';
import { transact } from './transact.js';
import type { Plan } from './write.js';

/*
 * What is particular to a database that the Python system made. Its tables are
 * taken over by the migrations; what is left is to tell the log of its rows, and
 * people of what is wrong with them.
 */

/** What a person has to know of an adopted database. */
export interface Adoption {
  /** The tables that were there before ours. */
  readonly tables: readonly string[];
  /** What is or was wrong with them, one sentence each; what is put right is not said again. */
  readonly findings: readonly string[];
}

/** Reads only; also in a database that was not adopted, or is not migrated to the end. */
export async function readAdoption(db: Knex): Promise<Adoption> {
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

/** Tokens that wait for the key they were made with. */
async function unboundKeys(db: Knex): Promise<string[]> {
  if (!(await db.schema.hasColumn('agent_llm_configs', 'key_id'))) return [];
  const ids: number[] = await db('agent_llm_configs').where({ key_id: UNBOUND }).orderBy('id').pluck('id');
  if (ids.length === 0) return [];
  return [
    `agent_llm_configs: the API keys of ${listed(ids)} are readable once the service has started with the ENCRYPTION_KEY of the Python system`,
  ];
}

/**
 * Enters the rows in the log that it does not know, all under one revision, with
 * the names of their providers made canonical. Every row that goes through the
 * log has a revision, so what is done is not done again.
 * @returns how many they were.
 */
export async function adoptRows(store: Store): Promise<number> {
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
      draft.adopt('config', { ...one.row, provider: canonical(one.row.provider), fallback_provider });
    }
  return draft.changes.length;
};

function* rowsWithoutRevision(state: State) {
  for (const row of state.agentsInOrder.after()) if (row.revision === 0) yield { entity: 'agent', row } as const;
  for (const row of state.configsInOrder.after()) if (row.revision === 0) yield { entity: 'config', row } as const;
}
