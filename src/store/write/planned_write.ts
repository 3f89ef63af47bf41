import { CountedIds, Draft, type IdSource } from '../../domain/draft.js';
import type { Entity } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';

/**
 * The changes of a write as a function of the current configuration. It fills the draft, or throws a ServiceError with
 * all problems of the request. It must be pure, because it runs more than once: first as a dry run without a lock, then
 * against the state while the counter row is locked.
 */
export type Plan<T> = (state: State, draft: Draft) => T;

/** A write, with its plan, its response and the data for the log. */
export interface Write<T> extends ChangeAuthor {
  readonly plan: Plan<T>;
  /** Encodes the response, which is sent and stored under the request id. */
  readonly encodeResponse: (result: T, revision: number) => Uint8Array;
  /** The encoded request, which is compared when a request id is reused. */
  readonly body: () => Uint8Array;
  /** Aborts when the caller no longer waits. A write that has begun is completed nevertheless. */
  readonly signal?: AbortSignal;
}

/** A write after its dry run: the number of new ids per entity and the number of changes. */
export interface CheckedWrite<T = unknown> {
  readonly write: Write<T>;
  readonly idCounts: ReadonlyMap<Entity, number>;
  readonly changes: number;
}

/** Runs the plan of a write. The default revision and time are for a dry run. */
export function planOf<T>(state: State, write: Write<T>, ids: IdSource, revision = 0, now = new Date()) {
  const draft = new Draft(revision, now, ids);
  return { result: write.plan(state, draft), draft };
}

/** Runs the plan without writing; throws the problems of the request. */
export function dryRun<T>(state: State, write: Write<T>): CheckedWrite<T> {
  const counted = new CountedIds();
  const { draft } = planOf(state, write, counted);
  return { write, idCounts: counted.counts, changes: draft.changes.length };
}

/** The author, method and reason of a write; the same for all rows of a revision. */
export interface ChangeAuthor {
  readonly actor: string;
  readonly method: string;
  readonly requestId: string | undefined;
  readonly reason: string | undefined;
}
