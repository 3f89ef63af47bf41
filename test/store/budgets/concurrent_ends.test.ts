import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { counterKey } from '../../../src/domain/budget_counter.js';
import type { Agent, Budget } from '../../../src/domain/rows.js';
import { chargeBudgets } from '../../../src/store/budgets/charge.js';
import { readCounters } from '../../../src/store/budgets/counters.js';
import type { NewAttempt } from '../../../src/store/usage/new_attempt.js';
import { UsageWriter } from '../../../src/store/usage/usage_writer.js';
import { startPostgres } from '../../support/postgres.js';
import { openStore, type TestStore } from '../../support/store.js';
import { createAgent, createBudget, reserveIn } from './support.js';

const AGENTS = 6;
const ROUNDS = 4;

describe('reservations that two replicas end at the same time', () => {
  let opened: TestStore;
  let stop = async () => {};
  beforeAll(async () => {
    const postgres = await startPostgres();
    stop = () => postgres.stop();
    opened = await openStore({ url: await postgres.createDatabase('migrated') });
  });
  afterAll(async () => {
    await opened?.close();
    await stop();
  });

  const attemptOf = (agent: Agent, reservation_id: string): NewAttempt => ({
    attempt_id: randomUUID(),
    started_at: new Date(),
    agent_id: agent.id,
    agent_name: agent.name,
    config_id: null,
    provider: 'openai',
    model_name: 'gpt-4',
    experiment: '',
    variant: '',
    run_id: '',
    outcome: 'ATTEMPT_OUTCOME_SUCCEEDED',
    fallback: false,
    input_tokens: 1,
    input_no_cache_tokens: 1,
    input_cache_read_tokens: null,
    input_cache_write_tokens: null,
    input_cache_write_long_tokens: null,
    output_tokens: 1,
    output_reasoning_tokens: null,
    cost_nano_usd: 1n,
    unpriced_reason: null,
    price_revision: 1,
    price_from_config: false,
    reservation_id,
    subject: '',
    call: undefined,
    revision: 0,
    record: Buffer.alloc(0),
  });

  const deadlocks = async () => {
    // The statistics of a session are sent at its end or once a second.
    await opened.database.knex.raw('select pg_stat_force_next_flush()').catch(() => undefined);
    const { rows } = await opened.database.knex.raw<{ rows: { deadlocks: number }[] }>(
      'select deadlocks from pg_stat_database where datname = current_database()',
    );
    return rows[0]?.deadlocks;
  };

  it('do not wait for each other in a circle, with and without attempts, and all amounts are exact', async () => {
    const agents: Agent[] = [];
    const budgets: Budget[] = [];
    for (let n = 0; n < AGENTS; n++) {
      const agent = await createAgent(opened);
      agents.push(agent);
      budgets.push(await createBudget(opened, { agent_id: agent.id, limit_nano_usd: 1_000_000n }));
    }
    const writers = [0, 1].map(
      () =>
        new UsageWriter(opened.store, (tx, attempts, ending) =>
          chargeBudgets(tx, opened.store.state, attempts, ending),
        ),
    );
    let spent = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const held = await Promise.all(
        Array.from({ length: AGENTS * 8 }, async (_, n) => {
          const at = n % AGENTS;
          const id = randomUUID();
          await reserveIn(opened, agents[at] as Agent, [budgets[at] as Budget], { cost: 10n, id });
          return { id, agent: agents[at] as Agent };
        }),
      );
      await Promise.all(
        held.map(({ id, agent }, n) => {
          const attempts = n % 3 === 0 ? [] : [attemptOf(agent, id)];
          spent += attempts.length;
          const ending = { id, agentId: agent.id };
          return (writers[n % 2] as UsageWriter).add({ attempts, losses: [], ending }, undefined);
        }),
      );
    }
    const keys = budgets.map((budget) => counterKey(budget, '', new Date()));
    const counters = await readCounters(opened.database.knex, keys);
    expect(counters.map(({ reserved, open }) => [reserved, open])).toEqual(budgets.map(() => [0n, 0]));
    expect(counters.reduce((sum, { spent: one }) => sum + one, 0n)).toBe(BigInt(spent));
    expect(counters.every(({ spent: all, committed }) => all === committed)).toBe(true);
    expect(await deadlocks()).toBe(0);
  }, 120_000);
});
