import type { Knex } from 'knex';
import { altersChain, isResealed } from '../../domain/draft.js';
import type { Change, Entities, Entity } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { databaseFailure, isAboutValues, isLostConnection, takesNoWrites } from '../failure.js';
import type { ReplicaState } from '../replica_state.js';
import { type Outcome, type PlannedRevision, planBatch } from './batch_plan.js';
import { advance, appendChanges } from './change_log.js';
import { readHead } from './head.js';
import { readResponses, storeResponses } from './idempotency.js';
import type { Ready } from './planned_write.js';
import { type LockedCounter, lockCounter, moveCounter } from './revision_counter.js';
import { deleteRows, entities, moveChains, putRows, putTokens, type Statement } from './rows.js';

/**
 * Carries out writes in one transaction, each with a revision of its own, in
 * their order. The counter row is locked first, so that revisions are handed out
 * in the order in which they are committed and no reader of the log can miss one;
 * with it held, the log up to the revision before is final, so the state in
 * memory, brought up to it, is what the plans are made against, and no row is
 * read back. Never rejects; when it resolves, the local state has all of them.
 */
export async function commitTogether(store: ReplicaState, writes: readonly Ready[]): Promise<readonly Outcome[]> {
  try {
    return await commit(store, writes);
  } catch (error) {
    // What the database has against the values of one must not hit the others.
    if (writes.length > 1 && isAboutValues(error)) return await oneByOne(store, writes);
    return writes.map(() => ({ status: 'rejected', reason: databaseFailure(error) }));
  }
}

async function oneByOne(store: ReplicaState, writes: readonly Ready[]): Promise<readonly Outcome[]> {
  const outcomes: Outcome[] = [];
  for (const write of writes) outcomes.push(...(await commitTogether(store, [write])));
  return outcomes;
}

interface Batch {
  readonly now: Date;
  /** The state that it was planned against. */
  readonly state: State;
  readonly steps: readonly PlannedRevision[];
  readonly outcomes: readonly Outcome[];
}

async function commit(store: ReplicaState, writes: readonly Ready[]): Promise<readonly Outcome[]> {
  const stage = { committing: false, committed: false };
  try {
    const batch = await store.database.knex.transaction(async (tx) => {
      const prepared = await prepare(store, tx, writes);
      stage.committing = true;
      return prepared;
    });
    stage.committed = true;
    await applyCommitted(store, batch);
    return batch.outcomes;
  } catch (error) {
    if (error instanceof NothingToDo) return error.outcomes;
    if (takesNoWrites(error)) store.writesFail = true;
    // Whatever fails behind the commit, nobody may be told that nothing was written.
    if (stage.committed || (stage.committing && isLostConnection(error)))
      throw ServiceError.of('OUTCOME_UNKNOWN', {}, { cause: error });
    throw error;
  }
}

/** Ends a transaction that changes nothing: revisions have no empty entries. */
class NothingToDo extends Error {
  constructor(readonly outcomes: readonly Outcome[]) {
    super('nothing to do');
  }
}

/** Takes the counter, plans, and stores everything: only the commit is left then. */
async function prepare(store: ReplicaState, tx: Knex, writes: readonly Ready[]): Promise<Batch> {
  const turn = await lockCounter(tx, store.database.listenUrl === undefined ? undefined : store.mark);
  await advance(store, tx, { ...turn, revision: turn.revision - 1, nonce: turn.previous_nonce });
  const kept = await readResponses(
    tx,
    writes.map(({ write }) => write),
  );
  const { state } = store;
  const { steps, outcomes } = await planBatch(tx, state, turn, writes, kept);
  if (steps.length === 0) throw new NothingToDo(outcomes);
  await carryOut(tx, turn, steps);
  return { now: turn.now, state, steps, outcomes };
}

async function carryOut(tx: Knex, turn: LockedCounter, steps: readonly PlannedRevision[]): Promise<void> {
  const statements = [...rowStatements(tx, steps), ...keyStatements(tx, steps)];
  const last = statements.pop();
  for (const statement of statements) await statement;
  await appendChanges(tx, turn.now, steps, last);
  if (steps.length > 1) {
    const [before, newest] = steps.slice(-2) as [PlannedRevision, PlannedRevision];
    await moveCounter(tx, { revision: newest.revision, nonce: newest.nonce, previous_nonce: before.nonce });
  }
  const answers = steps.flatMap(({ write, revision, bytes, hash }) =>
    hash ? [{ entry: write, revision, bytes, hash }] : [],
  );
  await storeResponses(tx, turn.now, answers);
}

/** The state may have been read anew while the transaction ran; then the log leads to the revision. */
async function applyCommitted(store: ReplicaState, { now, state, steps }: Batch): Promise<void> {
  for (const { write, revision, nonce, draft } of steps) {
    const cause = { actor: write.actor, method: write.method, reason: write.reason ?? '', created_at: now };
    store.apply(state, { revision, nonce, changes: draft.changes, cause });
  }
  if (store.state.revision >= (steps.at(-1) as PlannedRevision).revision) return;
  const { knex } = store.database;
  await advance(store, knex, await readHead(knex));
}

/** Deletes first and children first, then stores parents before children; each row once, as the last step leaves it. */
function rowStatements(tx: Knex, steps: readonly PlannedRevision[]): Statement[] {
  const changes = netChanges(steps);
  const statements: Statement[] = [];
  for (const entity of entities.toReversed()) {
    const gone = changes.filter((change) => change.entity === entity && change.before && !change.after);
    if (gone.length > 0)
      statements.push(
        deleteRows(
          tx,
          entity,
          gone.map(({ id }) => id),
        ),
      );
  }
  const adopts = steps.some(({ draft }) => draft.adopts);
  for (const entity of entities) {
    const put = changes.filter((change) => change.entity === entity && change.after);
    const written = put.filter((change) => !isResealed(change)).map(rowAfter);
    statements.push(
      ...putRows(tx, entity, written, adopts),
      ...putRows(tx, entity, put.filter(isResealed).map(rowAfter), true),
    );
  }
  const moved = movedChains(steps);
  if (moved.size > 0) statements.push(moveChains(tx, moved));
  return statements;
}

/** What all steps together do to each row, in the order in which the rows are changed last. */
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

/** The agents whose chains were moved, with the revision that moved them last. */
function movedChains(steps: readonly PlannedRevision[]): ReadonlyMap<number, number> {
  const moved = new Map<number, number>();
  for (const { draft, revision } of steps)
    for (const change of draft.changes)
      if (change.entity === 'config' && altersChain(change.before, change.after))
        moved.set((change.after ?? change.before)?.agent_id as number, revision);
  return moved;
}

/** The ciphertexts of keys, each row's as the last step leaves it. */
function keyStatements(tx: Knex, steps: readonly PlannedRevision[]): Statement[] {
  const all = steps.flatMap(({ tokens }) => tokens);
  return (['config', 'credential'] as const).flatMap((entity) => {
    const last = new Map(all.filter((token) => token.entity === entity).map((token) => [token.id, token]));
    return last.size > 0 ? [putTokens(tx, entity, [...last.values()])] : [];
  });
}

const rowAfter = (change: Change) => change.after as Entities[Entity];
