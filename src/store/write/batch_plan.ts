import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { bindingOf } from '../../domain/credential.js';
import type { Draft, IdSource } from '../../domain/draft.js';
import type { Entity } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { bodyHash, matchingResponse, type StoredResponses } from './idempotency.js';
import { DrawnIds, OutOfIds } from './ids.js';
import { planOf, type Ready, type Write } from './planned_write.js';
import type { LockedCounter } from './revision_counter.js';

/** What became of a write: the bytes of its answer, or why there is none. */
export type Outcome = PromiseSettledResult<Uint8Array>;

/** One revision of a batch. */
export interface PlannedRevision {
  readonly write: Write<unknown>;
  readonly revision: number;
  readonly nonce: string;
  readonly draft: Draft;
  /** Encrypted for their rows and the origins of their providers, and for no others; null: taken away. */
  readonly tokens: readonly {
    readonly entity: 'config' | 'credential';
    readonly id: number;
    readonly token: string | null;
  }[];
  readonly bytes: Uint8Array;
  /** Of the request, when its answer is to be kept. */
  readonly hash: Buffer | undefined;
}

export interface BatchPlan {
  readonly steps: readonly PlannedRevision[];
  /** One for each write, in order. */
  readonly outcomes: readonly Outcome[];
}

/**
 * Plans writes one behind the other, with real ids. The dry runs said how many
 * they take; when the state has moved since and more are needed, the plans, being
 * pure, are simply made again.
 */
export async function planBatch(
  tx: Knex,
  state: State,
  turn: LockedCounter,
  writes: readonly Ready[],
  kept: StoredResponses,
): Promise<BatchPlan> {
  const ids = new DrawnIds();
  for (const [entity, count] of sum(writes)) await ids.draw(tx, entity, count);
  for (;;) {
    try {
      ids.rewind();
      // What is planned is not committed: each plan sees those before it, and nobody else does.
      return state.speculate(() => planEach(state, turn, writes, kept.copy(), ids));
    } catch (error) {
      if (!(error instanceof OutOfIds)) throw error;
      await ids.draw(tx, error.entity, ids.count(error.entity) + 1);
    }
  }
}

function sum(writes: readonly Ready[]): ReadonlyMap<Entity, number> {
  const all = new Map<Entity, number>();
  for (const { wanted } of writes)
    for (const [entity, count] of wanted) all.set(entity, (all.get(entity) ?? 0) + count);
  return all;
}

function planEach(
  state: State,
  turn: LockedCounter,
  writes: readonly Ready[],
  answers: StoredResponses,
  ids: IdSource,
): BatchPlan {
  const steps: PlannedRevision[] = [];
  const outcomes = writes.map(({ write }): Outcome => {
    try {
      const hash = write.requestId ? bodyHash(turn.hash_key, write.body()) : undefined;
      const given = hash && answers.of(write);
      if (given) return { status: 'fulfilled', value: matchingResponse(write, given, hash) };
      const revision = turn.revision + steps.length;
      const { result, draft } = planOf(state, write, ids, revision, turn.now);
      if (draft.changes.length === 0) return { status: 'fulfilled', value: write.answer(result, revision - 1) };
      const nonce = steps.length === 0 ? turn.nonce : randomUUID();
      const step = {
        write,
        revision,
        nonce,
        draft,
        tokens: seal(state, draft),
        bytes: write.answer(result, revision),
        hash,
      };
      state.apply(revision, nonce, draft.changes);
      steps.push(step);
      // Two of a batch may be one request, sent twice.
      if (hash) answers.put(write, { hash, bytes: step.bytes });
      return { status: 'fulfilled', value: step.bytes };
    } catch (reason) {
      if (reason instanceof OutOfIds) throw reason;
      return { status: 'rejected', reason };
    }
  });
  return { steps, outcomes };
}

const seal = (state: State, { keys, now }: Draft): PlannedRevision['tokens'] =>
  keys.map(({ entity, row, key }) => ({
    entity,
    id: row.id,
    token: key === null ? null : state.vault.writable.seal(key, bindingOf(state, entity, row), now),
  }));
