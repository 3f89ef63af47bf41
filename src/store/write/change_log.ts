import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import type { Change, Entity } from '../../domain/rows.js';
import { State } from '../../domain/state.js';
import { limits } from '../../limits.js';
import { oldestKept } from '../history/compaction.js';
import type { CommittedRevision, ReplicaState } from '../replica_state.js';
import { type Head, readHead } from './head.js';
import type { ChangeAuthor } from './planned_write.js';
import { allRows, entities, fromLog, type Statement, toLog } from './rows.js';

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
  /** The first revision that the log contains completely. */
  history_from: number;
}

/** Maximum number of revisions of a page of the log. */
export const REVISIONS_PER_PAGE = 200;
/** Bytes that a row of the log counts in addition to its JSON. */
const ROW_BYTES = 200;
const ROWS_PER_INSERT = 1000;

/** Reads the whole configuration at one revision. */
export async function loadState(db: Knex): Promise<State> {
  // One snapshot over all tables, so that all rows are of the same revision.
  return db.transaction((tx) => readState(tx), { isolationLevel: 'repeatable read', readOnly: true });
}

async function readState(tx: Knex): Promise<State> {
  const state = new State();
  const { revision, nonce, identity } = await readHead(tx);
  Object.assign(state, { revision, nonce, identity });
  for (const entity of entities) for await (const row of allRows(tx, entity)) state.load(entity, row);
  return state;
}

/** Updates the store's state to the newest revision, or loads it when it is not loaded yet. */
export async function catchUp(store: ReplicaState): Promise<void> {
  const { knex } = store.database;
  if (store.state.identity === '') return store.replaceState(await loadState(knex));
  const head = await readHead(knex);
  if (head.read_only) store.writesFail = true;
  const { revision, nonce, identity } = store.state;
  if (head.revision !== revision || head.nonce !== nonce || head.identity !== identity)
    await advance(store, knex, head);
}

/**
 * Updates the store's state to `target` from the log. The state is reloaded when the log does not contain the revisions
 * in between: the database was restored and its revision numbers are reused, it has a new identity, or the revisions
 * have been compacted.
 * @throws StateOutdatedError when the state must be reloaded and `db` is a transaction.
 */
export async function advance(store: ReplicaState, db: Knex, target: Head): Promise<void> {
  let head: Position = target;
  for (;;) {
    // The position is copied before the log is read, because a write may change the state meanwhile.
    const { state } = store;
    const seen: Position = { revision: state.revision, nonce: state.nonce, identity: state.identity };
    const sameStore = seen.identity === '' || seen.identity === head.identity;
    if (sameStore && seen.revision === head.revision && seen.nonce === head.nonce) return;
    const rows = sameStore ? await readLog(db, seen.revision) : [];
    const isContinuous =
      seen.revision === 0 || rows.find((row) => row.revision === seen.revision)?.nonce === seen.nonce;
    if (sameStore && isContinuous && seen.revision >= head.revision && seen.revision > 0) return;
    const isCompacted = sameStore && seen.revision < (rows[0]?.history_from ?? (await oldestKept(db)));
    if (sameStore && isContinuous && !isCompacted && seen.revision < head.revision) applyRows(store, state, rows);
    else head = await replaceState(store, db, state, head, isCompacted);
  }
}

/** A transaction cannot reload the state: if it is rolled back, the store does not get the new identity. */
export class StateOutdatedError extends Error {
  override readonly name = 'StateOutdatedError';
}

type Position = Pick<Head, 'revision' | 'nonce' | 'identity'>;

/**
 * Reloads the state. A store that was restored gets a new identity, so that earlier etags do not match.
 * @param isCompacted the revisions of the state have been compacted, so the store was not necessarily restored.
 */
async function replaceState(
  store: ReplicaState,
  db: Knex,
  stale: State,
  head: Position,
  isCompacted: boolean,
): Promise<Position> {
  if (db.isTransaction) throw new StateOutdatedError('the state must be reloaded');
  if (stale.identity !== '' && stale.identity === head.identity && !isCompacted)
    await db('store_state').where({ identity: head.identity }).update({ identity: randomUUID() });
  const fresh = await loadState(db);
  // If the state has been replaced meanwhile, the replacement was read later than this one and is kept.
  if (store.state === stale) store.replaceState(fresh);
  return { revision: fresh.revision, nonce: fresh.nonce, identity: fresh.identity };
}

function applyRows(store: ReplicaState, state: State, rows: readonly LogRow[]): void {
  for (const revision of revisionsOf(rows)) store.apply(state, revision);
}

/** Groups rows of the log by revision. */
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

/**
 * The first row of a revision, which has its nonce, and a page of the whole revisions after it, up to `last`. One
 * statement, so that a compaction or a restore cannot take place between two parts of a page.
 */
const readLog = (db: Knex, after: number, last = Number.MAX_SAFE_INTEGER): Promise<LogRow[]> =>
  db('config_revisions')
    .select('revision', 'nonce', 'entity', 'entity_id', 'before', 'after', 'actor', 'method', 'reason', 'created_at')
    .select(db.raw('(select history_from from store_state) as history_from'))
    .where('revision', '>=', after)
    .where((either) => either.where('revision', '>', after).orWhere('position', 0))
    .whereRaw(`revision <= coalesce((${LAST_OF_PAGE}), ?)`, [
      after,
      Math.min(last, after + REVISIONS_PER_PAGE),
      limits.readBytes,
      after,
    ])
    .orderBy(['revision', 'position']);

/** The last revision of a page: the first one with which the page has the maximum number of bytes. */
const LAST_OF_PAGE = `
  select max(revision) from (
    select revision, sum(bytes) over (order by revision) - bytes as preceding from (
      select revision, sum(${ROW_BYTES} + coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0)) as bytes
      from config_revisions where revision > ? and revision <= ? group by revision) as sizes) as revisions
  where preceding < ?`;

/** Reads revisions that the log still contains, at most one page. */
export async function readRevisions(db: Knex, from: number, last: number): Promise<CommittedRevision[]> {
  const rows = await readLog(db, from - 1, last);
  return [...revisionsOf(rows.filter(({ revision }) => revision >= from))];
}

/** The agent of a change; null for the catalogue, credentials and budgets that are not for one agent. */
function agentOf(change: Change): number | null {
  if (change.entity === 'agent') return change.id;
  if (change.entity !== 'config' && change.entity !== 'budget' && change.entity !== 'experiment') return null;
  return (change.after ?? change.before)?.agent_id ?? null;
}

/** One revision to append to the log. */
export interface Revision {
  readonly write: ChangeAuthor;
  readonly revision: number;
  readonly nonce: string;
  readonly draft: { readonly changes: readonly Change[] };
}

/** The statements that append the changes of revisions. */
export function appendChanges(tx: Knex, now: Date, revisions: readonly Revision[]): Statement[] {
  const rows = revisions.flatMap(({ write, revision, nonce, draft }) =>
    draft.changes.map((change, position) => ({
      revision,
      position,
      nonce,
      entity: change.entity,
      entity_id: change.id,
      agent_id: agentOf(change),
      action: change.before ? (change.after ? 'update' : 'delete') : 'create',
      before: toLog(change.before),
      after: toLog(change.after),
      actor: write.actor,
      method: write.method,
      request_id: write.requestId,
      reason: write.reason,
      created_at: now,
    })),
  );
  const statements: Statement[] = [];
  for (let at = 0; at < rows.length; at += ROWS_PER_INSERT)
    statements.push(tx('config_revisions').insert(rows.slice(at, at + ROWS_PER_INSERT)));
  return statements;
}
