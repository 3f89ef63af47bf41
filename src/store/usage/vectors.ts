import type { Knex } from 'knex';
import { USAGE_PARTITIONS } from '../../../migrations/0020_usage.js';
import { type ReportedRanges, SUMMED_UNITS } from '../../domain/usage_period.js';
import { numberArray, textArray, timeArray } from '../array_literal.js';
import { type AttemptFilter, type Condition, conditionOf } from './filter.js';
import { slotOf } from './new_attempt.js';
import { addSums, SUM_TABLES, TOKENS } from './sums.js';
import { inRanges } from './unit_ranges.js';

/* Reads the token counts by which stored attempts are priced again, and stores adjustments. */

type Tokens = Readonly<Record<(typeof TOKENS)[number], number | null>>;

/** The model tokens of a stored attempt, and its cost. */
export interface StoredVector extends Tokens {
  readonly attempt_id: string;
  readonly started_at: Date;
  readonly agent_id: number;
  readonly config_id: number | null;
  readonly provider: string;
  readonly model_name: string;
  readonly cost_nano_usd: number | null;
  readonly price_revision: number;
  readonly price_from_config: boolean;
  /** The sum of the adjustments; null if there are none. */
  readonly adjustment: string | null;
}

export interface VectorQuery {
  readonly from: Date;
  readonly to: Date;
  readonly filter: AttemptFilter;
}

/** The rows of one statement; they are priced in memory. */
const VECTORS_AT_ONCE = 2000;

/** The start of the oldest and of the newest stored attempt; undefined if there is none. */
export async function storedRange(db: Knex): Promise<{ oldest: Date; newest: Date } | undefined> {
  // The primary key of each partition begins with the start.
  const edge = (order: string) => `(select started_at from llm_usage_attempts as a where a.slot = s.slot
                                     order by a.started_at ${order} limit 1)`;
  const { rows } = await db.raw<{ rows: { oldest: Date | null; newest: Date | null }[] }>(
    `select min(${edge('asc')}) as oldest, max(${edge('desc')}) as newest from generate_series(0, ?::int) as s (slot)`,
    [USAGE_PARTITIONS - 1],
  );
  const { oldest = null, newest = null } = rows[0] ?? {};
  return oldest && newest ? { oldest, newest } : undefined;
}

/** The months of UTC of a range, oldest first, each with its part of the range: a partition has whole months. */
export function* monthsOf(from: Date, to: Date): Generator<readonly [from: Date, to: Date]> {
  for (let start = from; start < to; ) {
    const next = new Date(Date.UTC(start.getUTCFullYear(), start.getUTCMonth() + 1, 1));
    const end = next < to ? next : to;
    yield [start, end];
    start = end;
  }
}

/** Reads the attempts of a range in chunks, oldest first. */
export async function* readVectors(db: Knex, { from, to, filter }: VectorQuery): AsyncGenerator<StoredVector[]> {
  const stored = await storedRange(db);
  if (!stored) return;
  const first = from > stored.oldest ? from : stored.oldest;
  const end = new Date(stored.newest.getTime() + 1);
  for (const [monthFrom, monthTo] of monthsOf(first, to < end ? to : end)) {
    let last: StoredVector | undefined;
    for (;;) {
      const chunk = await vectorsBetween(db, { from: monthFrom, to: monthTo, filter }, last);
      if (chunk.length > 0) yield chunk;
      if (chunk.length < VECTORS_AT_ONCE) break;
      last = chunk.at(-1);
    }
  }
}

async function vectorsBetween(db: Knex, query: VectorQuery, last: StoredVector | undefined): Promise<StoredVector[]> {
  const [condition, bindings] = conditionOf(query.filter);
  const { rows } = await db.raw<{ rows: StoredVector[] }>(
    `select attempt_id, started_at, agent_id, config_id, provider, model_name, ${TOKENS.join(', ')}, cost_nano_usd,
            price_revision, price_from_config, ${ADJUSTMENT}
       from llm_usage_attempts as a
      where slot = ? and started_at >= ? and started_at < ? ${last ? 'and (started_at, attempt_id) > (?, ?::uuid)' : ''}
            ${condition}
      order by started_at, attempt_id limit ?`,
    [
      slotOf(query.from),
      query.from,
      query.to,
      ...(last ? [last.started_at, last.attempt_id] : []),
      ...bindings,
      VECTORS_AT_ONCE,
    ] as Knex.RawBinding[],
  );
  return rows;
}

const ADJUSTMENT = `(select sum(adjustment_nano_usd) from llm_usage_adjustments as j
                      where j.attempt_id = a.attempt_id)::text as adjustment`;

/** The sums of a unit of UTC by model, for attempts that are no longer stored. */
export interface SumsVector extends Readonly<Record<(typeof TOKENS)[number] | 'attempts', number>> {
  readonly start: Date;
  readonly provider: string;
  readonly model_name: string;
}

export interface SumsQuery {
  readonly ranges: ReportedRanges;
  readonly filter: AttemptFilter;
}

