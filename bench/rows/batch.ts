import {
  AgentLLMConfigServiceService,
  BulkAssignConfigRequest,
} from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { AgentServiceService, CreateAgentRequest } from '../../gen/ts/agentllm/v1/agent_service.js';
import type { BatchJob } from '../batch_client.js';
import { runJob } from '../lab.js';
import { startPostgres } from '../postgres.js';
import type { Row } from '../row.js';
import type { LoopResult } from '../script.js';
import { type Caller, inParallel, startService } from '../service.js';
import { compare, interleave, quantile } from '../statistics.js';

const AGENTS = 1000;
const CONCURRENCY = 4;

export const row: Row = {
  name: 'batch',
  about:
    'BatchGetPrimaryConfigs of 1 000 agents against one query of the same rows with plain pg; both decoded in Node',
  target: 'higher throughput',
  async run(lab) {
    const postgres = await startPostgres(lab);
    const databaseUrl = await postgres.createDatabase();
    const service = await startService(lab, { DATABASE_URL: databaseUrl });
    const names = Array.from({ length: AGENTS }, (_, number) => `bench_${number}`);
    await createAgents(service.client, names);
    const [ours, reference] = [lab.startScript('batch_client.ts'), lab.startScript('batch_client.ts')];
    await Promise.all([ours.match(/ready/), reference.match(/ready/)]);
    const job = { names, concurrency: CONCURRENCY, ...lab.effort };
    const pairs = await interleave(
      lab.effort.rounds,
      () => runJob<LoopResult>(ours, { ...job, port: service.port } satisfies BatchJob),
      () => runJob<LoopResult>(reference, { ...job, databaseUrl } satisfies BatchJob),
    );
    const what = 'BatchGetPrimaryConfigs of 1 000';
    return [
      {
        what: `${what}, throughput`,
        unit: 'calls/s',
        ...compare(pairs, ({ perSecond }) => perSecond),
        goal: { kind: 'ratio above', value: 1 },
        note: `${CONCURRENCY} in flight; the same client program decodes both`,
      },
      {
        what: `${what}, p99`,
        unit: 'ms',
        ...compare(pairs, ({ latencies }) => quantile(latencies, 0.99)),
        goal: { kind: 'ratio at most', value: 1 },
      },
    ];
  },
};

/** Creates agents with one config each. */
async function createAgents(call: Caller, names: readonly string[]): Promise<void> {
  const { createAgent } = AgentServiceService;
  await inParallel(names, 16, (name) => {
    const agent = { name, agent_type: 'analyst', role: 'bench' };
    return call(createAgent.path, CreateAgentRequest.encode(CreateAgentRequest.fromPartial({ agent })).finish());
  });
  const assign = BulkAssignConfigRequest.fromPartial({
    agents: names.map((name) => ({ name })),
    config: { provider: 'openai', model_name: 'gpt-4', temperature: 0.7, max_tokens: 2000 },
  });
  await call(AgentLLMConfigServiceService.bulkAssignConfig.path, BulkAssignConfigRequest.encode(assign).finish());
}
