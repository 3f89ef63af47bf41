import type { Knex } from 'knex';
import { type ReportedRanges, SUMMED_UNITS } from '../../domain/usage_period.js';
import { numberArray, timeArray } from '../array_literal.js';
import { onDatabase } from '../failure.js';
import type { Store } from '../store.js';
import { type AttemptFilter, type Condition, conditionOf } from './filter.js';
import { slotOf } from './new_attempt.js';
import { SUM_TABLES, TOKENS } from './sums.js';
import { inRanges } from './unit_ranges.js';

/** A column of the key of a group, and its type in a page token. */
interface KeyColumn {
  readonly name: string;
  readonly isText: boolean;
}
const text = (name: string): KeyColumn => ({ name, isText: true });
const integer = (name: string): KeyColumn => ({ name, isText: false });

/** The columns of each dimension, in the order in which groups are sorted. */
const KEYS = {
  agent: [integer('agent_id')],
  config: [integer('config_id')],
  provider: [text('provider')],
  model: [text('provider'), text('model_name')],
  variant: [text('experiment'), text('variant')],
  outcome: [text('outcome')],
  fallback: [integer('is_fallback')],
} as const satisfies Readonly<Record<string, readonly KeyColumn[]>>;

export type Dimension = keyof typeof KEYS;

/** The filter and the grouping of a report. */
export interface UsageQuery {
  readonly ranges: ReportedRanges;
  /** The starts of the periods that the report groups by; `hours`: the hours of UTC; undefined: no periods. */
  readonly periods: readonly number[] | 'hours' | undefined;
  readonly dimensions: readonly Dimension[];
  readonly filter: AttemptFilter;
  /** Only groups after this key. */
  readonly after: readonly (string | number)[] | undefined;
  readonly limit: number;
}

/** The sums as PostgreSQL returns them: bigint as a number, and numeric as text. */
const COUNTS = ['attempts', 'unsuccessful_attempts', 'unpriced_attempts', ...TOKENS, 'cost_nano_usd'] as const;
export type Sums = Readonly<Record<(typeof COUNTS)[number], string>>;

export interface GroupRow extends Sums {
  readonly start_ms: number | null;
  readonly agent_id: number;
  readonly agent_name: string;
  readonly config_id: number;
  readonly provider: string;
  readonly model_name: string;
  readonly experiment: string;
  readonly variant: string;
  readonly outcome: string;
  readonly is_fallback: number;
}

/** The columns of the key of the groups of a report, in their order. */
export function keyColumns({ periods, dimensions }: Pick<UsageQuery, 'periods' | 'dimensions'>): readonly KeyColumn[] {
  const used = (Object.keys(KEYS) as Dimension[]).filter((dimension) => dimensions.includes(dimension));
  const columns = [...(periods ? [integer('start_ms')] : []), ...used.flatMap((dimension) => KEYS[dimension])];
  return [...new Map(columns.map((column) => [column.name, column])).values()];
}

/** The groups of a page, and the sums over all groups. They are consistent because one statement returns both. */
export async function queryUsage(store: Store, query: UsageQuery): Promise<{ groups: GroupRow[]; totals: Sums }> {
  const [sql, bindings] = statementOf(query);
  const { rows } = await onDatabase(store, (db) =>
    db.raw<{ rows: (GroupRow & { totals: Sums })[] }>(sql, bindings as never),
  );
  const [first] = rows;
  if (!first) throw new Error('a sum has one row');
  return { groups: rows.filter((row) => row.attempts !== null), totals: first.totals };
}

function statementOf(query: UsageQuery): Condition {
  const keys = keyColumns(query);
  const names = keys.map(({ name }) => name);
  const [rows, rowBindings] = rowsOf(query);
  // The tokens of an attempt are null if the provider did not report them.
  const sums = COUNTS.map((name) => `coalesce(sum(${name}), 0) as ${name}`).join(', ');
  const sorted = keys.map(({ name, isText }) => (isText ? `${name} collate "C"` : name));
  const { after, limit } = query;
  const isAfter = after ? `where (${sorted.join(', ')}) > (${keys.map((key) => bound(key)).join(', ')})` : '';
  const newestName = query.dimensions.includes('agent') ? NEWEST_NAME : `''`;
  const totals = COUNTS.map((name) => `'${name}', coalesce(sum(${name}), 0)::text`).join(', ');
  const sql = `with periods as (select ?::timestamptz[] as starts), summands as (${rows}),
    sums as (select ${[...names, 'count(*) as summands'].join(', ')}, ${sums},
                    ${newestName} as agent_name
               from summands ${names.length > 0 ? `group by ${names.join(', ')}` : 'having count(*) > 0'}),
    page as (select * from sums ${isAfter} ${sorted.length > 0 ? `order by ${sorted.join(', ')}` : ''} limit ?)
    select page.*, total.totals from (select json_build_object(${totals}) as totals from sums) as total
      left join page on true ${sorted.length > 0 ? `order by ${sorted.join(', ')}` : ''}`;
  const starts = Array.isArray(query.periods) ? query.periods.map((ms) => new Date(ms)) : [];
  return [sql, [timeArray(starts), ...rowBindings, ...((after ?? []) as Knex.RawBinding[]), limit]];
}

