import { randomUUID } from 'node:crypto';
import type { Knex } from 'knex';
import { bindingOf } from '../../domain/credential.js';
import type { Draft, IdSource } from '../../domain/draft.js';
import type { Entity } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { bodyHash, matchingResponse, type StoredResponses } from './idempotency.js';
import { DrawnIds, OutOfIds } from './ids.js';
import { type CheckedWrite, planOf, type Write } from './planned_write.js';
import type { LockedCounter } from './revision_counter.js';

/** The result of a write: the encoded response, or the error. */
export type Outcome = PromiseSettledResult<Uint8Array>;

/** One revision of a batch. */
export interface PlannedRevision {
  readonly write: Write<unknown>;
  readonly revision: number;
  readonly nonce: string;
  readonly draft: Draft;
  /** Ciphertexts, each bound to its row and to the origin of its provider; null: the key is deleted. */
  readonly ciphertexts: readonly {
    readonly entity: 'config' | 'credential';
    readonly id: number;
    readonly ciphertext: string | null;
  }[];
  readonly bytes: Uint8Array;
  /** Hash of the request, when it has an idempotency key and its response is stored. */
  readonly hash: Buffer | undefined;
}

export interface BatchPlan {
  readonly steps: readonly PlannedRevision[];
  /** One for each write, in order. */
  readonly outcomes: readonly Outcome[];
}

/**
 * Plans writes in order, with ids from the sequences. The dry runs determined how many ids are needed. If the state has
 * changed since and more are needed, all plans run again, which is safe because they are pure.
 */
export async function planBatch(
  tx: Knex,
  state: State,
  counter: LockedCounter,
  writes: readonly CheckedWrite[],
  stored: StoredResponses,
): Promise<BatchPlan> {
  const ids = new DrawnIds();
  for (const [entity, count] of sumIdCounts(writes)) await ids.draw(tx, entity, count);
  for (;;) {
    try {
      ids.rewind();
      // Planned changes are speculative: later plans see them, but nothing else does until the commit.
      return state.speculate(() => planEach(state, counter, writes, stored.copy(), ids));
    } catch (error) {
      if (!(error instanceof OutOfIds)) throw error;
      await ids.draw(tx, error.entity, ids.count(error.entity) + 1);
    }
  }
}

function sumIdCounts(writes: readonly CheckedWrite[]): ReadonlyMap<Entity, number> {
  const all = new Map<Entity, number>();
  for (const { idCounts } of writes)
    for (const [entity, count] of idCounts) all.set(entity, (all.get(entity) ?? 0) + count);
  return all;
}

function planEach(
  state: State,
  counter: LockedCounter,
  writes: readonly CheckedWrite[],
  stored: StoredResponses,
  ids: IdSource,
): BatchPlan {
  const steps: PlannedRevision[] = [];
  const outcomes = writes.map(({ write }): Outcome => {
    try {
      const hash = write.requestId ? bodyHash(counter.hash_key, write.body()) : undefined;
      const earlier = hash && stored.of(write);
      if (earlier) return { status: 'fulfilled', value: matchingResponse(write, earlier, hash) };
      const revision = counter.revision + steps.length;
      const { result, draft } = planOf(state, write, ids, revision, counter.now);
      if (draft.changes.length === 0) return { status: 'fulfilled', value: write.encodeResponse(result, revision - 1) };
      const nonce = steps.length === 0 ? counter.nonce : randomUUID();
      const step = {
        write,
        revision,
        nonce,
        draft,
        ciphertexts: encryptKeys(state, draft),
        bytes: write.encodeResponse(result, revision),
        hash,
      };
      state.apply(revision, nonce, draft.changes);
      steps.push(step);
      // A batch may contain the same request twice.
      if (hash) stored.put(write, { hash, bytes: step.bytes });
      return { status: 'fulfilled', value: step.bytes };
    } catch (reason) {
      if (reason instanceof OutOfIds) throw reason;
      return { status: 'rejected', reason };
    }
  });
  return { steps, outcomes };
}

const encryptKeys = (state: State, { keys, now }: Draft): PlannedRevision['ciphertexts'] =>
  keys.map(({ entity, row, key }) => ({
    entity,
    id: row.id,
    ciphertext: key === null ? null : state.encryption.writable.seal(key, bindingOf(state, entity, row), now),
  }));
