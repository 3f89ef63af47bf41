import { randomUUID } from 'node:crypto';
import { describe, expect, it, onTestFinished } from 'vitest';
import { StreamUsageRequest } from '../../gen/ts/agentllm/v1/usage_service.js';
import { startPostgres } from '../support/postgres.js';
import { unique } from '../support/service.js';
import { startBackend, type TestBackend } from '../support/store.js';
import { until } from '../support/until.js';
import { openUsageStream, usageRecord } from '../support/usage.js';
import { hasPgBouncer, startPgBouncer } from './pgbouncer.js';

const LIMIT = 10_000_000n;
const ROUNDS = 5;
const CALLERS = 4;

const installed = hasPgBouncer();
if (!installed) console.log('PgBouncer is not installed: its tests are skipped (apt-get install pgbouncer)');

describe.runIf(installed)('usage and budgets of two replicas through PgBouncer in transaction mode', () => {
  it('are counted once and exactly, and no budget is overspent', { timeout: 180_000 }, async () => {
    const postgres = await startPostgres({ own: true });
    onTestFinished(() => postgres.stop());
    const url = await postgres.createDatabase('seeded');
    // Fewer sessions than the replicas have connections, so that their transactions share sessions.
    const bouncer = await startPgBouncer(postgres.url, 3);
    onTestFinished(() => bouncer.stop());
    const replicas: TestBackend[] = [];
    for (let n = 0; n < 2; n++) {
      const replica = await startBackend({ url: bouncer.through(url) });
      replicas.push(replica);
      onTestFinished(() => replica.close());
    }
    const [first, second] = replicas as [TestBackend, TestBackend];
    const name = unique('agent');
    const { agent } = await first.agents.createAgent({ agent: { name, agent_type: 'analyst' } });
    const id = agent?.id as number;
    // 100 output tokens cost 100 000 nano-USD.
    const PRICED = { cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0.001, max_tokens: 100 };
    const MODEL = { provider: 'openai', model_name: 'gpt-4', ...PRICED };
    const { config } = await first.configs.createConfig({ agent: { id }, config: MODEL });
    const budget = {
      name: unique('budget'),
      scope: 'BUDGET_SCOPE_AGENT',
      period: 'BUDGET_PERIOD_TOTAL',
      limit_nano_usd: LIMIT,
      action: 'BUDGET_ACTION_BLOCK',
    } as const;
    const { revision } = await first.budgets.createBudget({ agent: { id }, budget });
    await second.budgets.getBudget({ name: budget.name, min_revision: revision });

    const recordOf = (reservation_id: string) =>
      usageRecord({
        agent: name,
        agent_id: id,
        attempt: {
          provider: MODEL.provider,
          model_name: MODEL.model_name,
          config_id: config?.id,
          reservation_id,
          usage: { input_tokens: 0, output_tokens: 100 },
        },
      });
    let fresh = 0;
    const call = async ({ budgets, usage }: TestBackend, other: TestBackend) => {
      const reservation_id = randomUUID();
      const ref = { agent: { id }, reservation_id };
      const { reservation } = await budgets.reserve({ ...ref, attempts: 2 });
      if (!reservation) return;
      const [early, late] = [recordOf(reservation_id), recordOf(reservation_id)];
      const recorded = await usage.recordUsage({ records: [early], losses: [] });
      const { results } = await other.budgets.commit({ ...ref, records: [early, late] });
      fresh += recorded.new_count + results.filter(({ status }) => status === 'USAGE_STATUS_NEW').length;
    };
    await Promise.all(
      Array.from({ length: CALLERS }, async (_, n) => {
        for (let round = 0; round < ROUNDS; round++) await (n % 2 ? call(first, second) : call(second, first));
      }),
    );
    const { stream, received } = openUsageStream(second.port);
    for (let sequence = 1n; sequence <= 10n; sequence++)
      stream.write(StreamUsageRequest.fromPartial({ sequence, records: [recordOf(''), recordOf('')] }));
    await until(() => received.length === 10);
    fresh += received.reduce((sum, { new_count }) => sum + new_count, 0);

    const { state } = await second.budgets.getBudgetState({ name: budget.name });
    expect(state).toMatchObject({ reserved_nano_usd: 0n, open_reservations: 0, unreserved_nano_usd: 2_000_000n });
    expect(state?.spent_nano_usd).toBe(BigInt(fresh) * 100_000n);
    expect((state?.spent_nano_usd ?? 0n) - 2_000_000n).toBeLessThanOrEqual(LIMIT);
    const since = new Date(Date.now() - 7_200_000);
    since.setUTCMinutes(0, 0, 0);
    const filter = { agents: [name] };
    for (const { usage } of replicas) {
      const { totals } = await usage.queryUsage({ since, until: new Date(since.getTime() + 14_400_000), filter });
      expect(totals).toMatchObject({ attempts: BigInt(fresh), cost_nano_usd: BigInt(fresh) * 100_000n });
      expect((await usage.listUsage({ filter, page_size: 1000 })).attempts).toHaveLength(fresh);
    }
  });
});
