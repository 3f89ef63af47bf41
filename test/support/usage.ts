import { randomUUID } from 'node:crypto';
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { onTestFinished } from 'vitest';
import { type Attempt, ModelUsage } from '../../gen/ts/agentllm/v1/receipt.js';
import { UsageRecord } from '../../gen/ts/agentllm/v1/usage.js';
import {
  type StreamUsageRequest,
  type StreamUsageResponse,
  UsageServiceService,
} from '../../gen/ts/agentllm/v1/usage_service.js';
import type { UsageBackend } from '../../src/api/handlers/record_usage.js';
import { anonymous } from '../../src/domain/access.js';
import { UsageWriter } from '../../src/store/usage/usage_writer.js';
import type { TestStore } from './store.js';

type Fields = Partial<Omit<UsageRecord, 'attempt'>> & {
  readonly attempt?: Partial<Omit<Attempt, 'usage'>> & { readonly usage?: Partial<ModelUsage> | undefined };
};

/** A valid record of a successful attempt. */
export function usageRecord({ attempt = {}, ...fields }: Fields = {}): UsageRecord {
  const { usage = { input_tokens: 1000, output_tokens: 100 }, ...rest } = attempt;
  return UsageRecord.fromPartial({
    agent_id: 1,
    agent: 'market_analyst',
    ...fields,
    attempt: {
      attempt_id: randomUUID(),
      provider: 'openai',
      model_name: 'gpt-4',
      started_at: new Date(),
      ...rest,
      usage: 'usage' in attempt && attempt.usage === undefined ? undefined : ModelUsage.fromPartial(usage),
    },
  });
}

/** The components that record usage on a store without a service. */
export function usageBackend({ store, feed }: TestStore): UsageBackend {
  const usageMetrics = { countStored: () => undefined, countRejected: () => undefined };
  return { store, feed, usageWriter: new UsageWriter(store), usageRetentionMs: Number.POSITIVE_INFINITY, usageMetrics };
}

export const reporter = anonymous;
export const noSignal = new AbortController().signal;

/** Opens a stream of StreamUsage until the end of the test. */
export function openUsageStream(port: number, token?: string) {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
  });
  const metadata = new Metadata();
  if (token !== undefined) metadata.set('authorization', `Bearer ${token}`);
  const { path, requestSerialize, responseDeserialize } = UsageServiceService.streamUsage;
  const stream = client.makeBidiStreamRequest<StreamUsageRequest, StreamUsageResponse>(
    path,
    requestSerialize,
    responseDeserialize,
    metadata,
  );
  const received: StreamUsageResponse[] = [];
  stream.on('data', (response: StreamUsageResponse) => received.push(response));
  const ended = new Promise<{ code: number; details: string }>((resolve) => {
    stream.on('error', () => undefined);
    stream.on('status', ({ code, details }) => resolve({ code, details }));
  });
  onTestFinished(() => {
    stream.cancel();
    client.close();
  });
  return { stream, received, ended };
}
