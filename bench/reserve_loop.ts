import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { newBudget } from '../src/domain/budget.js';
import { counterKey } from '../src/domain/budget_counter.js';
import { hourOf } from '../src/domain/budget_period.js';
import { built } from './built.js';
import { closedLoop, serveJobs } from './script.js';

/*
 * Measures Reserve as the service runs it, and a reference: one UPDATE … RETURNING of the row that has the amounts. In both
 * cases all callers use the same row.
 */

export interface ReserveJob {
  readonly databaseUrl: string;
  readonly budgetId: number;
  /** The creation of the budget, in ms since 1970. */
  readonly createdAt: number;
  readonly side: 'ours' | 'reference';
  readonly concurrency: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

const { createCounters } = await built<typeof import('../src/store/budgets/counters.js')>('store/budgets/counters.js');
const { ReservationWriter } = await built<typeof import('../src/store/budgets/reservation_writer.js')>(
  'store/budgets/reservation_writer.js',
);
const { openDatabase } = await built<typeof import('../src/store/database.js')>('store/database.js');

const BARE = `update llm_budget_counters set reserved_nano_usd = reserved_nano_usd + 1, updated_at = clock_timestamp()
  where budget_id = $1 and reserved_nano_usd + spent_nano_usd + 1 <= $2 returning reserved_nano_usd`;
const LIMIT = 1_000_000_000_000_000_000n;

serveJobs((job: ReserveJob) => (job.side === 'ours' ? reserveAll(job) : updateAll(job)));

async function reserveAll(job: ReserveJob): Promise<object> {
  const { databaseUrl: url, budgetId: id, createdAt, concurrency: poolSize } = job;
  const database = await openDatabase({ url, poolSize, dataDir: '', acquireTimeoutMs: 5_000 });
  const limits = { limit_nano_usd: LIMIT, period: 'BUDGET_PERIOD_TOTAL', scope: 'BUDGET_SCOPE_ALL' } as const;
  const budget = { ...newBudget(), ...limits, id, created_at: new Date(createdAt) };
  const required = [{ budget, key: counterKey(budget, '', new Date()), end: undefined }];
  let agent_id = 0;
  try {
    await createCounters(database.knex, required);
    const writer = new ReservationWriter({ database });
    return await closedLoop(job, async () => {
      const ids = { reservation_id: randomUUID(), agent_id: ++agent_id, run_id: '', actor: 'bench' };
      const size = { cost: 1n, attempts: 1, lifetimeMs: 300_000, until: undefined, hour: hourOf(new Date()) };
      const { granted } = await writer.reserve({ ...ids, ...size, required }, undefined);
      if (!granted) throw new Error('nothing was reserved');
    });
  } finally {
    await database.close();
  }
}

async function updateAll(job: ReserveJob): Promise<object> {
  const pool = new pg.Pool({ connectionString: job.databaseUrl, max: job.concurrency });
  try {
    return await closedLoop(job, async () => {
      const values = [job.budgetId, String(LIMIT)];
      const { rowCount } = await pool.query({ name: 'reserve', text: BARE, values });
      if (rowCount !== 1) throw new Error('no row was updated');
    });
  } finally {
    await pool.end();
  }
}
