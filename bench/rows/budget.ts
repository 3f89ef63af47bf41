import {
  BudgetServiceService,
  CreateBudgetRequest,
  CreateBudgetResponse,
} from '../../gen/ts/agentllm/v1/budget_service.js';
import { runJob } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { ReserveJob } from '../reserve_loop.js';
import type { Row } from '../row.js';
import type { LoopResult } from '../script.js';
import { startService } from '../service.js';
import { compare, interleave, quantile } from '../statistics.js';

export const row: Row = {
  name: 'budget',
  about: 'Reserve on PostgreSQL against a bare UPDATE … RETURNING of the same row',
  target: 'at least 0.7 of its throughput with 8 in flight',
  async run(lab) {
    const postgres = await startPostgres(lab);
    const databaseUrl = await postgres.createDatabase();
    const service = await startService(lab, { DATABASE_URL: databaseUrl });
    const budget = {
      name: 'bench',
      scope: 'BUDGET_SCOPE_ALL',
      period: 'BUDGET_PERIOD_TOTAL',
      limit_nano_usd: 1_000_000_000_000_000_000n,
      action: 'BUDGET_ACTION_BLOCK',
    } as const;
    const request = CreateBudgetRequest.encode(CreateBudgetRequest.fromPartial({ budget })).finish();
    const created = CreateBudgetResponse.decode(await service.client(BudgetServiceService.createBudget.path, request));
    await service.program.stop();
    const budgetId = created.budget?.id ?? 0;
    const createdAt = created.budget?.created_at?.getTime() ?? 0;
    const script = lab.startScript('reserve_loop.ts');
    await script.match(/ready/);
    const measure = async (side: ReserveJob['side']) => {
      const job: ReserveJob = { databaseUrl, budgetId, createdAt, side, concurrency: 8, ...lab.effort };
      const { perSecond, latencies } = await runJob<LoopResult>(script, job);
      return { perSecond, p99: quantile(latencies, 0.99) };
    };
    const pairs = await interleave(
      lab.effort.rounds,
      () => measure('ours'),
      () => measure('reference'),
    );
    return [
      {
        what: 'Reserve, 8 in flight, throughput',
        unit: 'reservations/s',
        ...compare(pairs, ({ perSecond }) => perSecond),
        goal: { kind: 'ratio at least', value: 0.7 },
        note: 'fsync off on both sides; one row for all callers',
      },
      { what: 'Reserve, 8 in flight, p99', unit: 'ms', ...compare(pairs, ({ p99 }) => p99) },
    ];
  },
};
