import pg from 'pg';
import { UsageDimension } from '../../gen/ts/agentllm/v1/usage.js';
import { QueryUsageRequest, QueryUsageResponse, UsageServiceService } from '../../gen/ts/agentllm/v1/usage_service.js';
import type { Lab } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { Figure, Row } from '../row.js';
import { startService } from '../service.js';
import { compare, interleave } from '../statistics.js';

/** Attempts in the database; `USAGE_REPORT_ATTEMPTS` makes a short run possible. */
const ATTEMPTS = Number(process.env['USAGE_REPORT_ATTEMPTS'] ?? 10_000_000);
const DAYS = 30;
const WARM_UP_CALLS = 20;
const SINCE = '2026-05-01T00:00:00Z';
const UNTIL = '2026-05-31T00:00:00Z';

/** Attempts of 12 agents with 5 models, evenly over the range. */
const FILL = `insert into llm_usage_attempts (slot, started_at, attempt_id, agent_id, agent_name, provider, model_name,
    outcome, fallback, input_tokens, output_tokens, cost_nano_usd, record)
  select (2026 * 12 + 5) % 13, timestamptz '${SINCE}' + n * interval '1 second' * (${DAYS} * 86400.0 / ${ATTEMPTS}),
         gen_random_uuid(), 1 + n % 12, 'agent_' || n % 12, 'openai', 'model_' || n % 5, 'ATTEMPT_OUTCOME_SUCCEEDED',
         false, 1000, 100, n, '' from generate_series(0, ${ATTEMPTS - 1}) as n`;
const SUM = `insert into llm_usage_hourly
  select date_trunc('hour', started_at, 'UTC'), agent_id, 0, provider, model_name, '', '', outcome, fallback,
         max(agent_name), max(started_at), count(*), 0, sum(input_tokens), 0, 0, 0, 0, sum(output_tokens), 0,
         sum(cost_nano_usd)
    from llm_usage_attempts group by 1, 2, 4, 5, 8, 9`;
/** The sums of the year before, for the same agents and models, without their attempts. */
const YEAR_BEFORE = `insert into llm_usage_hourly
  select hour, 1 + n % 12, 0, 'openai', 'model_' || n / 12, '', '', 'ATTEMPT_OUTCOME_SUCCEEDED', false, 'agent_' || n % 12,
         hour, 10, 0, 10000, 0, 0, 0, 0, 1000, 0, n
    from generate_series(timestamptz '2025-01-01T00:00:00Z', '2025-12-31T23:00:00Z', '1 hour') as hour,
         generate_series(0, 59) as n`;
const sumsBy = (unit: string, from: string, into: string) => `insert into ${into}
  select date_trunc('${unit}', ${from === 'llm_usage_hourly' ? 'hour' : 'day'}, 'UTC'), agent_id, config_id, provider,
         model_name, experiment, variant, outcome, fallback, max(agent_name), max(newest_at), sum(attempts),
         sum(unpriced_attempts), sum(input_tokens), 0, 0, 0, 0, sum(output_tokens), 0, sum(cost_nano_usd)
    from ${from} group by 1, 2, 3, 4, 5, 6, 7, 8, 9`;
const RAW = `select agent_id, count(*), sum(input_tokens), sum(output_tokens), sum(cost_nano_usd)::text as cost
  from llm_usage_attempts where started_at >= $1 and started_at < $2 group by agent_id order by agent_id`;

export const row: Row = {
  name: 'usage_report',
  about: `QueryUsage by agent over ${ATTEMPTS} attempts against the same GROUP BY over the attempts`,
  target: 'at least 100 times as fast',
  async run(lab: Lab): Promise<Figure[]> {
    const postgres = await startPostgres(lab);
    const url = await postgres.createDatabase();
    const service = await startService(lab, { DATABASE_URL: url });
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    lab.onClose(() => client.end());
    await client.query(FILL);
    await client.query(SUM);
    await client.query(YEAR_BEFORE);
    await client.query(sumsBy('day', 'llm_usage_hourly', 'llm_usage_daily'));
    await client.query(sumsBy('month', 'llm_usage_daily', 'llm_usage_monthly'));
    await client.query('vacuum analyze');
    const report = async (since: string, until: string) => {
      const fields = { since: new Date(since), until: new Date(until), group_by: [UsageDimension.AGENT] };
      const request = QueryUsageRequest.encode(QueryUsageRequest.fromPartial(fields)).finish();
      const startedAt = performance.now();
      const bytes = await service.client(UsageServiceService.queryUsage.path, request);
      const ms = performance.now() - startedAt;
      return { ms, groups: QueryUsageResponse.decode(bytes).groups };
    };
    const expected = await client.query<{ cost: string }>(RAW, [SINCE, UNTIL]);
    const ours = async () => {
      const { ms, groups } = await report(SINCE, UNTIL);
      const costs = groups.map(({ totals }) => String(totals?.cost_nano_usd));
      if (costs.join() !== expected.rows.map(({ cost }) => cost).join()) throw new Error('the report has other costs');
      return { ms };
    };
    const raw = async () => {
      const startedAt = performance.now();
      await client.query(RAW, [SINCE, UNTIL]);
      return { ms: performance.now() - startedAt };
    };
    // The first calls of a service that has just started measure its start.
    for (let call = 0; call < WARM_UP_CALLS; call++) await ours();
    const pairs = await interleave(lab.effort.rounds, ours, raw);
    const lengths = await interleave(
      lab.effort.rounds * 10,
      () => report('2025-01-01T00:00:00Z', '2026-01-01T00:00:00Z'),
      () => report('2025-06-10T00:00:00Z', '2025-06-11T00:00:00Z'),
    );
    return [
      {
        what: `QueryUsage by agent, ${ATTEMPTS} attempts`,
        unit: 'ms',
        ...compare(pairs, ({ ms }) => ms),
        goal: { kind: 'ratio at most', value: 0.01 },
      },
      {
        what: 'QueryUsage by agent over a year, against one day',
        unit: 'ms',
        ...compare(lengths, ({ ms }) => ms),
        goal: { kind: 'ratio at most', value: 1.5 },
      },
    ];
  },
};
