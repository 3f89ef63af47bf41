import type { Knex } from 'knex';
import { altersChain, isReencrypted } from '../../domain/draft.js';
import type { Change, Entities, Entity } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { databaseFailure, isAboutValues, isLostConnection, rejectsWrites } from '../failure.js';
import type { ReplicaState } from '../replica_state.js';
import { committing } from '../session.js';
import { type Outcome, type PlannedRevision, planBatch } from './batch_plan.js';
import { advance, appendChanges, catchUp, StateOutdatedError } from './change_log.js';
import { readHead } from './head.js';
import { readResponses, storeResponses } from './idempotency.js';
import type { CheckedWrite } from './planned_write.js';
import { lockCounter, setCounter } from './revision_counter.js';
import { deleteRows, entities, putChainRevisions, putCiphertexts, putRows, type Statement } from './rows.js';

/**
 * Executes writes in one transaction, in order, each as a separate revision. The counter row is locked first, so
 * revisions are assigned in commit order and no reader of the log can miss one. While it is locked, the log up to the
 * previous revision is final. The plans therefore run against the state in memory, updated to that revision, and no row
 * is read back. Never rejects. When it resolves, the local state contains all the revisions.
 */
export async function commitTogether(
  store: ReplicaState,
  writes: readonly CheckedWrite[],
): Promise<readonly Outcome[]> {
  try {
    return await commitCurrent(store, writes);
  } catch (error) {
    // Values of one write that the database rejects must not fail the other writes.
    if (writes.length > 1 && isAboutValues(error)) return await oneByOne(store, writes);
    return writes.map(() => ({ status: 'rejected', reason: databaseFailure(error) }));
  }
}

async function oneByOne(store: ReplicaState, writes: readonly CheckedWrite[]): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const write of writes) outcomes.push(...(await commitTogether(store, [write])));
  return outcomes;
}

const ATTEMPTS = 3;

/** Commits, and reloads the state in between when it does not belong to the database, for example after a restore. */
async function commitCurrent(store: ReplicaState, writes: readonly CheckedWrite[]): Promise<readonly Outcome[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await commit(store, writes);
    } catch (error) {
      if (!(error instanceof StateOutdatedError)) throw error;
      if (attempt === ATTEMPTS) throw ServiceError.of('WRITE_CONFLICT', {}, { cause: error });
      await catchUp(store);
    }
  }
}

interface Batch {
  readonly now: Date;
  /** The state that the plans ran against. */
  readonly state: State;
  readonly steps: readonly PlannedRevision[];
  readonly outcomes: readonly Outcome[];
}

async function commit(store: ReplicaState, writes: readonly CheckedWrite[]): Promise<readonly Outcome[]> {
  const stage: Stage = { committing: false, committed: false };
  try {
    const batch = await store.database.knex.transaction(async (tx) => {
      const planned = await plan(store, tx, writes);
      await execute(tx, planned, stage);
      stage.committing = true;
      return planned;
    });
    stage.committed = true;
    await applyCommitted(store, batch);
    return batch.outcomes;
  } catch (error) {
    if (error instanceof NothingToDo) return error.outcomes;
    if (rejectsWrites(error)) store.writesFail = true;
    // After the commit has been sent, the write may have succeeded in spite of the error.
    if (stage.committed || (stage.committing && isLostConnection(error)))
      throw ServiceError.of('OUTCOME_UNKNOWN', {}, { cause: error });
    throw error;
  }
}

interface Stage {
  /** Whether the commit may have been executed. */
  committing: boolean;
  committed: boolean;
}

/** Ends a transaction without changes, so that it creates no empty revision. */
class NothingToDo extends Error {
  constructor(readonly outcomes: readonly Outcome[]) {
    super('nothing to do');
  }
}

/** Locks the counter and plans the writes. */
async function plan(store: ReplicaState, tx: Knex, writes: readonly CheckedWrite[]): Promise<Batch> {
  const locking = lockCounter(tx, store.database.listenTarget === undefined ? undefined : store.replicaId);
  // Sent together with the lock, and executed after it.
  const reading = readResponses(
    tx,
    writes.map(({ write }) => write),
  );
  const [counter, stored] = await Promise.all([locking, reading]);
  await advance(store, tx, { ...counter, revision: counter.revision - 1, nonce: counter.previous_nonce });
  const { state } = store;
  const { steps, outcomes } = await planBatch(tx, state, counter, writes, stored);
  if (steps.length === 0) throw new NothingToDo(outcomes);
  return { now: counter.now, state, steps, outcomes };
}