/** Reads the sums of the units of a report by model, in chunks, oldest first. */
export async function* readSums(db: Knex, query: SumsQuery): AsyncGenerator<SumsVector[]> {
  let last: SumsVector | undefined;
  for (;;) {
    const rows = await sumsAfter(db, query, last);
    if (rows.length > 0) yield rows;
    if (rows.length < VECTORS_AT_ONCE) return;
    last = rows.at(-1);
  }
}

async function sumsAfter(db: Knex, { ranges, filter }: SumsQuery, last: SumsVector | undefined): Promise<SumsVector[]> {
  const [condition, bindings] = conditionOf(filter);
  const selects = SUMMED_UNITS.filter((unit) => ranges[unit].length > 0).map((unit): Condition => {
    const [isInRange, bounds] = inRanges(unit, ranges[unit]);
    const isAfter = last ? ` and ${unit} >= ?` : '';
    const sums = `select ${unit} as start, provider, model_name, attempts, ${TOKENS.join(', ')} from ${SUM_TABLES[unit]}
      where ${isInRange}${isAfter}${condition}`;
    return [sums, [...bounds, ...(last ? [last.start] : []), ...bindings]];
  });
  if (selects.length === 0) return [];
  const { rows } = await db.raw<{ rows: SumsVector[] }>(
    `select start, provider, model_name, ${['attempts', ...TOKENS].map((name) => `sum(${name})::bigint as ${name}`).join(', ')}
       from (${selects.map(([sql]) => sql).join(' union all ')}) as units
      ${last ? 'where (start, provider, model_name) > (?, ?, ?)' : ''}
      group by start, provider, model_name order by start, provider, model_name limit ?`,
    [
      ...selects.flatMap(([, all]) => all),
      ...(last ? [last.start, last.provider, last.model_name] : []),
      VECTORS_AT_ONCE,
    ] as Knex.RawBinding[],
  );
  return rows;
}

/** A change of the cost of a stored attempt. */
export interface NewAdjustment {
  readonly attempt_id: string;
  readonly started_at: Date;
  readonly nanoUsd: bigint;
  readonly price_revision: number;
  /** Whether the cost was unknown. */
  readonly wasUnpriced: boolean;
}

/**
 * Reads the current adjustments of attempts again, and prevents other transactions from adjusting attempts until the
 * transaction ends.
 */
export async function lockAdjustments(tx: Knex, ids: readonly string[]): Promise<ReadonlyMap<string, bigint>> {
  await tx.raw(`select pg_advisory_xact_lock(hashtext('llm_usage_adjustments'))`);
  const { rows } = await tx.raw<{ rows: { attempt_id: string; amount: string }[] }>(
    `select attempt_id, sum(adjustment_nano_usd)::text as amount from llm_usage_adjustments
      where attempt_id = any(?::uuid[]) group by attempt_id`,
    [textArray(ids)],
  );
  return new Map(rows.map(({ attempt_id, amount }) => [attempt_id, BigInt(amount)]));
}

/** Stores adjustments and adds them to the sums, whose rows are updated in the order in which attempts update them. */
export async function insertAdjustments(
  tx: Knex,
  adjustments: readonly NewAdjustment[],
  { actor, reason }: { readonly actor: string; readonly reason: string },
): Promise<void> {
  await tx.raw(
    `with input as (
       select * from unnest(?::smallint[], ?::timestamptz[], ?::uuid[], ?::bigint[], ?::bigint[], ?::boolean[])
                  as v (slot, started_at, attempt_id, amount, revision, was_unpriced)),
     stored as (
       insert into llm_usage_adjustments (attempt_id, started_at, adjustment_nano_usd, price_revision, actor, reason)
       select attempt_id, started_at, amount, revision, ?, ? from input order by started_at, attempt_id),
     hours as (
       select date_trunc('hour', started_at, 'UTC') as hour, agent_id, coalesce(config_id, 0) as config_id, provider,
              model_name, experiment, variant, outcome, fallback, max(agent_name) as agent_name,
              min(started_at) as newest_at, 0 as attempts, - count(*) filter (where was_unpriced) as unpriced_attempts,
              ${TOKENS.map((name) => `0 as ${name}`).join(', ')}, sum(amount) as cost_nano_usd
         from input join llm_usage_attempts using (slot, started_at, attempt_id)
        group by 1, 2, 3, 4, 5, 6, 7, 8, 9),
     ${addSums('hours')} select 1`,
    [
      numberArray(adjustments.map(({ started_at }) => slotOf(started_at))),
      timeArray(adjustments.map(({ started_at }) => started_at)),
      textArray(adjustments.map(({ attempt_id }) => attempt_id)),
      numberArray(adjustments.map(({ nanoUsd }) => nanoUsd)),
      numberArray(adjustments.map(({ price_revision }) => price_revision)),
      `{${adjustments.map(({ wasUnpriced }) => wasUnpriced).join(',')}}`,
      actor,
      reason,
    ],
  );
}
