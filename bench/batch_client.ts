import { credentials } from '@grpc/grpc-js';
import pg from 'pg';
import {
  AgentLLMConfigServiceClient,
  BatchGetPrimaryConfigsRequest,
  type BatchGetPrimaryConfigsResponse,
} from '../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { closedLoop, serveJobs } from './script.js';

/* A process that asks for the primaries of many agents, of the service or of PostgreSQL, and decodes what it gets. */

export interface BatchJob {
  /** Of the service; or else */
  readonly port?: number;
  readonly databaseUrl?: string;
  readonly names: readonly string[];
  readonly concurrency: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/** What somebody would write who has the tables: the first enabled config of each agent, with all its columns. */
const QUERY = `select distinct on (a.id) a.name as agent_name, c.*
  from agent_configs a join agent_llm_configs c on c.agent_id = a.id
  where a.name = any($1) and c.enabled
  order by a.id, c.priority, c.id`;

serveJobs(async (job: BatchJob) => (job.port === undefined ? await askPostgres(job) : await askService(job, job.port)));

async function askService(job: BatchJob, port: number) {
  const client = new AgentLLMConfigServiceClient(`127.0.0.1:${port}`, credentials.createInsecure());
  const request = BatchGetPrimaryConfigsRequest.fromPartial({ agents: job.names.map((name) => ({ name })) });
  const call = () =>
    new Promise<void>((resolve, reject) => {
      client.batchGetPrimaryConfigs(request, (error, answer) => {
        if (error) reject(error);
        else resolve(expectAll(job, found(answer)));
      });
    });
  try {
    return await closedLoop(job, call);
  } finally {
    client.close();
  }
}

const found = ({ results }: BatchGetPrimaryConfigsResponse) => results.filter(({ config }) => config).length;

async function askPostgres(job: BatchJob) {
  const pool = new pg.Pool({ connectionString: job.databaseUrl, max: job.concurrency });
  try {
    // Named, so that it is parsed and planned once on each connection.
    const query = { name: 'primaries', text: QUERY, values: [job.names] };
    return await closedLoop(job, async () => expectAll(job, (await pool.query(query)).rows.length));
  } finally {
    await pool.end();
  }
}

function expectAll({ names }: BatchJob, count: number): void {
  if (count !== names.length) throw new Error(`${count} primaries came for ${names.length} agents`);
}
