import {
  AgentLLMConfigServiceService,
  GetPrimaryConfigRequest,
  GetPrimaryConfigResponse,
  UpdateConfigRequest,
  UpdateConfigResponse,
} from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { type Lab, type Program, runJob } from '../lab.js';
import { type LoadGenerator, type LoadResult, loadGenerator } from '../load.js';
import type { WriteJob } from '../pg_writer.js';
import { startPostgres } from '../postgres.js';
import type { Figure, Row } from '../row.js';
import type { LoopResult } from '../script.js';
import { type Service, startService } from '../service.js';
import { compare, interleave, quantile } from '../statistics.js';

const { updateConfig, getPrimaryConfig } = AgentLLMConfigServiceService;

export const row: Row = {
  name: 'writes',
  about: 'UpdateConfig with history on PostgreSQL against plain pg with the minimum of the same transaction',
  target:
    'at least twice its throughput with 16 writes in flight; with one, at least half, and p99 at most 3 times as long',
  async run(lab) {
    const postgres = await startPostgres(lab);
    // Separate databases, so that the two do not share a revision counter.
    const [ownUrl, referenceUrl] = [await postgres.createDatabase(), await postgres.createDatabase()];
    const service = await startService(lab, { DATABASE_URL: ownUrl });
    const other = await startService(lab, { DATABASE_URL: referenceUrl });
    await other.program.stop();
    const reference = lab.startScript('pg_writer.ts');
    await reference.match(/ready/);
    const { name, generate } = await loadGenerator(lab);
    const figures: Figure[] = [];
    for (const concurrency of [1, 16])
      figures.push(...(await measure(lab, service, { generate, reference, databaseUrl: referenceUrl }, concurrency)));
    return [{ ...(figures[0] as Figure), note: `loaded by ${name}; fsync off on both sides` }, ...figures.slice(1)];
  },
};

interface Sides {
  readonly generate: LoadGenerator;
  readonly reference: Program;
  readonly databaseUrl: string;
}

async function measure(lab: Lab, service: Service, sides: Sides, concurrency: number): Promise<Figure[]> {
  const primary = GetPrimaryConfigRequest.fromPartial({ agent: { name: 'trader' } });
  const found = await service.client(getPrimaryConfig.path, GetPrimaryConfigRequest.encode(primary).finish());
  const configId = GetPrimaryConfigResponse.decode(found).config?.id ?? 0;
  const request = UpdateConfigRequest.encode(
    UpdateConfigRequest.fromPartial({ config: { id: configId, temperature: 0.3 } }),
  ).finish();
  const load = { connections: Math.min(4, concurrency), streams: Math.ceil(concurrency / 4) };
  const job = { databaseUrl: sides.databaseUrl, configId, concurrency, ...lab.effort } satisfies WriteJob;
  const ours = async (): Promise<LoadResult> => {
    const before = await service.client(updateConfig.path, request);
    const reply = { replyBytes: before.length, replyBytesVary: 12 };
    const target = { port: service.port, path: updateConfig.path, request, ...reply };
    const result = await sides.generate(target, load);
    const after = UpdateConfigResponse.decode(await service.client(updateConfig.path, request));
    const written = Number(after.revision - UpdateConfigResponse.decode(before).revision);
    // Every measured write must be a revision in the history.
    if (written < result.perSecond * lab.effort.seconds) throw new Error(`only ${written} revisions were written`);
    return result;
  };
  const plainPg = async (): Promise<LoadResult> => {
    const { perSecond, latencies } = await runJob<LoopResult>(sides.reference, job);
    return { perSecond, p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) };
  };
  const pairs = await interleave(lab.effort.rounds, ours, plainPg);
  const what = `UpdateConfig, ${concurrency} in flight`;
  return [
    {
      what: `${what}, throughput`,
      unit: 'writes/s',
      ...compare(pairs, ({ perSecond }) => perSecond),
      // A single writer also waits for a gRPC call, which the reference does not make.
      goal: { kind: 'ratio at least', value: concurrency > 1 ? 2 : 0.5 },
    },
    {
      what: `${what}, p99`,
      unit: 'ms',
      ...compare(pairs, ({ p99 }) => p99),
      ...(concurrency === 1 && { goal: { kind: 'ratio at most', value: 3 } as const }),
    },
  ];
}
