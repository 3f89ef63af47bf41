import type { Knex } from 'knex';
import type { SummedUnit } from '../../domain/usage_period.js';
import { numberArray, textArray, timeArray } from '../array_literal.js';
import { prepared } from '../session.js';
import { ATTEMPT_COLUMNS, bindingsOf, GROUP_COLUMNS } from './attempt_columns.js';
import { type NewAttempt, slotOf } from './new_attempt.js';
import { addSums, selectSums, TOKENS } from './sums.js';

const namesOf = (columns: readonly (readonly [name: string, ...unknown[]])[]) =>
  columns.map(([name]) => name).join(', ');
const unnested = (columns: readonly (readonly [string, type: string, ...unknown[]])[]) =>
  `unnest(${columns.map(([, type]) => `?::${type}[]`).join(', ')})`;
const STORED = [...GROUP_COLUMNS, ...ATTEMPT_COLUMNS]
  .map(([name]) => name)
  .filter((name) => !['hour', 'group_number', 'started_ms'].includes(name))
  .join(', ');

const SUMMED = [...TOKENS, 'cost_nano_usd'];
const COUNTED = `count(*) as attempts, count(*) - count(cost_nano_usd) as unpriced_attempts,
  ${SUMMED.map((name) => `coalesce(sum(${name}), 0) as ${name}`).join(', ')}`;
const KEY =
  'agent_id, coalesce(config_id, 0) as config_id, provider, model_name, experiment, variant, outcome, fallback';
const newestName = (at: string) => `(array_agg(agent_name order by ${at} desc, agent_name desc))[1] as agent_name`;

/**
 * The ids are inserted first. If two statements store the same attempt at the same time, the second one waits and then
 * finds that the attempt is not new. Ids and sums are inserted in the order of their keys, so two statements cannot
 * wait for each other.
 */
const INSERT = `
  with groups as (
    select * from ${unnested(GROUP_COLUMNS)} with ordinality as t (${namesOf(GROUP_COLUMNS)}, group_number)),
  input as (
    select *, to_timestamp(started_ms / 1000.0::float8) as started_at
      from ${unnested(ATTEMPT_COLUMNS)} as t (${namesOf(ATTEMPT_COLUMNS)})),
  fresh as (
    insert into llm_usage_attempt_ids (attempt_id) select attempt_id from input order by attempt_id
        on conflict do nothing returning attempt_id),
  added as (select * from input join fresh using (attempt_id)),
  stored as (
    insert into llm_usage_attempts (started_at, ${STORED})
    select started_at, ${STORED} from added join groups using (group_number)),
  by_group as (select group_number, max(started_at) as newest_at, ${COUNTED} from added group by group_number),
  hours as (
    select hour, ${KEY}, ${newestName('newest_at')}, max(newest_at) as newest_at,
           ${['attempts', 'unpriced_attempts', ...SUMMED].map((name) => `sum(${name}) as ${name}`).join(', ')}
      from by_group join groups using (group_number)
     group by 1, 2, 3, 4, 5, 6, 7, 8, 9),
  ${addSums('hours')}
  select attempt_id from fresh`.replace(/\s+/g, ' ');

/**
 * Stores attempts with different ids, and adds the new attempts to the sums, in one statement.
 * @returns the ids of the new attempts.
 */
export async function insertAttempts(db: Knex, attempts: readonly NewAttempt[]): Promise<ReadonlySet<string>> {
  const { rows } = await prepared(db.raw<{ rows: { attempt_id: string }[] }>(INSERT, bindingsOf(attempts)), true);
  return new Set(rows.map(({ attempt_id }) => attempt_id));
}

/** The costs of stored attempts by id; null: unknown. */
export async function readCosts(
  db: Knex,
  attempts: readonly Pick<NewAttempt, 'attempt_id' | 'started_at'>[],
): Promise<ReadonlyMap<string, bigint | null>> {
  if (attempts.length === 0) return new Map();
  const { rows } = await db.raw<{ rows: { attempt_id: string; cost_nano_usd: number | null }[] }>(
    `select a.attempt_id, a.cost_nano_usd
       from unnest(?::smallint[], ?::timestamptz[], ?::uuid[]) as v (slot, started_at, attempt_id)
       join llm_usage_attempts as a using (slot, started_at, attempt_id)`,
    [
      numberArray(attempts.map(({ started_at }) => slotOf(started_at))),
      timeArray(attempts.map(({ started_at }) => started_at)),
      textArray(attempts.map(({ attempt_id }) => attempt_id)),
    ],
  );
  return new Map(rows.map(({ attempt_id, cost_nano_usd: cost }) => [attempt_id, cost === null ? null : BigInt(cost)]));
}

/** Recomputes the sums of a unit from the stored attempts, without adjustments, for a check of the tables of sums. */
export const rebuildSums = (db: Knex, unit: SummedUnit): PromiseLike<{ rows: Record<string, unknown>[] }> =>
  db.raw(
    `with hours as (
       select date_trunc('hour', started_at, 'UTC') as hour, ${KEY}, ${newestName('started_at')},
              max(started_at) as newest_at, ${COUNTED}
         from llm_usage_attempts group by 1, 2, 3, 4, 5, 6, 7, 8, 9)
     ${selectSums(unit, 'hours')}`,
  );
