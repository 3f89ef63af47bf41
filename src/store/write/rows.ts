import type { Knex } from 'knex';
import { newAgent } from '../../domain/agent.js';
import { newBudget } from '../../domain/budget.js';
import { newModel, newProvider } from '../../domain/catalogue.js';
import { newConfig } from '../../domain/config.js';
import { newCredential } from '../../domain/credential.js';
import { defaultWireApi } from '../../domain/dialects.js';
import { newExperiment } from '../../domain/experiments/experiment.js';
import type { Entities, Entity, Price, Provider } from '../../domain/rows.js';
import { newTokenRow } from '../../domain/token.js';

/** The table of an entity. The fields of a row have the names of the columns. */
interface Table {
  readonly name: string;
  readonly columns: readonly string[];
  /** The values of columns that an older version of this program did not log. */
  readonly defaults: object;
  /** Columns of type jsonb. */
  readonly json: readonly string[];
  /** Columns of type timestamptz. */
  readonly times: readonly string[];
  /** Columns of type bigint whose values can exceed 2^53; they are text in the log. */
  readonly amounts?: readonly string[];
}

const TIMES = ['created_at', 'updated_at'];

const priceColumns: Record<keyof Price, true> = {
  id: true,
  model_id: true,
  valid_from: true,
  input_micro_usd_per_million: true,
  cached_input_micro_usd_per_million: true,
  cache_write_micro_usd_per_million: true,
  output_micro_usd_per_million: true,
  reasoning_micro_usd_per_million: true,
  cache_write_long_micro_usd_per_million: true,
  tiers: true,
  windows: true,
  source: true,
  created_at: true,
  revision: true,
};

/** The tables of the configuration, in the order in which rows can be inserted. */
export const tables: Readonly<Record<Entity, Table>> = {
  agent: { name: 'agent_configs', columns: Object.keys(newAgent()), defaults: newAgent(), json: [], times: TIMES },
  credential: {
    name: 'llm_credentials',
    columns: Object.keys(newCredential()),
    defaults: newCredential(),
    json: [],
    times: TIMES,
  },
  config: {
    name: 'agent_llm_configs',
    columns: Object.keys(newConfig(0, 0)),
    defaults: newConfig(0, 0),
    json: ['extra_params'],
    times: TIMES,
  },
  provider: {
    name: 'llm_providers',
    columns: Object.keys(newProvider()),
    defaults: newProvider(),
    json: ['aliases', 'api_key_env_vars', 'parameter_rules'],
    times: TIMES,
  },
  model: {
    name: 'llm_models',
    columns: Object.keys(newModel()),
    defaults: newModel(),
    json: ['parameter_rules'],
    times: [...TIMES, 'as_of', 'retires_at'],
  },
  price: {
    name: 'llm_prices',
    columns: Object.keys(priceColumns),
    defaults: { cache_write_long_micro_usd_per_million: null, tiers: [], windows: [] },
    json: ['tiers', 'windows'],
    times: ['valid_from', 'created_at'],
  },
  token: {
    name: 'api_tokens',
    columns: Object.keys(newTokenRow()),
    defaults: newTokenRow(),
    json: ['agents'],
    times: [...TIMES, 'expires_at', 'revoked_at'],
  },
  budget: {
    name: 'llm_budgets',
    columns: Object.keys(newBudget()),
    defaults: newBudget(),
    json: [],
    times: TIMES,
    amounts: ['limit_nano_usd'],
  },
  experiment: {
    name: 'llm_experiments',
    columns: Object.keys(newExperiment()),
    defaults: newExperiment(),
    json: ['variants', 'primary_metric', 'guardrails'],
    times: [...TIMES, 'started_at', 'ended_at', 'running_since'],
  },
};
export const entities = Object.keys(tables) as readonly Entity[];

/** Converts a row for its table. JSON values become text, because pg would convert a list to an array literal. */
export function toColumns<E extends Entity>(entity: E, row: Entities[E]): Record<string, unknown> {
  const columns: Record<string, unknown> = { ...row };
  for (const column of tables[entity].json)
    if (columns[column] !== null) columns[column] = JSON.stringify(columns[column]);
  for (const column of tables[entity].amounts ?? []) columns[column] = String(columns[column]);
  return columns;
}

/** Converts a row of the log, in which times are text. Columns that an older version did not log have their defaults. */
export function fromLog<E extends Entity>(entity: E, logged: object | null): Entities[E] | undefined {
  if (!logged) return undefined;
  const row: Record<string, unknown> = { ...tables[entity].defaults, ...logged };
  for (const column of tables[entity].times)
    if (row[column] !== null && row[column] !== undefined) row[column] = new Date(row[column] as string);
  readAmounts(entity, row);
  // Releases before this column logged providers without it.
  if (entity === 'provider' && !('wire_api' in logged))
    row['wire_api'] = defaultWireApi((row as unknown as Provider).dialect);
  return row as unknown as Entities[E];
}

/** A row as JSON for the log. JSON has no integers of 64 bits, so amounts are text. */
export const toLog = (row: object | undefined): string | undefined =>
  row && JSON.stringify(row, (_, value) => (typeof value === 'bigint' ? String(value) : value));

function readAmounts(entity: Entity, row: Record<string, unknown>): void {
  for (const column of tables[entity].amounts ?? []) row[column] = BigInt(row[column] as string);
}

