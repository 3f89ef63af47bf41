import { readFile } from 'node:fs/promises';
import { Client, credentials } from '@grpc/grpc-js';
import {
  AgentLLMConfigServiceService,
  GetPrimaryConfigRequest,
  GetPrimaryConfigResponse,
  UpdateConfigRequest,
  UpdateConfigResponse,
} from '../gen/ts/agentllm/v1/agent_llm_config_service.js';
import {
  AgentLLMConfigWatchServiceService,
  WatchConfigsRequest,
  WatchConfigsResponse,
} from '../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { type Lab, type Program, runJob } from './lab.js';
import type { Caller } from './service.js';
import type { StreamJob } from './stream_client.js';

/* Functions that the rows about watches share. */

const { updateConfig, getPrimaryConfig } = AgentLLMConfigServiceService;
export const WATCH_PATH = AgentLLMConfigWatchServiceService.watchConfigs.path;
export const AGENT = 'trader';

/** The request to watch one agent. */
export const watchRequest = Buffer.from(
  WatchConfigsRequest.encode(WatchConfigsRequest.fromPartial({ agents: [{ name: AGENT }] })).finish(),
);

/** Returns a function that writes a change of `AGENT` and returns its revision. */
export async function writer(call: Caller): Promise<() => Promise<number>> {
  const primaryRequest = GetPrimaryConfigRequest.fromPartial({ agent: { name: AGENT } });
  const found = await call(getPrimaryConfig.path, GetPrimaryConfigRequest.encode(primaryRequest).finish());
  const id = GetPrimaryConfigResponse.decode(found).config?.id ?? 0;
  const request = UpdateConfigRequest.encode(
    UpdateConfigRequest.fromPartial({ config: { id, temperature: 0.3 } }),
  ).finish();
  return async () => Number(UpdateConfigResponse.decode(await call(updateConfig.path, request)).revision);
}

/** Receives one message with changes from the service. */
export function oneMessage(lab: Lab, port: number, write: () => Promise<number>): Promise<Buffer> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  lab.onClose(async () => client.close());
  const identity = (bytes: Buffer) => bytes;
  const stream = client.makeServerStreamRequest(WATCH_PATH, identity, identity, watchRequest);
  return new Promise((resolve, reject) => {
    stream.on('error', reject);
    stream.on('data', (bytes: Buffer) => {
      const { snapshot_end, changes } = WatchConfigsResponse.decode(bytes);
      if (snapshot_end) write().catch(reject);
      if (!changes) return;
      stream.removeListener('error', reject).on('error', () => {});
      stream.cancel();
      resolve(bytes);
    });
  });
}

/** Opens streams in a separate process. */
export async function openStreams(lab: Lab, port: number, streams: number): Promise<Program> {
  const program = lab.startScript('stream_client.ts');
  await program.match(/ready/);
  const job: StreamJob = { kind: 'open', port, path: WATCH_PATH, request: watchRequest.toString('base64'), streams };
  await runJob(program, job);
  return program;
}

export async function startBareStreams(lab: Lab, message: Buffer): Promise<{ program: Program; port: number }> {
  const program = lab.startScript('bare_streams.ts', {
    BARE_PATH: WATCH_PATH,
    BARE_MESSAGE: message.toString('base64'),
  });
  return { program, port: Number((await program.match(/listening on (\d+)/))[1]) };
}

/** The resident memory of a process in bytes. */
export async function residentBytes({ process: { pid } }: Program): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}
