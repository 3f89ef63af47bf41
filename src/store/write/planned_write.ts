import { CountedIds, Draft, type IdSource } from '../../domain/draft.js';
import type { Entity } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
/**
 * What a write wants, as a function of the configuration that it finds: it
 * throws a ServiceError with all that is wrong, or fills the draft. It must be
 * pure, because it runs more than once: dry, before anything is locked, and then
 * against the state that the counter row guards.
 */
export type Plan<T> = (state: State, draft: Draft) => T;

/** A write with what the log and the answers need to know of it. */
export interface Write<T> extends ChangeAuthor {
  readonly plan: Plan<T>;
  /** The answer as it goes out and is kept for its request id. */
  readonly answer: (result: T, revision: number) => Uint8Array;
  /** The bytes of the request, which a request id stands for. */
  readonly body: () => Uint8Array;
  /** Aborts when nobody waits for the answer any more; a write that has begun is finished all the same. */
  readonly signal?: AbortSignal;
}

/** A write that was planned dry: how many new ids it takes, and how many changes it makes. */
export interface Ready<T = unknown> {
  readonly write: Write<T>;
  readonly wanted: ReadonlyMap<Entity, number>;
  readonly changes: number;
}

/** Makes the plan of a write; without more, a dry one. */
export function planOf<T>(state: State, write: Write<T>, ids: IdSource, revision = 0, now = new Date()) {
  const draft = new Draft(revision, now, ids);
  return { result: write.plan(state, draft), draft };
}

/** Makes the plan dry; throws what is wrong with the write. */
export function dryRun<T>(state: State, write: Write<T>): Ready<T> {
  const counted = new CountedIds();
  const { draft } = planOf(state, write, counted);
  return { write, wanted: counted.counts, changes: draft.changes.length };
}

/** Who wrote what and why; the same for all rows of a revision. */
export interface ChangeAuthor {
  readonly actor: string;
  readonly method: string;
  readonly requestId: string | undefined;
  readonly reason: string | undefined;
}