/**
 * Computes the name in the newest attempt as the maximum of the text of a UTC time and a name, because an ordered
 * aggregate would sort all rows. The text has the order of the time, because '+' sorts before '.'.
 */
const NEWEST_NAME = `regexp_replace(max((newest_at::text || agent_name) collate "C"), '^[^+]*[+]00', '')`;

const bound = ({ isText }: KeyColumn) => (isText ? '?::text collate "C"' : '?::bigint');

/** The rows to sum: sums of whole months, days and hours, and attempts of parts of hours. */
function rowsOf({ ranges, periods, filter }: UsageQuery): Condition {
  const [condition, bindings] = conditionOf(filter);
  const startOf = (at: string) => {
    if (periods === undefined) return 'null::bigint';
    const start = periods === 'hours' ? `date_trunc('hour', ${at}, 'UTC')` : `starts[width_bucket(${at}, starts)]`;
    return `(extract(epoch from ${start}) * 1000)::bigint`;
  };
  const columns = (
    at: string,
    newestAt: string,
  ) => `${startOf(at)} as start_ms, agent_id, coalesce(config_id, 0) as config_id,
    provider, model_name, experiment, variant, outcome, fallback::int as is_fallback, agent_name, ${newestAt} as newest_at,
    attempts, case when outcome = 'ATTEMPT_OUTCOME_SUCCEEDED' then 0 else attempts end as unsuccessful_attempts,
    unpriced_attempts, ${TOKENS.join(', ')}, cost_nano_usd`;
  const selects = SUMMED_UNITS.filter((unit) => ranges[unit].length > 0).map((unit): Condition => {
    const [isInRange, bounds] = inRanges(unit, ranges[unit]);
    const sums = `select ${columns(unit, 'newest_at')} from periods, ${SUM_TABLES[unit]} where ${isInRange}${condition}`;
    return [sums, [...bounds, ...bindings]];
  });
  const { parts } = ranges;
  if (parts.length > 0) {
    const attempts = `select ${columns('started_at', 'started_at')}
       from periods, unnest(?::smallint[], ?::timestamptz[], ?::timestamptz[]) as part (part_slot, part_from, part_to)
      cross join lateral (${PRICED} where slot = part_slot and started_at >= part_from and started_at < part_to) as one
      where true${condition}`;
    const slots = numberArray(parts.map(({ from }) => slotOf(new Date(from))));
    const [froms, tos] = [parts.map(({ from }) => new Date(from)), parts.map(({ to }) => new Date(to))];
    selects.push([attempts, [slots, timeArray(froms), timeArray(tos), ...bindings]]);
  }
  return [selects.map(([sql]) => sql).join(' union all '), selects.flatMap(([, all]) => all)];
}

/** Attempts with the columns of sums; their adjustments are included. */
const PRICED = `select a.slot, a.started_at, a.agent_id, a.agent_name, a.config_id, a.provider, a.model_name, a.experiment,
    a.variant, a.outcome, a.fallback, ${TOKENS.map((name) => `a.${name}`).join(', ')}, 1 as attempts,
    coalesce(a.cost_nano_usd, 0) + coalesce(adjusted.amount, 0) as cost_nano_usd,
    case when a.cost_nano_usd is null and adjusted.amount is null then 1 else 0 end as unpriced_attempts
  from llm_usage_attempts as a
  left join lateral (select sum(adjustment_nano_usd) as amount from llm_usage_adjustments as j
                      where j.attempt_id = a.attempt_id) as adjusted on true`;

/** The number of dropped attempts that processes reported, by the time of the first one. */
export async function lostAttempts(store: Store, since: Date, until: Date, agents: readonly string[]): Promise<bigint> {
  const [row] = await onDatabase(store, (db) => {
    const losses = db('llm_usage_losses')
      .where('last_at', '>=', since)
      .where('first_at', '>=', since)
      .where('first_at', '<', until)
      .select(db.raw('least(coalesce(sum(attempts), 0), 9223372036854775807)::text as attempts'));
    if (agents.length > 0) losses.whereRaw('agent_name = any(?::text[])', [agents as string[]]);
    return losses;
  });
  return BigInt(row.attempts);
}
