import { SUMMED_UNITS, type SummedUnit } from '../../domain/usage_period.js';

/*
 * The sums of attempts for each hour, day and month of UTC. Each statement that changes attempts or their costs adds the
 * change to the tables of all units, so every report over the same attempts has the same totals.
 */

export const SUM_TABLES: Readonly<Record<SummedUnit, string>> = {
  hour: 'llm_usage_hourly',
  day: 'llm_usage_daily',
  month: 'llm_usage_monthly',
};

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

/** The key of a table of sums, after the start of the unit. */
const DIMENSIONS = [
  'agent_id',
  'config_id',
  'provider',
  'model_name',
  'experiment',
  'variant',
  'outcome',
  'fallback',
] as const;
export const sumsKey = (unit: SummedUnit): readonly string[] => [unit, ...DIMENSIONS];

const SUMS = ['attempts', 'unpriced_attempts', ...TOKENS, 'cost_nano_usd'] as const;
const COLUMNS = ['agent_name', 'newest_at', ...SUMS].join(', ');
const IS_NEWER = '(excluded.newest_at, excluded.agent_name) > (s.newest_at, s.agent_name)';

/** The rows of a unit, in the order of their key. `hours` has the columns of `llm_usage_hourly`. */
export function selectSums(unit: SummedUnit, hours: string, condition = ''): string {
  const key = sumsKey(unit).join(', ');
  if (unit === 'hour') return `select ${key}, ${COLUMNS} from ${hours} ${condition} order by ${key}`;
  return `
    select date_trunc('${unit}', hour, 'UTC') as ${unit}, ${DIMENSIONS.join(', ')},
           (array_agg(agent_name order by newest_at desc, agent_name desc))[1] as agent_name, max(newest_at) as newest_at,
           ${SUMS.map((name) => `sum(${name}) as ${name}`).join(', ')}
      from ${hours} ${condition} group by 1, 2, 3, 4, 5, 6, 7, 8, 9 order by 1, 2, 3, 4, 5, 6, 7, 8, 9`;
}

/**
 * Common table expressions that add hourly sums to all tables of sums. The tables are updated in a fixed order and each
 * in the order of its key, so that two statements do not wait for each other.
 */
export function addSums(hours: string): string {
  const units = [...SUMMED_UNITS].reverse();
  const added = units.map((unit, at) => {
    const before = units[at - 1];
    const key = sumsKey(unit).join(', ');
    return `added_${unit} as (
      insert into ${SUM_TABLES[unit]} as s (${key}, ${COLUMNS})
      ${selectSums(unit, hours, before && `where (select count(*) from added_${before}) >= 0`)}
          on conflict (${key}) do update set
             agent_name = case when ${IS_NEWER} then excluded.agent_name else s.agent_name end,
             newest_at = greatest(excluded.newest_at, s.newest_at),
             ${SUMS.map((name) => `${name} = s.${name} + excluded.${name}`).join(', ')}
       returning 1)`;
  });
  return added.join(', ');
}
