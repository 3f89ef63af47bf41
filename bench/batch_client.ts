import { credentials } from '@grpc/grpc-js';
import pg from 'pg';
import {
  AgentLLMConfigServiceClient,
  BatchGetPrimaryConfigsRequest,
  type BatchGetPrimaryConfigsResponse,
} from '../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { closedLoop, serveJobs } from './script.js';

/* A process that reads the primary configs of many agents, from the service or from PostgreSQL, and decodes them. */

export interface BatchJob {
  /** Port of the service; undefined: read from PostgreSQL. */
  readonly port?: number;
  readonly databaseUrl?: string;
  readonly names: readonly string[];
  readonly concurrency: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/** The equivalent query: the first enabled config of each agent, with all columns. */
const QUERY = `select distinct on (a.id) a.name as agent_name, c.*
  from agent_configs a join agent_llm_configs c on c.agent_id = a.id
  where a.name = any($1) and c.enabled
  order by a.id, c.priority, c.id`;

serveJobs(async (job: BatchJob) =>
  job.port === undefined ? await readFromPostgres(job) : await readFromService(job, job.port),
);

async function readFromService(job: BatchJob, port: number) {
  const client = new AgentLLMConfigServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
  const request = BatchGetPrimaryConfigsRequest.fromPartial({ agents: job.names.map((name) => ({ name })) });
  const call = () =>
    new Promise<void>((resolve, reject) => {
      client.batchGetPrimaryConfigs(request, (error, response) => {
        if (error) reject(error);
        else resolve(expectAll(job, countConfigs(response)));
      });
    });
  try {
    return await closedLoop(job, call);
  } finally {
    client.close();
  }
}

const countConfigs = ({ results }: BatchGetPrimaryConfigsResponse) => results.filter(({ config }) => config).length;

async function readFromPostgres(job: BatchJob) {
  const pool = new pg.Pool({ connectionString: job.databaseUrl, max: job.concurrency });
  try {
    // A named query is parsed and planned once per connection.
    const query = { name: 'primaries', text: QUERY, values: [job.names] };
    return await closedLoop(job, async () => expectAll(job, (await pool.query(query)).rows.length));
  } finally {
    await pool.end();
  }
}

function expectAll({ names }: BatchJob, count: number): void {
  if (count !== names.length) throw new Error(`${count} primary configs were returned for ${names.length} agents`);
}
