import type { Knex } from 'knex';
import type { UsageCall } from '../../../gen/ts/agentllm/v1/usage.js';
import { USAGE_PARTITIONS } from '../../../migrations/0020_usage.js';
import { prepared } from '../session.js';
import { booleanArray, bytesArray, numberArray, textArray, timeArray } from './array_literal.js';

/**
 * An attempt to store: the columns of `llm_usage_attempts` except the time at which it is stored, and what is stored in
 * `record` only: the reservation that it draws on, and what experiments count.
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
  readonly subject: string;
  readonly call: UsageCall | undefined;
  /** The store revision that the call used. */
  readonly revision: number;
  /** The encoded UsageRecord. */
  readonly record: Buffer;
}

/** The partition of an attempt, by the month of its start. */
export const slotOf = (startedAt: Date): number =>
  (startedAt.getUTCFullYear() * 12 + startedAt.getUTCMonth() + 1) % USAGE_PARTITIONS;

/** The counts of model tokens, which are summed. */
export const TOKENS = [
  'input_tokens',
  'input_no_cache_tokens',
  'input_cache_read_tokens',
  'input_cache_write_tokens',
  'input_cache_write_long_tokens',
  'output_tokens',
  'output_reasoning_tokens',
] as const;

/** The key of `llm_usage_hourly`. */
export const ROLLUP_KEY = [
  'hour',
  'agent_id',
  'config_id',
  'provider',
  'model_name',
  'experiment',
  'variant',
  'outcome',
  'fallback',
] as const;

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
const SUMS = ['attempts', 'unpriced_attempts', ...TOKENS, 'cost_nano_usd'] as const;

/** The sums of attempts by the key of the rollup. */
const summed = (from: string) => `
  select date_trunc('hour', started_at, 'UTC') as hour, agent_id, coalesce(config_id, 0) as config_id, provider,
         model_name, experiment, variant, outcome, fallback,
         (array_agg(agent_name order by started_at desc, agent_name desc))[1] as agent_name,
         max(started_at) as newest_at, count(*) as attempts, count(*) - count(cost_nano_usd) as unpriced_attempts,
         ${TOKENS.map((name) => `coalesce(sum(${name}), 0) as ${name}`).join(', ')},
         coalesce(sum(cost_nano_usd), 0) as cost_nano_usd
    from ${from}
   group by 1, 2, 3, 4, 5, 6, 7, 8, 9`;

const ROLLUP_NAMES = [...ROLLUP_KEY, 'agent_name', 'newest_at', ...SUMS].join(', ');
const IS_NEWER = '(excluded.newest_at, excluded.agent_name) > (h.newest_at, h.agent_name)';

/**
 * The ids are inserted first, so that an attempt that is stored twice at the same time waits, and is then not new. The
 * ids and the sums are inserted in the order of their keys: two statements cannot wait for each other.
 */
const INSERT = `
  with input as (
    select * from unnest(${COLUMNS.map(([, type]) => `?::${type}[]`).join(', ')}) as t (${NAMES})),
  fresh as (
    insert into llm_usage_attempt_ids (attempt_id) select attempt_id from input order by attempt_id
        on conflict do nothing returning attempt_id),
  stored as (
    insert into llm_usage_attempts (${NAMES}) select ${NAMES} from input join fresh using (attempt_id)),
  added as (
    insert into llm_usage_hourly as h (${ROLLUP_NAMES})
    select ${ROLLUP_NAMES} from (${summed('input join fresh using (attempt_id)')}) as s order by ${ROLLUP_KEY.join(', ')}
        on conflict (${ROLLUP_KEY.join(', ')}) do update set
           agent_name = case when ${IS_NEWER} then excluded.agent_name else h.agent_name end,
           newest_at = greatest(excluded.newest_at, h.newest_at),
           ${SUMS.map((name) => `${name} = h.${name} + excluded.${name}`).join(', ')})
  select attempt_id from fresh`.replace(/\s+/g, ' ');

/**
 * Stores attempts with different ids, and adds those that are new to the sums, in one statement.
 * @returns the ids that were new.
 */
export async function insertAttempts(db: Knex, attempts: readonly NewAttempt[]): Promise<ReadonlySet<string>> {
  const bindings = COLUMNS.map(([, , values]) => values(attempts));
  const { rows } = await prepared(db.raw<{ rows: { attempt_id: string }[] }>(INSERT, bindings));
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

/** The sums of stored attempts as they must be in `llm_usage_hourly`, for a check; without adjustments. */
export const rebuildSums = (db: Knex): PromiseLike<{ rows: Record<string, unknown>[] }> =>
  db.raw(`select ${ROLLUP_NAMES} from (${summed('llm_usage_attempts')}) as s order by ${ROLLUP_KEY.join(', ')}`);
