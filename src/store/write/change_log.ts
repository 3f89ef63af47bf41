import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import type { Change, Entity } from '../../domain/rows.js';
import { State } from '../../domain/state.js';
import { oldestKept } from '../history/compaction.js';
import type { CommittedRevision, ReplicaState } from '../replica_state.js';
import { type Head, readHead } from './head.js';
import type { ChangeAuthor } from './planned_write.js';
import { allRows, entities, fromLog, type Statement } from './rows.js';

interface LogRow {
  revision: number;
  nonce: string;
  entity: Entity;
  entity_id: number;
  before: Record<string, unknown> | null;
  after: Record<string, unknown> | null;
  actor: string;
  method: string;
  reason: string | null;
  created_at: Date;
  /** From which revision on the log is whole. */
  history_from: number;
}

/** How many revisions behind its first one a page of the log has at most. */
export const REVISIONS_PER_PAGE = 200;
const ROWS_PER_INSERT = 1000;

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

/** Brings the store's state up to what is newest, or loads it when there is none yet. */
export async function catchUp(store: ReplicaState): Promise<void> {
  const { knex } = store.database;
  if (store.state.identity === '') return store.replaceState(await loadState(knex));
  const head = await readHead(knex);
  const { revision, nonce, identity } = store.state;
  if (head.revision !== revision || head.nonce !== nonce || head.identity !== identity)
    await advance(store, knex, head);
}

/**
 * Brings the store's state up to `head` from the log. When the log does not lead
 * there, because the database was put back and its numbers were used again, or
 * because it was given a new identity, or because the log does not go back that
 * far, the state is read anew.
 */
export async function advance(store: ReplicaState, db: Knex, wanted: Head): Promise<void> {
  let head: Mark = wanted;
  for (;;) {
    // What is compared is what was seen before the log was read: a write may move the state meanwhile.
    const { state } = store;
    const seen: Mark = { revision: state.revision, nonce: state.nonce, identity: state.identity };
    const known = seen.identity === '' || seen.identity === head.identity;
    if (known && seen.revision === head.revision && seen.nonce === head.nonce) return;
    const rows = known ? await readLog(db, seen.revision) : [];
    const stands = seen.revision === 0 || rows.find((row) => row.revision === seen.revision)?.nonce === seen.nonce;
    if (known && stands && seen.revision >= head.revision && seen.revision > 0) return;
    const forgotten = known && seen.revision < (rows[0]?.history_from ?? (await oldestKept(db)));
    if (known && stands && !forgotten && seen.revision < head.revision) applyRows(store, state, rows);
    else head = await replaceState(store, db, state, head, forgotten);
  }
}

type Mark = Pick<Head, 'revision' | 'nonce' | 'identity'>;

/**
 * Reads the state anew, and gives a store that was put back a new identity: old etags must not fit it.
 * @param forgotten that the log does not lead here says nothing of the store: it does not go back that far.
 */
async function replaceState(
  store: ReplicaState,
  db: Knex,
  stale: State,
  head: Mark,
  forgotten: boolean,
): Promise<Mark> {
  if (stale.identity !== '' && stale.identity === head.identity && !forgotten)
    await db('store_state').where({ identity: head.identity }).update({ identity: randomUUID() });
  const fresh = db.isTransaction ? await readState(db) : await loadState(db);
  // Within a write the counter row is a revision ahead of the tables already, so the state is at `head`.
  if (db.isTransaction) Object.assign(fresh, { revision: head.revision, nonce: head.nonce });
  // Whoever has replaced it meanwhile has read it later than we began to.
  if (store.state === stale) store.replaceState(fresh);
  return { revision: fresh.revision, nonce: fresh.nonce, identity: fresh.identity };
}

function applyRows(store: ReplicaState, state: State, rows: readonly LogRow[]): void {
  for (const made of revisionsOf(rows)) store.apply(state, made);
}

/** Whole revisions out of the rows that they were entered as. */
function* revisionsOf(rows: readonly LogRow[]): Generator<CommittedRevision> {
  for (let from = 0; from < rows.length; ) {
    const first = rows[from] as LogRow;
    let end = from + 1;
    while (rows[end]?.revision === first.revision) end++;
    const { revision, nonce, actor, method, reason, created_at } = first;
    const cause = { actor, method, reason: reason ?? '', created_at };
    yield { revision, nonce, changes: rows.slice(from, end).map(changeOf), cause };
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
const readLog = (db: Knex, revision: number, last = revision + REVISIONS_PER_PAGE): Promise<LogRow[]> =>
  db('config_revisions')
    .select('revision', 'nonce', 'entity', 'entity_id', 'before', 'after', 'actor', 'method', 'reason', 'created_at')
    .select(db.raw('(select history_from from store_state) as history_from'))
    .whereBetween('revision', [revision, last])
    .orderBy(['revision', 'position']);

/** Revisions from the log, those that it still has; at most a page of them. */
export async function readRevisions(db: Knex, from: number, last: number): Promise<CommittedRevision[]> {
  return [...revisionsOf(await readLog(db, from, Math.min(last, from + REVISIONS_PER_PAGE)))];
}

/** The agent that a change is about; null for the catalogue and credentials. */
function agentOf(change: Change): number | null {
  if (change.entity === 'agent') return change.id;
  return change.entity === 'config' ? ((change.after ?? change.before)?.agent_id ?? null) : null;
}

/** One revision as it is entered into the log. */
export interface Revision {
  readonly write: ChangeAuthor;
  readonly revision: number;
  readonly nonce: string;
  readonly draft: { readonly changes: readonly Change[] };
}

/**
 * Enters the changes of revisions.
 * @param alongside a statement that is sent with the first of them: a round trip less while the counter row is held.
 */
export async function appendChanges(
  tx: Knex,
  now: Date,
  revisions: readonly Revision[],
  alongside?: Statement,
): Promise<void> {
  const rows = revisions.flatMap(({ write, revision, nonce, draft }) =>
    draft.changes.map((change, position) => ({
      revision,
      position,
      nonce,
      entity: change.entity,
      entity_id: change.id,
      agent_id: agentOf(change),
      action: change.before ? (change.after ? 'update' : 'delete') : 'create',
      before: change.before && JSON.stringify(change.before),
      after: change.after && JSON.stringify(change.after),
      actor: write.actor,
      method: write.method,
      request_id: write.requestId,
      reason: write.reason,
      created_at: now,
    })),
  );
  for (let at = 0; at < rows.length; at += ROWS_PER_INSERT) {
    const insert = tx('config_revisions').insert(rows.slice(at, at + ROWS_PER_INSERT));
    await (at === 0 && alongside ? insert.with('alongside', alongside) : insert);
  }
}
