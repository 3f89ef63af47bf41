import {
  AgentLLMConfigServiceService,
  GetConfigRequest,
  GetConfigResponse,
  GetPrimaryConfigRequest,
  ResolveConfigRequest,
} from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { compareReads, startBareServer } from '../compared_reads.js';
import type { Lab } from '../lab.js';
import type { Target } from '../load.js';
import type { Figure, Row } from '../row.js';
import { type Service, startService } from '../service.js';

const GOALS = { throughput: 0.95, p99: 1.1 };

export const row: Row = {
  name: 'reads',
  about:
    'GetPrimaryConfig, GetConfig and ResolveConfig under load, against a bare grpc-js handler with one constant encoded reply',
  target: 'at least 0.95 of its throughput, p99 at most 1.1 times as long',
  async run(lab) {
    const service = await startService(lab);
    const { getPrimaryConfig, getConfig, resolveConfig } = AgentLLMConfigServiceService;
    const primary = GetPrimaryConfigRequest.encode(
      GetPrimaryConfigRequest.fromPartial({ agent: { name: 'trader' } }),
    ).finish();
    const { config } = GetConfigResponse.decode(await service.client(getPrimaryConfig.path, primary));
    const one = GetConfigRequest.encode(GetConfigRequest.fromPartial({ id: config?.id })).finish();
    const resolved = ResolveConfigRequest.encode(
      ResolveConfigRequest.fromPartial({ agent: { name: 'trader' } }),
    ).finish();
    return [
      ...(await measure(lab, service, 'GetPrimaryConfig', getPrimaryConfig.path, primary)),
      ...(await measure(lab, service, 'GetConfig', getConfig.path, one)),
      ...(await measure(lab, service, 'ResolveConfig', resolveConfig.path, resolved)),
    ];
  },
};

type Server = Pick<Service, 'port' | 'client'>;

async function measure(lab: Lab, service: Server, name: string, path: string, request: Uint8Array): Promise<Figure[]> {
  const reply = await service.client(path, request);
  const ours: Target = { port: service.port, path, request, replyBytes: reply.length };
  const bare = { ...ours, port: await startBareServer(lab, { path, request, reply }) };
  return compareReads(lab, name, { ours, bare }, GOALS);
}
