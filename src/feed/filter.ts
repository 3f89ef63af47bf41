import { createHash } from 'node:crypto';
import type { State } from '../domain/state.js';
import type { AgentMaterial, ChangeEvent } from './change_event.js';

/** The agents that a watch selects. Catalogue changes concern every watch. */
export interface Filter {
  readonly all: boolean;
  readonly names: ReadonlySet<string>;
  readonly ids: ReadonlySet<number>;
  /**
   * An agent that is watched by id is sent only at revisions at which it has one of these names; undefined: all names.
   */
  readonly scope: ReadonlySet<string> | undefined;
  /** Equal for requests for the same agents, in any order. Part of the resume token. */
  readonly hash: string;
  /** Equal for filters that match the same changes. Encoded messages are cached under it. */
  readonly key: string;
}

/** @param scope names of the agents that the caller's token permits; undefined: all. */
export function filterOf(
  all: boolean,
  names: ReadonlySet<string>,
  ids: ReadonlySet<number>,
  scope?: ReadonlySet<string>,
): Filter {
  const parts = all ? ['*'] : [...[...names].map((name) => `=${name}`), ...[...ids].map((id) => `#${id}`)].sort();
  const hash = hashOf(parts);
  // Names are checked when the watch begins and cannot change. An agent watched by id can be renamed to a name that
  // the scope does not include.
  const effectiveScope = ids.size > 0 ? scope : undefined;
  return {
    all,
    names,
    ids,
    scope: effectiveScope,
    hash,
    key: effectiveScope ? `${hash} ${hashOf([...effectiveScope].sort())}` : hash,
  };
}

const hashOf = (parts: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('base64url').slice(0, 10);

export const concerns = ({ all, names, ids, scope }: Filter, { id, name }: AgentMaterial): boolean =>
  all || names.has(name) || (id !== undefined && ids.has(id) && (scope?.has(name) ?? true));

/** Whether a filter selects no other agents than these. */
export const isWithin = (state: State, { all, names, ids }: Filter, agents: ReadonlySet<string>): boolean =>
  !all &&
  [...names].every((name) => agents.has(name)) &&
  [...ids].every((id) => agents.has(state.agents.get(id)?.name ?? ''));

/** Whether a revision contains a change for a filter. */
export const concernsAny = (filter: Filter, { agents, catalogue }: ChangeEvent): boolean =>
  catalogue.length > 0 || agents.some((material) => concerns(filter, material));
