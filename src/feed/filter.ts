import { createHash } from 'node:crypto';
import type { State } from '../domain/state.js';
import type { AgentMaterial, ChangeEvent } from './change_event.js';

/** Which agents a watch is about; the catalogue concerns every watch. */
export interface Filter {
  readonly all: boolean;
  readonly names: ReadonlySet<string>;
  readonly ids: ReadonlySet<number>;
  /** The names that an agent watched by its id must have at a revision to be shown at it; undefined: any. */
  readonly scope: ReadonlySet<string> | undefined;
  /** Equal for requests for the same agents, in any order. A resume token carries it. */
  readonly mark: string;
  /** Equal for filters that match the same changes: encoded messages are shared under it. */
  readonly key: string;
}

/** @param scope the agents that the caller's token is for; undefined: all. */
export function filterOf(
  all: boolean,
  names: ReadonlySet<string>,
  ids: ReadonlySet<number>,
  scope?: ReadonlySet<string>,
): Filter {
  const parts = all ? ['*'] : [...[...names].map((name) => `=${name}`), ...[...ids].map((id) => `#${id}`)].sort();
  const mark = hashOf(parts);
  // Names are checked when the watch begins, and stay what they are. The agent with an id is renamed.
  const limited = ids.size > 0 ? scope : undefined;
  return { all, names, ids, scope: limited, mark, key: limited ? `${mark} ${hashOf([...limited].sort())}` : mark };
}

const hashOf = (parts: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(parts)).digest('base64url').slice(0, 10);

export const concerns = ({ all, names, ids, scope }: Filter, { id, name }: AgentMaterial): boolean =>
  all || names.has(name) || (id !== undefined && ids.has(id) && (scope?.has(name) ?? true));

/** Whether a watch is about these agents alone. */
export const isWithin = (state: State, { all, names, ids }: Filter, agents: ReadonlySet<string>): boolean =>
  !all &&
  [...names].every((name) => agents.has(name)) &&
  [...ids].every((id) => agents.has(state.agents.get(id)?.name ?? ''));

/** Whether there is anything in a revision for a watch. */
export const concernsAny = (filter: Filter, { agents, catalogue }: ChangeEvent): boolean =>
  catalogue.length > 0 || agents.some((moment) => concerns(filter, moment));
