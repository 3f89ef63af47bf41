import type { Knex } from 'knex';
import type { Agent, Entity } from '../../domain/rows.js';
import { State } from '../../domain/state.js';
import { fromLog } from '../write/rows.js';

/** What of a past revision is wanted. */
export interface Wanted {
  /** Agents with their configs; 'all' for every one. */
  readonly agents: readonly number[] | 'all';
  /** Whether providers, models, prices and credentials are wanted too. */
  readonly catalogue: boolean;
}

const OF_AGENTS: readonly Entity[] = ['agent', 'config'];
const CATALOGUE: readonly Entity[] = ['credential', 'provider', 'model', 'price'];

interface PastRow {
  readonly entity: Entity;
  readonly after: Record<string, unknown>;
}

/**
 * Part of the configuration as it was at a revision, from the log: of each thing the newest entry by then. What the
 * log no longer keeps is missing, so whoever asks looks at the horizon first. `chain_revision` is that of the agent's
 * own last entry: moves of its chain are not entered with it.
 */
export async function stateAt(db: Knex, revision: number, { agents, catalogue }: Wanted): Promise<State> {
  const state = new State();
  const rows: PastRow[] = await db
    .select('entity', 'after')
    .from(
      db('config_revisions')
        .distinctOn('entity', 'entity_id')
        .select('entity', 'after')
        .where('revision', '<=', revision)
        .where((either) => {
          if (agents === 'all') either.whereIn('entity', OF_AGENTS);
          else either.whereRaw(`(agent_id = any(?::int[]) and entity in ('agent', 'config'))`, [agents as number[]]);
          if (catalogue) either.orWhereIn('entity', CATALOGUE);
        })
        .orderBy(['entity', 'entity_id', { column: 'revision', order: 'desc' }, { column: 'position', order: 'desc' }])
        .as('newest'),
    )
    .whereNotNull('after');
  for (const { entity, after } of rows) state.load(entity, fromLog(entity, after) as never);
  state.revision = revision;
  return state;
}

/** Who is looked for in the past. */
export interface Sought {
  readonly id?: number | undefined;
  readonly name?: string | undefined;
}

/**
 * An agent as it was at a revision, with its configs and the whole catalogue; undefined where there was none by then.
 * @param bearer who has the name now: mostly the one that had it then, and found without a search.
 */
export async function agentAt(
  db: Knex,
  revision: number,
  { id, name }: Sought,
  bearer?: number,
): Promise<{ agent: Agent; state: State } | undefined> {
  const likely = await agentWithId(db, revision, id ?? bearer);
  if (name === undefined || likely?.agent.name === name) return likely;
  return agentWithId(db, revision, await bearerAt(db, revision, name));
}

async function agentWithId(db: Knex, revision: number, id: number | undefined) {
  if (id === undefined) return undefined;
  const state = await stateAt(db, revision, { agents: [id], catalogue: true });
  const agent = state.agents.get(id);
  return agent && { agent, state };
}

/** Which agent had a name at a revision: agents are renamed, and names are given again. */
async function bearerAt(db: Knex, revision: number, name: string): Promise<number | undefined> {
  const [bearer] = await db
    .select('entity_id')
    .from(
      db('config_revisions')
        .distinctOn('entity_id')
        .select('entity_id', 'after')
        .where({ entity: 'agent' })
        .where('revision', '<=', revision)
        .orderBy(['entity_id', { column: 'revision', order: 'desc' }, { column: 'position', order: 'desc' }])
        .as('newest'),
    )
    .whereRaw(`after ->> 'name' = ?`, [name]);
  return bearer?.entity_id;
}
