import {
  AgentLLMConfigServiceService,
  GetPrimaryConfigRequest,
} from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { compareReads, startBareServer } from '../compared_reads.js';
import type { Row } from '../row.js';
import { createCertificates, startSecureService } from '../service.js';

export const row: Row = {
  name: 'secure_reads',
  about: 'GetPrimaryConfig with a token over TLS, against a bare grpc-js handler over TLS',
  target: 'at least 0.85 of its throughput',
  async run(lab) {
    const certificates = await createCertificates(lab);
    const { port, token, client } = await startSecureService(lab, certificates);
    const { path } = AgentLLMConfigServiceService.getPrimaryConfig;
    const request = GetPrimaryConfigRequest.encode(
      GetPrimaryConfigRequest.fromPartial({ agent: { name: 'trader' } }),
    ).finish();
    const reply = await client(path, request);
    const ours = { port, path, request, replyBytes: reply.length, tls: true, token };
    const bare = { ...ours, port: await startBareServer(lab, { path, request, reply }, certificates) };
    return compareReads(lab, 'GetPrimaryConfig with a token over TLS', { ours, bare }, { throughput: 0.85 });
  },
};
