import type { Knex } from 'knex';
import { limits } from '../../limits.js';
import { textArray } from '../array_literal.js';

/** The attempts that a report includes; an empty list does not filter. */
export interface AttemptFilter {
  /** Names of agents; undefined: all agents. */
  readonly agents: AgentFilter | undefined;
  readonly configIds: readonly number[];
  readonly providers: readonly string[];
  readonly models: readonly (readonly [provider: string, model: string])[];
  readonly experiment: string;
  readonly variants: readonly string[];
  readonly outcomes: readonly string[];
  readonly fallback: boolean | undefined;
}

export interface AgentFilter {
  readonly names: readonly string[];
  /** The ids of the agents that currently have these names. */
  readonly ids: readonly number[];
  /** The range of hours in which other agents may have had these names. */
  readonly from: Date;
  readonly to: Date;
}

/** A condition with its bindings. */
export type Condition = readonly [sql: string, bindings: readonly Knex.RawBinding[]];

/** The condition of a filter, on the columns that attempts and their sums share. */
export function conditionOf(filter: AttemptFilter): Condition {
  const all: Condition[] = [];
  const anyOf = (column: string, type: string, values: readonly (string | number)[]) => {
    if (values.length > 0) all.push([`${column} = any(?::${type}[])`, [values as string[]]]);
  };
  if (filter.agents) all.push(agentCondition(filter.agents));
  anyOf('config_id', 'int', filter.configIds);
  anyOf('provider', 'text', filter.providers);
  if (filter.models.length > 0)
    all.push([
      '(provider, model_name) in (select * from unnest(?::text[], ?::text[]))',
      [textArray(filter.models.map(([provider]) => provider)), textArray(filter.models.map(([, model]) => model))],
    ]);
  if (filter.experiment) all.push(['experiment = ?', [filter.experiment]]);
  anyOf('variant', 'text', filter.variants);
  anyOf('outcome', 'text', filter.outcomes);
  if (filter.fallback !== undefined) all.push(['fallback = ?', [filter.fallback]]);
  return [all.map(([sql]) => ` and ${sql}`).join(''), all.flatMap(([, bindings]) => bindings)];
}

/** Lower than any id; agents that the service does not know have negative ids. */
const BEFORE_ALL_IDS = `(${-limits.maxInt32 - 1})`;

/**
 * An agent is found by its current name and by each name under which it has reported. The recursion reads one index row
 * for each agent that had the name.
 */
const agentCondition = ({ names, ids, from, to }: AgentFilter): Condition => [
  `(agent_id = any(?::int[]) or agent_id in (
     with recursive named (name, id) as (
       select name, ${BEFORE_ALL_IDS}::int from unnest(?::text[]) as name union all
       select name, (select h.agent_id from llm_usage_hourly as h
                      where h.agent_name = name and h.agent_id > id and h.hour >= ? and h.hour < ?
                      order by h.agent_id limit 1) from named where id is not null)
     select id from named where id is not null))`,
  [ids as number[], names as string[], from, to],
];