/** Stores everything. On PostgreSQL the commit is sent with the statements. */
async function execute(tx: Knex, { now, steps }: Batch, stage: Stage): Promise<void> {
  const responses = steps.flatMap(({ write, revision, bytes, hash }) =>
    hash ? [{ entry: write, revision, bytes, hash }] : [],
  );
  const statements = [
    ...rowStatements(tx, steps),
    ...keyStatements(tx, steps),
    ...appendChanges(tx, now, steps),
    ...counterStatements(tx, steps),
    ...storeResponses(tx, now, responses),
  ];
  await runTogether(statements, stage);
}

/**
 * Sends the last statements of a transaction without waiting for each result, which takes one round trip while the
 * counter row is locked. They are executed in order; those after one that fails fail too, and its error is thrown.
 */
async function runTogether(statements: readonly Statement[], stage: Stage): Promise<void> {
  const { statements: last, together } = committing(statements as readonly Knex.QueryBuilder[]);
  const results = await Promise.allSettled(last);
  const failed = results.find((result) => result.status === 'rejected');
  if (!failed) return;
  stage.committing = together.commitSent && !together.rejected;
  throw failed.reason;
}

/** Sets the counter, which was moved to the first revision when it was locked, to the last one. */
function counterStatements(tx: Knex, steps: readonly PlannedRevision[]): Statement[] {
  if (steps.length === 1) return [];
  const [before, newest] = steps.slice(-2) as [PlannedRevision, PlannedRevision];
  return [setCounter(tx, { revision: newest.revision, nonce: newest.nonce, previous_nonce: before.nonce })];
}

/** Applies a committed batch. If the state was reloaded during the transaction, it is updated from the log instead. */
async function applyCommitted(store: ReplicaState, { now, state, steps }: Batch): Promise<void> {
  for (const { write, revision, nonce, draft } of steps) {
    const cause = { actor: write.actor, method: write.method, reason: write.reason ?? '', created_at: now };
    store.apply(state, { revision, nonce, changes: draft.changes, cause });
  }
  if (store.state.revision >= (steps.at(-1) as PlannedRevision).revision) return;
  const { knex } = store.database;
  await advance(store, knex, await readHead(knex));
}

/**
 * Deletes children before parents, then stores parents before children. Each row is written once, in its final form.
 */
function rowStatements(tx: Knex, steps: readonly PlannedRevision[]): Statement[] {
  const changes = netChanges(steps);
  const statements: Statement[] = [];
  for (const entity of entities.toReversed()) {
    const deleted = changes.filter((change) => change.entity === entity && change.before && !change.after);
    if (deleted.length > 0)
      statements.push(
        deleteRows(
          tx,
          entity,
          deleted.map(({ id }) => id),
        ),
      );
  }
  const isImport = steps.some(({ draft }) => draft.isImport);
  for (const entity of entities) {
    const put = changes.filter((change) => change.entity === entity && change.after);
    const written = put.filter((change) => !isReencrypted(change)).map(rowAfter);
    statements.push(
      ...putRows(tx, entity, written, isImport),
      ...putRows(tx, entity, put.filter(isReencrypted).map(rowAfter), true),
    );
  }
  const chains = changedChains(steps);
  if (chains.size > 0) statements.push(putChainRevisions(tx, chains));
  return statements;
}

/** The combined change of all steps per row, ordered by the last change of each row. */
function netChanges(steps: readonly PlannedRevision[]): Change[] {
  const net = new Map<string, Change>();
  for (const { draft } of steps)
    for (const change of draft.changes) {
      const key = `${change.entity} ${change.id}`;
      const earlier = net.get(key);
      net.delete(key);
      net.set(key, earlier ? ({ ...change, before: earlier.before } as Change) : change);
    }
  return [...net.values()];
}

/** The agents whose chains changed, with the last revision that changed them. */
function changedChains(steps: readonly PlannedRevision[]): ReadonlyMap<number, number> {
  const revisions = new Map<number, number>();
  for (const { draft, revision } of steps)
    for (const change of draft.changes)
      if (change.entity === 'config' && altersChain(change.before, change.after))
        revisions.set((change.after ?? change.before)?.agent_id as number, revision);
  return revisions;
}

/** Stores the final ciphertext of each row. */
function keyStatements(tx: Knex, steps: readonly PlannedRevision[]): Statement[] {
  const all = steps.flatMap(({ ciphertexts }) => ciphertexts);
  return (['config', 'credential'] as const).flatMap((entity) => {
    const last = new Map(all.filter((one) => one.entity === entity).map((one) => [one.id, one]));
    return last.size > 0 ? [putCiphertexts(tx, entity, [...last.values()])] : [];
  });
}

const rowAfter = (change: Change) => change.after as Entities[Entity];
