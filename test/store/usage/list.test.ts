import type { Knex } from 'knex';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AttemptQuery, listAttempts } from '../../../src/store/usage/list.js';
import { startPostgres } from '../../support/postgres.js';
import { openStore, type TestStore } from '../../support/store.js';

/** Attempts of 40 busy agents in three months, and few of a quiet one. */
const ATTEMPTS = 200_000;
const START = Date.UTC(2026, 0, 1);
const STEP_MS = 38_880;
const QUIET = 99;

describe('a list of the attempts of an agent', () => {
  let opened: TestStore;
  let db: Knex;
  let stop = async () => {};

  beforeAll(async () => {
    const postgres = await startPostgres();
    stop = () => postgres.stop();
    opened = await openStore({ url: await postgres.createDatabase('migrated') });
    db = opened.database.knex;
    await db.raw(
      `insert into llm_usage_attempts (slot, started_at, attempt_id, agent_id, agent_name, provider, model_name, outcome,
                                       fallback, input_tokens, output_tokens, cost_nano_usd, record)
       select (extract(year from at)::int * 12 + extract(month from at)::int) % 13, at, gen_random_uuid(), agent,
              'agent ' || agent, 'openai', 'gpt-4', 'ATTEMPT_OUTCOME_SUCCEEDED', false, 1, 1, 1, ''
         from (select timestamp '2026-01-01' + n::float8 * ?::int * interval '1 ms' as at,
                      case when n % 20000 = 7 then ?::int else n % 40 + 1 end as agent
                 from generate_series(0, ?::int - 1) as n) as made`,
      [STEP_MS, QUIET, ATTEMPTS],
    );
    await db.raw(
      `insert into llm_usage_hourly (hour, agent_id, config_id, provider, model_name, experiment, variant, outcome, fallback,
                                     agent_name, newest_at, attempts, unpriced_attempts, input_tokens,
                                     input_no_cache_tokens, input_cache_read_tokens, input_cache_write_tokens,
                                     input_cache_write_long_tokens, output_tokens, output_reasoning_tokens, cost_nano_usd)
       select date_trunc('hour', started_at, 'UTC'), agent_id, 0, 'openai', 'gpt-4', '', '', outcome, false, max(agent_name),
              max(started_at), count(*), 0, 0, 0, 0, 0, 0, 0, 0, 0
         from llm_usage_attempts group by 1, 2, outcome`,
    );
    await db.raw('analyze llm_usage_attempts');
    await db.raw('analyze llm_usage_hourly');
  }, 120_000);
  afterAll(async () => {
    await opened.close();
    await stop();
  });

  const query = (ids: number[], names: string[], more: Partial<AttemptQuery> = {}): AttemptQuery => ({
    since: undefined,
    until: new Date(START + 365 * 86_400_000),
    filter: {
      agents: { names, ids, from: new Date(0), to: new Date(START + 365 * 86_400_000) },
      configIds: [],
      providers: [],
      models: [],
      experiment: '',
      variants: [],
      outcomes: [],
      fallback: undefined,
    },
    runId: '',
    unpricedOnly: false,
    after: undefined,
    limit: 101,
    ...more,
  });
  /** The statements that a list runs, with their bindings. */
  const statements: { readonly sql: string; readonly bindings: Knex.RawBinding[] }[] = [];
  const list = async (wanted: AttemptQuery) => {
    statements.length = 0;
    const note = (one: (typeof statements)[number]) => statements.push(one);
    db.on('query', note);
    const { rows } = await listAttempts(opened.store, wanted);
    db.removeListener('query', note);
    return rows;
  };

  it('reads about as many rows as it returns, also for an agent with few of them', async () => {
    const found = await list(query([QUIET], ['agent 99']));
    expect(found).toHaveLength(ATTEMPTS / 20_000);
    expect(found.map(({ started_at }) => started_at.getTime())).toEqual(
      found.map(({ started_at }) => started_at.getTime()).sort((a, b) => b - a),
    );
    expect(await list(query([3, 5], ['agent 3', 'agent 5']))).toHaveLength(101);
    const ofAttempts = statements.filter(({ sql }) => /from llm_usage_attempts as a\s+where agent_id/.test(sql));
    expect(ofAttempts.length).toBeGreaterThan(0);
    for (const { sql, bindings } of ofAttempts) {
      const { rows } = await db.raw(`explain (analyze, format json) ${sql.replace(/\$\d+/g, '?')}`, bindings);
      const plan = JSON.stringify(rows[0]['QUERY PLAN']);
      expect(plan).toContain('"Index Name":"llm_usage_attempts_');
      expect(plan).not.toContain('Seq Scan');
      const read = [...plan.matchAll(/"Actual Rows":\s*([\d.]+)/g)].map(([, rowCount]) => Number(rowCount));
      expect(Math.max(...read)).toBeLessThanOrEqual(202);
    }
  });

  it('continues after a position, and finds attempts under an earlier name', async () => {
    const all = await list(query([3], ['agent 3'], { limit: 250 }));
    const last = all[100];
    const after = [last?.started_at.getTime() ?? 0, last?.attempt_id ?? ''] as const;
    expect(await list(query([3], ['agent 3'], { after, limit: 149 }))).toEqual(all.slice(101));
    // An agent that was renamed.
    const [renamed] = await list(query([7], ['agent 7'], { limit: 1 }));
    await db('llm_usage_hourly').where({ agent_id: 7 }).update({ agent_name: 'before' });
    const before = await list(query([], ['before'], { limit: 1 }));
    expect(before.map(({ attempt_id }) => attempt_id)).toEqual([renamed?.attempt_id]);
  });
});
