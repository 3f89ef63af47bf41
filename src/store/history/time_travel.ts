import type { Knex } from 'knex';
import type { Agent, Entity } from '../../domain/rows.js';
import { State } from '../../domain/state.js';
import { fromLog } from '../write/rows.js';

/** The part of a past state to read. */
export interface Selection {
  /** Ids of the agents to read with their configs, budgets and experiments, or all agents. */
  readonly agents: readonly number[] | 'all';
  /** Whether to read providers, models, prices and credentials. */
  readonly catalogue: boolean;
}

const OF_AGENTS: readonly Entity[] = ['agent', 'config', 'budget', 'experiment'];
const CATALOGUE: readonly Entity[] = ['credential', 'provider', 'model', 'price', 'budget'];

interface PastRow {
  readonly entity: Entity;
  readonly after: Record<string, unknown>;
}

/**
 * Reads part of the configuration at a past revision from the log: the newest entry of each row up to that revision.
 * Compacted entries are missing, so the caller must compare the revision with `oldestKept`. `chain_revision` is the
 * value of the agent's last entry, because changes of the chain do not add an entry for the agent.
 */
export async function stateAt(db: Knex, revision: number, { agents, catalogue }: Selection): Promise<State> {
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
          else
            either.whereRaw(`(agent_id = any(?::int[]) and entity in ('agent', 'config', 'budget', 'experiment'))`, [
              agents as number[],
            ]);
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

/** The agent to find at a past revision, by id or name. */
export interface PastAgentRef {
  readonly id?: number | undefined;
  readonly name?: string | undefined;
}

/**
 * An agent at a past revision, with its configs and the whole catalogue; undefined when it did not exist.
 * @param currentId the id of the agent that has the name now. Usually this agent had the name at that revision too, and
 *   then no search is necessary.
 */
export async function agentAt(
  db: Knex,
  revision: number,
  { id, name }: PastAgentRef,
  currentId?: number,
): Promise<{ agent: Agent; state: State } | undefined> {
  const likely = await agentWithId(db, revision, id ?? currentId);
  if (name === undefined || likely?.agent.name === name) return likely;
  return agentWithId(db, revision, await idByName(db, revision, name));
}

async function agentWithId(db: Knex, revision: number, id: number | undefined) {
  if (id === undefined) return undefined;
  const state = await stateAt(db, revision, { agents: [id], catalogue: true });
  const agent = state.agents.get(id);
  return agent && { agent, state };
}

/** The id of the agent that had a name at a revision. Agents can be renamed and names reused. */
async function idByName(db: Knex, revision: number, name: string): Promise<number | undefined> {
  const [agent] = await db
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
  return agent?.entity_id;
}
