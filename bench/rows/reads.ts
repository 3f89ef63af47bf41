import {
  AgentLLMConfigServiceService,
  GetConfigRequest,
  GetConfigResponse,
  GetPrimaryConfigRequest,
  ResolveConfigRequest,
} from '../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { Lab } from '../lab.js';
import { type LoadResult, loadGenerator, type Target } from '../load.js';
import type { Figure, Row } from '../row.js';
import { caller, startService } from '../service.js';
import { compare, interleave, type Pair } from '../statistics.js';

const LOAD = { connections: 4, streams: 16 };

export const row: Row = {
  name: 'reads',
  about:
    'GetPrimaryConfig, GetConfig and ResolveConfig under load, against a bare grpc-js handler with one constant encoded reply',
  target: 'at least 0.90 of its throughput, p99 at most 1.2 times as long',
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

type Server = Awaited<ReturnType<typeof startService>>;

async function measure(lab: Lab, service: Server, name: string, path: string, request: Uint8Array): Promise<Figure[]> {
  const { name: generator, generate } = await loadGenerator(lab);
  const reply = await service.client(path, request);
  const ours: Target = { port: service.port, path, request, replyBytes: reply.length };
  const bare = { ...ours, port: await startBareServer(lab, path, request, reply) };
  // A warm-up round, in which V8 compiles the code of both servers.
  for (const target of [ours, bare]) await generate(target, LOAD);
  const pairs = await interleave(
    lab.effort.rounds,
    () => generate(ours, LOAD),
    () => generate(bare, LOAD),
  );
  return figuresOf(name, pairs, `${reply.length} bytes, ${LOAD.connections} × ${LOAD.streams} in flight, ${generator}`);
}

async function startBareServer(lab: Lab, path: string, request: Uint8Array, reply: Buffer): Promise<number> {
  const program = lab.startScript('bare_server.ts', { BARE_PATH: path, BARE_REPLY: reply.toString('base64') });
  const port = Number((await program.match(/listening on (\d+)/))[1]);
  const actual = await caller(lab, port)(path, request);
  if (!actual.equals(reply)) throw new Error('the bare server returns a different response');
  return port;
}

function figuresOf(name: string, pairs: readonly Pair<LoadResult>[], note: string): Figure[] {
  return [
    {
      what: `${name}, throughput`,
      unit: 'calls/s',
      ...compare(pairs, ({ perSecond }) => perSecond),
      goal: { kind: 'ratio at least', value: 0.9 },
      note,
    },
    {
      what: `${name}, p99`,
      unit: 'ms',
      ...compare(pairs, ({ p99 }) => p99),
      goal: { kind: 'ratio at most', value: 1.2 },
    },
    { what: `${name}, p50`, unit: 'ms', ...compare(pairs, ({ p50 }) => p50) },
  ];
}
