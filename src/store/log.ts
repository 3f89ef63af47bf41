import type { Knex } from 'knex';
import type { Change, Entity } from '../domain/rows.js';
import { State } from '../domain/state.js';
import type { Store } from './store.js';
import { allRows, entities, fromLog } from './tables.js';

/** The counter row: which store this is and how far it has come. */
export interface Head {
  readonly revision: number;
  readonly nonce: string;
  readonly identity: string;
  /** Key of the hashes by which requests are told apart. */
  readonly hash_key: Buffer;
}

interface LogRow {
  revision: number;
  nonce: string;
  entity: Entity;
  entity_id: number;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
}

/** Who wrote what and why; the same for all rows of a revision. */
export interface Entry {
  readonly actor: string;
  readonly method: string;
  readonly requestId: string | undefined;
  readonly reason: string | undefined;
}

const REVISIONS_PER_PAGE = 200;
const ROWS_PER_INSERT = 1000;

export async function readHead(db: Knex): Promise<Head> {
  const [head] = await db<Head>('store_state').select('revision', 'nonce', 'identity', 'hash_key');
  if (!head) throw new Error('store_state has lost its row; restore the database from a backup');
  return head;
}

/** Reads the whole configuration at one revision. */
export async function loadState(db: Knex): Promise<State> {
  // One snapshot over all tables: without it, two of them could be of different revisions.
  return db.transaction((tx) => readState(tx), { isolationLevel: 'repeatable read', readOnly: true });
}

async function readState(tx: Knex): Promise<State> {
  const state = new State();
  const { revision, nonce, identity } = await readHead(tx);
  Object.assign(state, { revision, nonce, identity });
  for (const entity of entities) for await (const row of allRows(tx, entity)) state.load(entity, row);
  return state;
}

/**
 * Brings the store's state up to `head` from the log. When the log no longer
 * leads there (the database was put back, and its numbers were used again), the
 * state is read anew.
 */
export async function advance(store: Store, db: Knex, head: Head): Promise<void> {
  while (store.state.revision < head.revision) {
    const state = store.state;
    const rows = await readLog(db, state.revision);
    const follows = state.revision === 0 || rows.find((row) => row.revision === state.revision)?.nonce === state.nonce;
    if (!follows) return replaceState(store, db, head);
    applyRows(store, state, rows);
  }
  if (store.state.revision === head.revision && store.state.nonce !== head.nonce) await replaceState(store, db, head);
  if (store.state.revision > head.revision && !(await isAhead(store, db))) await replaceState(store, db, head);
}

/** Whether the state has only moved on since the head was read. */
async function isAhead(store: Store, db: Knex): Promise<boolean> {
  const { revision, nonce } = store.state;
  const rows: Pick<LogRow, 'nonce'>[] = await db('config_revisions').select('nonce').where({ revision, position: 0 });
  return rows[0]?.nonce === nonce;
}

/** Within a write the counter row is a revision ahead of the tables already, so the state is at `head`. */
async function replaceState(store: Store, db: Knex, { revision, nonce }: Head): Promise<void> {
  const state = db.isTransaction ? Object.assign(await readState(db), { revision, nonce }) : await loadState(db);
  store.replaceState(state);
}

function applyRows(store: Store, state: State, rows: readonly LogRow[]): void {
  for (let from = 0; from < rows.length; ) {
    const { revision, nonce } = rows[from] as LogRow;
    const next = rows.findIndex((row, at) => at > from && row.revision !== revision);
    const end = next < 0 ? rows.length : next;
    store.apply(state, revision, nonce, rows.slice(from, end).map(changeOf));
    from = end;
  }
}

const changeOf = (row: LogRow): Change =>
  ({
    entity: row.entity,
    id: row.entity_id,
    before: fromLog(row.entity, row.before),
    after: fromLog(row.entity, row.after),
  }) as Change;

/** The rows of a revision and of those behind it, whole revisions only. */
const readLog = (db: Knex, revision: number): Promise<LogRow[]> =>
  db<LogRow>('config_revisions')
    .select('revision', 'nonce', 'entity', 'entity_id', 'before', 'after')
    .whereBetween('revision', [revision, revision + REVISIONS_PER_PAGE])
    .orderBy(['revision', 'position']);

/** Enters the changes of one revision. */
export async function enter(tx: Knex, head: Head, now: Date, entry: Entry, changes: readonly Change[]): Promise<void> {
  const rows = changes.map((change, position) => ({
    revision: head.revision,
    position,
    nonce: head.nonce,
    entity: change.entity,
    entity_id: change.id,
    action: change.before ? (change.after ? 'update' : 'delete') : 'create',
    before: change.before && JSON.stringify(change.before),
    after: change.after && JSON.stringify(change.after),
    actor: entry.actor,
    method: entry.method,
    request_id: entry.requestId,
    reason: entry.reason,
    created_at: now,
  }));
  for (let at = 0; at < rows.length; at += ROWS_PER_INSERT)
    await tx('config_revisions').insert(rows.slice(at, at + ROWS_PER_INSERT));
}
