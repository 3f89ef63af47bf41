import type { Knex } from 'knex';
import { USAGE_PARTITIONS } from '../../../migrations/0020_usage.js';
import type { SummedUnit } from '../../domain/usage_period.js';
import { booleanArray, bytesArray, numberArray, textArray, timeArray } from '../array_literal.js';
import { prepared } from '../session.js';
import { addSums, selectSums, TOKENS } from './sums.js';

/**
 * An attempt to store: the columns of `llm_usage_attempts` except the time at which it is stored, and the reservation that
 * it draws on, which is stored in `record` only.
 */
export interface NewAttempt {
  readonly attempt_id: string;
  readonly started_at: Date;
  readonly agent_id: number;
  readonly agent_name: string;
  readonly config_id: number | null;
  readonly provider: string;
  readonly model_name: string;
  readonly experiment: string;
  readonly variant: string;
  readonly run_id: string;
  readonly outcome: string;
  readonly fallback: boolean;
  readonly input_tokens: number | null;
  readonly input_no_cache_tokens: number | null;
  readonly input_cache_read_tokens: number | null;
  readonly input_cache_write_tokens: number | null;
  readonly input_cache_write_long_tokens: number | null;
  readonly output_tokens: number | null;
  readonly output_reasoning_tokens: number | null;
  readonly cost_nano_usd: bigint | null;
  readonly unpriced_reason: string | null;
  readonly price_revision: number;
  readonly price_from_config: boolean;
  /** Empty: none. */
  readonly reservation_id: string;
  /** The encoded UsageRecord. */
  readonly record: Buffer;
}

/** The partition of an attempt, by the month of its start. */
export const slotOf = (startedAt: Date): number =>
  (startedAt.getUTCFullYear() * 12 + startedAt.getUTCMonth() + 1) % USAGE_PARTITIONS;

/** Each column, its type, and its values as an array. */
const COLUMNS: readonly (readonly [name: string, type: string, values: (all: readonly NewAttempt[]) => string])[] = [
  ['slot', 'smallint', (all) => numberArray(all.map((one) => slotOf(one.started_at)))],
  ['started_at', 'timestamptz', (all) => timeArray(all.map((one) => one.started_at))],
  ['attempt_id', 'uuid', (all) => textArray(all.map((one) => one.attempt_id))],
  ...(['agent_id', 'config_id', ...TOKENS] as const).map(
    (name) => [name, 'int', (all: readonly NewAttempt[]) => numberArray(all.map((one) => one[name]))] as const,
  ),
  ...(['agent_name', 'provider', 'model_name', 'experiment', 'variant', 'run_id', 'outcome'] as const).map(
    (name) => [name, 'text', (all: readonly NewAttempt[]) => textArray(all.map((one) => one[name]))] as const,
  ),
  ['fallback', 'boolean', (all) => booleanArray(all.map((one) => one.fallback))],
  ['cost_nano_usd', 'bigint', (all) => numberArray(all.map((one) => one.cost_nano_usd))],
  ['unpriced_reason', 'text', (all) => textArray(all.map((one) => one.unpriced_reason))],
  ['price_revision', 'bigint', (all) => numberArray(all.map((one) => one.price_revision))],
  ['price_from_config', 'boolean', (all) => booleanArray(all.map((one) => one.price_from_config))],
  ['record', 'bytea', (all) => bytesArray(all.map((one) => one.record))],
];

const NAMES = COLUMNS.map(([name]) => name).join(', ');

/** Sums of attempts by hour, as a source of sums. */
const hoursOf = (from: string) => `
  select date_trunc('hour', started_at, 'UTC') as hour, agent_id, coalesce(config_id, 0) as config_id, provider,
         model_name, experiment, variant, outcome, fallback,
         (array_agg(agent_name order by started_at desc, agent_name desc))[1] as agent_name,
         max(started_at) as newest_at, count(*) as attempts, count(*) - count(cost_nano_usd) as unpriced_attempts,
         ${TOKENS.map((name) => `coalesce(sum(${name}), 0) as ${name}`).join(', ')},
         coalesce(sum(cost_nano_usd), 0) as cost_nano_usd
    from ${from}
   group by 1, 2, 3, 4, 5, 6, 7, 8, 9`;

/**
 * The ids are inserted first, so that an attempt that is stored twice at the same time waits, and is then not new. The
 * ids, and then the sums, are inserted in the order of their keys: two statements cannot wait for each other.
 */
const INSERT = `
  with input as (
    select * from unnest(${COLUMNS.map(([, type]) => `?::${type}[]`).join(', ')}) as t (${NAMES})),
  fresh as (
    insert into llm_usage_attempt_ids (attempt_id) select attempt_id from input order by attempt_id
        on conflict do nothing returning attempt_id),
  stored as (
    insert into llm_usage_attempts (${NAMES}) select ${NAMES} from input join fresh using (attempt_id)),
  hours as (${hoursOf('input join fresh using (attempt_id)')}), ${addSums('hours')}
  select attempt_id from fresh`.replace(/\s+/g, ' ');

/**
 * Stores attempts with different ids, and adds those that are new to the sums, in one statement.
 * @returns the ids that were new.
 */
export async function insertAttempts(db: Knex, attempts: readonly NewAttempt[]): Promise<ReadonlySet<string>> {
  const bindings = COLUMNS.map(([, , values]) => values(attempts));
  const { rows } = await prepared(db.raw<{ rows: { attempt_id: string }[] }>(INSERT, bindings), true);
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

/** The sums of stored attempts as they must be in a table of sums, for a check; without adjustments. */
export const rebuildSums = (db: Knex, unit: SummedUnit): PromiseLike<{ rows: Record<string, unknown>[] }> =>
  db.raw(`with hours as (${hoursOf('llm_usage_attempts')}) ${selectSums(unit, 'hours')}`);
