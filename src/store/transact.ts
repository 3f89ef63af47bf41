import { randomBytes, randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { bindingOf } from '../domain/credential.js';
import { agentsWithMovedChain, CountedIds, Draft, type IdSource, type KeyChange } from '../domain/draft.js';
import type { Change, Entities, Entity } from '../domain/rows.js';
import type { State } from '../domain/state.js';
import { ServiceError } from '../errors.js';
import { limits } from '../limits.js';
import { bodyHash, keepAnswer, keptAnswer } from './answers.js';
import { databaseFailure, isLostConnection, takesNoWrites } from './failure.js';
import { DrawnIds, OutOfIds } from './ids.js';
import { CHANNEL } from './listen.js';
import { advance, type Entry, enter, type Head, readHead } from './log.js';
import type { Store } from './store.js';
import { deleteRows, entities, putRows, putTokens, type Statement, tables } from './tables.js';

/**
 * What a write wants, as a function of the configuration that it finds: it
 * throws a ServiceError with all that is wrong, or fills the draft. It must be
 * pure, because it runs more than once: dry, before anything is locked, and then
 * against the state that the counter row guards.
 */
export type Plan<T> = (state: State, draft: Draft) => T;

/** A write with what the log and the answers need to know of it. */
export interface Write<T> extends Entry {
  readonly plan: Plan<T>;
  /** The answer as it goes out and is kept for its request id. */
  readonly answer: (result: T, revision: number) => Uint8Array;
  /** The bytes of the request, which a request id stands for. */
  readonly body: () => Uint8Array;
  /** Aborts when nobody waits for the answer any more; a write that has begun is finished all the same. */
  readonly signal?: AbortSignal;
}

interface Turn extends Head {
  readonly previous_nonce: string;
  readonly now: Date;
}

/** Does all the checks of a write and answers what it would do, without writing anything. */
export async function rehearse<T>(store: Store, write: Write<T>): Promise<Uint8Array> {
  try {
    await lookAhead(store, write);
    return write.answer(plan(store.state, write, new CountedIds()).result, store.state.revision);
  } catch (error) {
    throw databaseFailure(error);
  }
}

/**
 * Carries out a write: the one way in which configuration changes. The counter
 * row is locked first, so that revisions are handed out in the order in which
 * they are committed and no reader of the log can miss one; with it held, the
 * log up to the revision before is final, so the state in memory, brought up to
 * it, is what the plan is made against, and no row is read back. Returns when
 * the local state has the revision.
 */
export async function transact<T>(store: Store, write: Write<T>): Promise<Uint8Array> {
  const stage = { committing: false, committed: false };
  try {
    const look = await lookAhead(store, write);
    if (look.kept) return look.kept;
    return await store.writers.take(async () => {
      const done = await store.database.knex.transaction(async (tx) => {
        const turned = await takeTurn(store, tx, write, look.wanted);
        stage.committing = true;
        return turned;
      });
      stage.committed = true;
      await done.apply();
      return done.bytes;
    }, write.signal);
  } catch (error) {
    if (error instanceof NothingToDo) return error.bytes;
    if (takesNoWrites(error)) store.writesFail = true;
    // Whatever fails behind the commit, nobody may be told that nothing was written.
    if (stage.committed || (stage.committing && isLostConnection(error)))
      throw ServiceError.of('OUTCOME_UNKNOWN', {}, { cause: error });
    throw databaseFailure(error);
  }
}

interface Look {
  /** The answer that was kept for the request id, when there is one already. */
  readonly kept?: Uint8Array;
  /** How many new ids the plan will take. */
  readonly wanted: ReadonlyMap<Entity, number>;
}

/**
 * Makes the plan dry, so that bad requests end without a lock. What seems wrong
 * may be right at a later revision that another replica has written, and a
 * retry finds its own first try in the way, so before a request is refused the
 * state is brought up to date and the kept answers are looked through.
 */
async function lookAhead<T>(store: Store, write: Write<T>): Promise<Look> {
  try {
    return { wanted: dryRun(store.state, write) };
  } catch (error) {
    if (!(error instanceof ServiceError)) throw error;
    const kept = await lookBack(store, write).catch((away) => {
      // Without the database, what is wrong with the fields themselves is still worth saying.
      throw error.reason === 'INVALID_FIELDS' ? error : away;
    });
    return kept ? { kept, wanted: new Map() } : { wanted: dryRun(store.state, write) };
  }
}

/** Brings the state up to date; returns the answer that was kept for the write's request id, if any. */
async function lookBack<T>(store: Store, write: Write<T>): Promise<Uint8Array | undefined> {
  const { knex } = store.database;
  const head = await readHead(knex);
  await advance(store, knex, head);
  return write.requestId ? keptAnswer(knex, write, bodyHash(head.hash_key, write.body())) : undefined;
}

function dryRun<T>(state: State, write: Write<T>): ReadonlyMap<Entity, number> {
  const counted = new CountedIds();
  plan(state, write, counted);
  return counted.counts;
}

/** Ends a transaction that changes nothing: revisions have no empty entries. */
class NothingToDo extends Error {
  constructor(readonly bytes: Uint8Array) {
    super('nothing to do');
  }
}

interface Done {
  readonly bytes: Uint8Array;
  /** Brings the local state to the revision, once it is committed. */
  readonly apply: () => Promise<void>;
}

async function takeTurn<T>(
  store: Store,
  tx: Knex,
  write: Write<T>,
  wanted: ReadonlyMap<Entity, number>,
): Promise<Done> {
  const turn = await lockCounter(tx, store.database.listenUrl === undefined ? undefined : store.mark);
  await advance(store, tx, { ...turn, revision: turn.revision - 1, nonce: turn.previous_nonce });
  const hash = write.requestId ? bodyHash(turn.hash_key, write.body()) : undefined;
  const kept = hash && (await keptAnswer(tx, write, hash));
  if (kept) throw new NothingToDo(kept);
  const { state } = store;
  const { result, draft } = await planWithIds(tx, state, write, turn, wanted);
  if (draft.changes.length === 0) throw new NothingToDo(write.answer(result, turn.revision - 1));
  const statements = [...rowStatements(tx, draft), ...keyStatements(tx, state, draft)];
  const last = statements.pop();
  for (const statement of statements) await statement;
  await enter(tx, turn, turn.now, write, draft.changes, last);
  const bytes = write.answer(result, turn.revision);
  if (hash) await keepAnswer(tx, write, hash, bytes, turn);
  return { bytes, apply: () => applyCommitted(store, state, turn, draft.changes) };
}

/** The state may have been read anew while the transaction ran; then the log leads to the revision. */
async function applyCommitted(store: Store, state: State, turn: Turn, changes: readonly Change[]): Promise<void> {
  store.apply(state, turn.revision, turn.nonce, changes);
  if (store.state.revision >= turn.revision) return;
  const { knex } = store.database;
  await advance(store, knex, await readHead(knex));
}

/**
 * The first statement of a transaction that writes. Timeouts are local to it:
 * a pooler may hand the session on. The notification goes out with the commit.
 * @param writer who others hear that has written; undefined where nobody is told.
 */
export async function begin(tx: Knex, writer?: string): Promise<void> {
  await settings(tx, writer);
}

function settings(tx: Knex, writer: string | undefined): Knex.Raw {
  const timeouts = [limits.lockTimeoutMs, limits.statementTimeoutMs, limits.idleInTransactionTimeoutMs];
  return tx.raw(
    `select set_config('lock_timeout', ?, true) as lock, set_config('statement_timeout', ?, true) as statement,
            set_config('idle_in_transaction_session_timeout', ?, true) as idle
            ${writer === undefined ? '' : ', pg_notify(?, ?) as notified'}`,
    [...timeouts.map(String), ...(writer === undefined ? [] : [CHANNEL, writer])],
  );
}

/**
 * Begins as `begin` does, and in the same round trip takes the counter row. The
 * settings stand before the row is waited for: the update has to have their row
 * first. What bounds this one statement is the timeout of the lock.
 */
async function lockCounter(tx: Knex, writer: string | undefined): Promise<Turn> {
  const { rows } = await tx.raw<{ rows: Turn[] }>(
    `with begun as materialized (?)
     update store_state set revision = revision + 1, previous_nonce = nonce, nonce = ?
       from begun
       returning revision, nonce, previous_nonce, identity, hash_key,
                 date_trunc('milliseconds', clock_timestamp()) as now`,
    [settings(tx, writer), randomUUID()],
  );
  const [turn] = rows;
  if (!turn) throw new Error('store_state has lost its row; restore the database from a backup');
  return turn;
}

/**
 * Rejects while the database takes no writes; changes nothing. It needs more room
 * than there may be left in a page: on a full disk a smaller write goes through.
 */
export async function tryWrite(db: Knex): Promise<void> {
  const tx = await db.transaction();
  try {
    await begin(tx);
    await tx('store_state').update({ revision: tx.ref('revision') });
    const bytes = randomBytes(PROBE_BYTES);
    const probe = { caller: '', method: 'probe', request_id: randomUUID(), body_hash: bytes, response: bytes };
    await tx('idempotent_answers').insert({ ...probe, revision: 0, created_at: tx.fn.now() });
  } finally {
    await tx.rollback();
  }
}

const PROBE_BYTES = 65_536;

function plan<T>(state: State, write: Write<T>, ids: IdSource, revision = 0, now = new Date()) {
  const draft = new Draft(revision, now, ids);
  return { result: write.plan(state, draft), draft };
}

/**
 * Plans with real ids. The dry run said how many it takes; when the state has
 * moved since and more are needed, the plan, being pure, is simply made again.
 */
async function planWithIds<T>(
  tx: Knex,
  state: State,
  write: Write<T>,
  turn: Turn,
  wanted: ReadonlyMap<Entity, number>,
) {
  const ids = new DrawnIds();
  for (const [entity, count] of wanted) await ids.draw(tx, entity, count);
  for (;;) {
    try {
      ids.rewind();
      return plan(state, write, ids, turn.revision, turn.now);
    } catch (error) {
      if (!(error instanceof OutOfIds)) throw error;
      await ids.draw(tx, error.entity, ids.count(error.entity) + 1);
    }
  }
}

/** Deletes first and children first, then stores parents before children. */
function rowStatements(tx: Knex, { changes, adopts, revision }: Draft): Statement[] {
  const statements: Statement[] = [];
  for (const entity of entities.toReversed()) {
    const gone = changes.filter((change) => change.entity === entity && !change.after).map(({ id }) => id);
    if (gone.length > 0) statements.push(deleteRows(tx, entity, gone));
  }
  for (const entity of entities) {
    const rows = changes.filter((change) => change.entity === entity && change.after).map(rowAfter);
    statements.push(...putRows(tx, entity, rows, adopts));
  }
  const moved = [...agentsWithMovedChain(changes)];
  if (moved.length > 0)
    statements.push(tx(tables.agent.name).whereIn('id', moved).update({ chain_revision: revision }));
  return statements;
}

/** Encrypts each key for its row and its provider's origin, and for no other. */
function keyStatements(tx: Knex, state: State, { keys, now }: Draft): Statement[] {
  const seal = ({ entity, row, key }: KeyChange) => ({
    id: row.id,
    token: key === null ? null : state.vault.writable.seal(key, bindingOf(state, entity, row), now),
  });
  return (['config', 'credential'] as const).flatMap((entity) => {
    const tokens = keys.filter((change) => change.entity === entity).map(seal);
    return tokens.length > 0 ? [putTokens(tx, entity, tokens)] : [];
  });
}

const rowAfter = (change: Change) => change.after as Entities[Entity];
