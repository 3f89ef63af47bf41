import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { closedLoop, serveJobs } from './script.js';

/*
 * The reference for writes: the minimum that a write of the service does in the database, with plain pg on persistent
 * connections. In one transaction it increments the counter, updates the row and inserts one row of history.
 */

export interface WriteJob {
  readonly databaseUrl: string;
  readonly configId: number;
  readonly concurrency: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

const INCREMENT_COUNTER = `update store_state set revision = revision + 1, previous_nonce = nonce, nonce = $1 returning revision`;
const UPDATE_CONFIG = 'update agent_llm_configs set temperature = $1, revision = $2, updated_at = $3 where id = $4';
const INSERT_HISTORY = `insert into config_revisions
    (revision, position, nonce, entity, entity_id, action, before, after, actor, method, created_at)
  values ($1, 0, $2, 'config', $3, 'update', $4, $5, 'anonymous', 'bench', $6)`;

serveJobs(async (job: WriteJob) => {
  const pool = new pg.Pool({ connectionString: job.databaseUrl, max: job.concurrency });
  const { rows } = await pool.query('select * from agent_llm_configs where id = $1', [job.configId]);
  const history = JSON.stringify(rows[0]);
  try {
    return await closedLoop(job, () => write(pool, job, history));
  } finally {
    await pool.end();
  }
});

async function write(pool: pg.Pool, { configId }: WriteJob, history: string): Promise<void> {
  const client = await pool.connect();
  try {
    const nonce = randomUUID();
    const now = new Date();
    await client.query('begin');
    const { rows } = await client.query<{ revision: string }>(INCREMENT_COUNTER, [nonce]);
    const revision = rows[0]?.revision;
    await client.query(UPDATE_CONFIG, [0.3, revision, now, configId]);
    await client.query(INSERT_HISTORY, [revision, nonce, configId, history, history, now]);
    await client.query('commit');
  } finally {
    client.release();
  }
}
