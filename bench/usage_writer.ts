import { randomUUID } from 'node:crypto';
import { Client, credentials } from '@grpc/grpc-js';
import pg from 'pg';
import { Attempt, ModelUsage } from '../gen/ts/agentllm/v1/receipt.js';
import { UsageRecord } from '../gen/ts/agentllm/v1/usage.js';
import { RecordUsageRequest, UsageServiceService } from '../gen/ts/agentllm/v1/usage_service.js';
import { closedLoop, serveJobs } from './script.js';

/* Both sides of the row `usage`: batches through the service, and one multi-row INSERT of the same rows with plain pg. */

export interface UsageJob {
  readonly side: 'service' | 'insert';
  readonly port: number;
  readonly databaseUrl: string;
  readonly batch: number;
  readonly concurrency: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

const AGENTS = 20;
const MODELS = ['gpt-5.4', 'gpt-5.4-mini', 'unknown-model'];

function newRecord(n: number): UsageRecord {
  return UsageRecord.fromPartial({
    agent_id: 1 + (n % AGENTS),
    agent: `agent_${n % AGENTS}`,
    receipt_id: randomUUID(),
    run_id: 'bench',
    attempt: Attempt.fromPartial({
      attempt_id: randomUUID(),
      provider: 'openai',
      model_name: MODELS[n % MODELS.length] as string,
      started_at: new Date(),
      latency_ms: 1200,
      provider_request_id: 'req_0123456789',
      usage: ModelUsage.fromPartial({ input_tokens: 1000 + n, input_cache_read_tokens: 10, output_tokens: 200 }),
    }),
  });
}
const newRecords = (count: number) => Array.from({ length: count }, (_, n) => newRecord(n));

serveJobs(async (job: UsageJob) => (job.side === 'service' ? throughService(job) : plainInsert(job)));

async function throughService(job: UsageJob) {
  const client = new Client(`127.0.0.1:${job.port}`, credentials.createInsecure());
  const { path, requestSerialize, responseDeserialize } = UsageServiceService.recordUsage;
  const call = () =>
    new Promise<void>((resolve, reject) => {
      const request = RecordUsageRequest.fromPartial({ records: newRecords(job.batch) });
      client.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, (error, response) => {
        if (error) reject(error);
        else if (response?.new_count !== job.batch) reject(new Error(`only ${response?.new_count} attempts were new`));
        else resolve();
      });
    });
  try {
    return await closedLoop(job, call);
  } finally {
    client.close();
  }
}

const COLUMNS = `slot, started_at, attempt_id, agent_id, agent_name, provider, model_name, run_id, outcome, fallback,
  input_tokens, input_cache_read_tokens, output_tokens, cost_nano_usd, record`;
const WIDTH = 15;

async function plainInsert(job: UsageJob) {
  const pool = new pg.Pool({ connectionString: job.databaseUrl, max: job.concurrency });
  const places = Array.from({ length: job.batch }, (_, row) => {
    const cells = Array.from({ length: WIDTH }, (__, column) => `$${row * WIDTH + column + 1}`);
    return `(${cells.join(', ')})`;
  });
  const text = `insert into llm_usage_attempts (${COLUMNS}) values ${places.join(', ')}`;
  try {
    return await closedLoop(job, () =>
      pool.query({ name: 'insert', text, values: newRecords(job.batch).flatMap(rowOf) }),
    );
  } finally {
    await pool.end();
  }
}

function rowOf(record: UsageRecord): unknown[] {
  const attempt = record.attempt as Attempt;
  const started = attempt.started_at as Date;
  const { agent_id, agent, run_id } = record;
  const { input_tokens, input_cache_read_tokens, output_tokens } = attempt.usage as ModelUsage;
  const slot = (started.getUTCFullYear() * 12 + started.getUTCMonth() + 1) % 13;
  const bytes = Buffer.from(UsageRecord.encode(record).finish());
  return [
    ...[slot, started, attempt.attempt_id, agent_id, agent, attempt.provider, attempt.model_name, run_id],
    ...['ATTEMPT_OUTCOME_SUCCEEDED', false, input_tokens, input_cache_read_tokens, output_tokens, 1, bytes],
  ];
}