/** Reads all rows of an entity in chunks by id, so that no second copy of a table is in memory. */
export async function* allRows<E extends Entity>(db: Knex, entity: E): AsyncGenerator<Entities[E]> {
  const { name, columns, amounts = [] } = tables[entity];
  const selected = columns.map((column) =>
    amounts.includes(column) ? db.raw('??::text as ??', [column, column]) : column,
  );
  let last = 0;
  for (;;) {
    const rows: Entities[E][] = await db(name).select(selected).where('id', '>', last).orderBy('id').limit(CHUNK);
    if (amounts.length > 0) for (const row of rows) readAmounts(entity, row as never);
    yield* rows;
    if (rows.length < CHUNK) return;
    last = (rows.at(-1) as Entities[E]).id;
  }
}
const CHUNK = 5000;

/** Draws ids from the sequence of an entity's table. */
export async function drawIds(db: Knex, entity: Entity, count: number): Promise<number[]> {
  const { name } = tables[entity];
  const query = db
    .select(db.raw('nextval(pg_get_serial_sequence(?, ?))::int as id', [name, 'id']))
    .from(db.raw('generate_series(1, ?)', [count]));
  const rows: { id: number }[] = await query;
  return rows.map((row) => row.id);
}

/** A statement of a write that is not sent yet, so that the transaction can combine it with others. */
export type Statement = Knex.QueryBuilder | Knex.Raw;

/**
 * Inserts or updates complete rows. Columns that are not part of a row keep their values.
 * @param keepTimes keep updated_at of existing rows: times of an imported database are more precise than a Date.
 */
export function putRows<E extends Entity>(
  db: Knex,
  entity: E,
  rows: readonly Entities[E][],
  keepTimes = false,
): Statement[] {
  const { name, columns } = tables[entity];
  const unchanged = ['id', 'created_at', ...(keepTimes ? ['updated_at'] : [])];
  const changing = columns.filter((column) => !unchanged.includes(column));
  const statements: Statement[] = [];
  for (let at = 0; at < rows.length; at += PUT_CHUNK) {
    const chunk = rows.slice(at, at + PUT_CHUNK).map((row) => toColumns(entity, row));
    statements.push(db(name).insert(chunk).onConflict('id').merge(changing));
  }
  return statements;
}
/** A statement can have 65 535 parameters; the widest row has 27. */
const PUT_CHUNK = 1000;

/** A ciphertext with its row, its encryption key, and the revision at which it was stored. */
export interface StoredCiphertext {
  readonly id: number;
  readonly ciphertext: string;
  readonly key_id: string | null;
  readonly key_revision: number | null;
}

/** Stores or deletes ciphertexts. Their column is the only one that is not part of a row in memory. */
export function putCiphertexts(
  db: Knex,
  entity: 'config' | 'credential',
  stored: readonly { readonly id: number; readonly ciphertext: string | null }[],
): Statement {
  return db.raw(
    `update ?? as t set api_key_encrypted = v.ciphertext
       from unnest(?::int[], ?::text[]) as v (id, ciphertext) where t.id = v.id`,
    [tables[entity].name, stored.map(({ id }) => id), stored.map(({ ciphertext }) => ciphertext) as string[]],
  );
}

/** The ciphertext of one row, or undefined. */
export async function readCiphertext(
  db: Knex,
  entity: 'config' | 'credential',
  id: number,
): Promise<string | undefined> {
  const [row] = await db(tables[entity].name).select('api_key_encrypted as ciphertext').where({ id });
  return row?.ciphertext ?? undefined;
}

/** The ciphertexts of some rows; empty, and so not decryptable, for a row without one. */
export const readCiphertexts = (
  db: Knex,
  entity: 'config' | 'credential',
  ids: readonly number[],
): Promise<StoredCiphertext[]> =>
  db(tables[entity].name)
    .select('id', 'key_id', 'key_revision', db.raw(`coalesce(api_key_encrypted, '') as ciphertext`))
    .whereIn('id', ids);

/** Reads all ciphertexts of an entity in chunks by id. */
export async function* allCiphertexts(
  db: Knex,
  entity: 'config' | 'credential',
): AsyncGenerator<readonly StoredCiphertext[]> {
  let last = 0;
  for (;;) {
    const rows: StoredCiphertext[] = await db(tables[entity].name)
      .select('id', 'api_key_encrypted as ciphertext', 'key_id', 'key_revision')
      .whereNotNull('api_key_encrypted')
      .where('id', '>', last)
      .orderBy('id')
      .limit(CIPHERTEXT_CHUNK);
    if (rows.length > 0) yield rows;
    if (rows.length < CIPHERTEXT_CHUNK) return;
    last = (rows.at(-1) as StoredCiphertext).id;
  }
}
/** Decryption takes 8 µs per ciphertext and blocks the event loop. */
const CIPHERTEXT_CHUNK = 500;

export const deleteRows = (db: Knex, entity: Entity, ids: readonly number[]): Statement =>
  db(tables[entity].name).whereIn('id', ids).delete();

/** Stores for each agent the revision that changed its chain. */
export const putChainRevisions = (db: Knex, revisions: ReadonlyMap<number, number>): Statement =>
  db.raw(
    `update ?? as t set chain_revision = v.revision
       from unnest(?::int[], ?::bigint[]) as v (id, revision) where t.id = v.id`,
    [tables.agent.name, [...revisions.keys()], [...revisions.values()]],
  );
