import { createHash } from 'node:crypto';
import type { State } from '../domain/state.js';
import type { AgentMoment, Entry } from './entry.js';

/** Which agents a watch is about; the catalogue concerns every watch. */
export interface Filter {
  readonly all: boolean;
  readonly names: ReadonlySet<string>;
  readonly ids: ReadonlySet<number>;
  /** Equal for equal filters, in any order; what is encoded for one watch serves all with the same. */
  readonly mark: string;
}

export function filterOf(all: boolean, names: ReadonlySet<string>, ids: ReadonlySet<number>): Filter {
  const parts = all ? ['*'] : [...[...names].map((name) => `=${name}`), ...[...ids].map((id) => `#${id}`)].sort();
  const mark = createHash('sha256').update(JSON.stringify(parts)).digest('base64url').slice(0, 10);
  return { all, names, ids, mark };
}

export const concerns = ({ all, names, ids }: Filter, { id, name }: AgentMoment): boolean =>
  all || names.has(name) || (id !== undefined && ids.has(id));

/** Whether a watch is about these agents alone. */
export const isWithin = (state: State, { all, names, ids }: Filter, agents: ReadonlySet<string>): boolean =>
  !all &&
  [...names].every((name) => agents.has(name)) &&
  [...ids].every((id) => agents.has(state.agents.get(id)?.name ?? ''));

/** Whether there is anything in a revision for a watch. */
export const concernsAny = (filter: Filter, { agents, catalogue }: Entry): boolean =>
  catalogue.length > 0 || agents.some((moment) => concerns(filter, moment));
