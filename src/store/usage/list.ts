import type { Knex } from 'knex';
import { numberArray, textArray } from '../array_literal.js';
import { onDatabase } from '../failure.js';
import { type BoundedRows, readBounded } from '../history/bounded_read.js';
import type { Store } from '../store.js';
import { type AgentFilter, type AttemptFilter, conditionOf } from './filter.js';
import { slotOf } from './new_attempt.js';
import { storedRange } from './vectors.js';

/** A stored attempt. */
export interface AttemptRow {
  readonly attempt_id: string;
  readonly started_at: Date;
  readonly recorded_at: Date;
  readonly outcome: string;
  readonly cost_nano_usd: number | null;
  readonly unpriced_reason: string | null;
  readonly price_revision: number;
  readonly price_from_config: boolean;
  readonly record: Buffer;
  /** The sum of the adjustments; null if there are none. */
  readonly adjustment: string | null;
}

/** The position of an attempt in the list, newest first. */
export type AttemptPosition = readonly [startedMs: number, attemptId: string];

export interface AttemptQuery {
  readonly since: Date | undefined;
  readonly until: Date;
  readonly filter: AttemptFilter;
  /** Empty: attempts of any run. */
  readonly runId: string;
  readonly unpricedOnly: boolean;
  readonly after: AttemptPosition | undefined;
  readonly limit: number;
}

/** The stored attempts, newest first by (start, id). */
export function listAttempts(store: Store, query: AttemptQuery): Promise<BoundedRows<AttemptRow>> {
  return onDatabase(store, async (db) => {
    const stored = await storedRange(db);
    if (!stored) return { rows: [], complete: true };
    const since = query.since && query.since > stored.oldest ? query.since : stored.oldest;
    const end = new Date(stored.newest.getTime() + 1);
    const until = query.until < end ? query.until : end;
    const agents = query.filter.agents && (await agentsOf(db, query.filter.agents, since));
    return readBounded<AttemptRow>(query.limit, (last, limit) => {
      const after = last ? ([last.started_at.getTime(), last.attempt_id] as const) : query.after;
      return attemptsAfter(db, { ...query, agents, since, until, after, limit });
    });
  });
}

/** The ids of the agents of a filter, including agents that had one of the names earlier. */
async function agentsOf(db: Knex, { names, ids, from, to }: AgentFilter, since: Date): Promise<readonly number[]> {
  const { rows } = await db.raw<{ rows: { agent_id: number }[] }>(
    `select distinct agent_id from llm_usage_hourly
      where agent_name = any(?::text[]) and hour >= date_trunc('hour', ?::timestamptz, 'UTC') and hour < ?`,
    [textArray(names), from > since ? from : since, to],
  );
  return [...new Set([...ids, ...rows.map(({ agent_id }) => agent_id)])];
}

interface BoundedQuery extends AttemptQuery {
  readonly since: Date;
  readonly agents: readonly number[] | undefined;
}

/** Reads month by month, so that each statement reads one partition in the order of an index. */
async function attemptsAfter(db: Knex, query: BoundedQuery): Promise<AttemptRow[]> {
  const rows: AttemptRow[] = [];
  const newest = query.after ? new Date(query.after[0] + 1) : query.until;
  for (let to = newest < query.until ? newest : query.until; to > query.since && rows.length < query.limit; ) {
    const last = new Date(to.getTime() - 1);
    const month = new Date(Date.UTC(last.getUTCFullYear(), last.getUTCMonth(), 1));
    const from = month > query.since ? month : query.since;
    rows.push(...(await attemptsBetween(db, from, to, { ...query, limit: query.limit - rows.length })));
    to = from;
  }
  return rows;
}

const SELECT = `select a.attempt_id, a.started_at, a.recorded_at, a.outcome, a.cost_nano_usd, a.unpriced_reason,
       a.price_revision, a.price_from_config, a.record,
       (select sum(adjustment_nano_usd) from llm_usage_adjustments as j where j.attempt_id = a.attempt_id) as adjustment
  from llm_usage_attempts as a`;
const NEWEST_FIRST = 'order by started_at desc, attempt_id desc limit ?';
const ADJUSTED = 'exists (select from llm_usage_adjustments as j where j.attempt_id = a.attempt_id)';

async function attemptsBetween(db: Knex, from: Date, to: Date, query: BoundedQuery): Promise<AttemptRow[]> {
  const [condition, bindings] = conditionOf({ ...query.filter, agents: undefined });
  const { agents, after, runId, unpricedOnly, limit } = query;
  const where = `slot = ? and started_at >= ? and started_at < ?${condition}
    ${after ? 'and (started_at, attempt_id) < (?, ?::uuid)' : ''} ${runId ? 'and run_id = ?' : ''}
    ${unpricedOnly ? `and cost_nano_usd is null and not ${ADJUSTED}` : ''}`;
  const whereBindings = [
    slotOf(from),
    from,
    to,
    ...bindings,
    ...(after ? [new Date(after[0]), after[1]] : []),
    ...(runId ? [runId] : []),
  ];
  // Reads the newest attempts of each agent in the order of an index, and then takes the newest of all.
  const sql = agents
    ? `select one.* from unnest(?::int[]) as listed (id) cross join lateral (
         ${SELECT} where agent_id = listed.id and ${where}
         ${NEWEST_FIRST}) as one ${NEWEST_FIRST}`
    : `${SELECT} where ${where} ${NEWEST_FIRST}`;
  const all = agents ? [numberArray(agents), ...whereBindings, limit, limit] : [...whereBindings, limit];
  const { rows } = await db.raw<{ rows: AttemptRow[] }>(sql, all as Knex.RawBinding[]);
  return rows;
}
