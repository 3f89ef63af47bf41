import { UsageStatus } from '../../../gen/ts/agentllm/v1/usage.js';
import type {
  RecordUsageRequest,
  RecordUsageResponse,
  UsageServiceService,
} from '../../../gen/ts/agentllm/v1/usage_service.js';
import type { Call, Handlers } from '../dispatch/method.js';
import { listUsage } from './list_usage.js';
import { queryUsage } from './query_usage.js';
import { read } from './read_write.js';
import { recordUsage, type UsageBackend, withCost } from './record_usage.js';
import { repriceUsage } from './reprice_usage.js';
import { streamUsage } from './stream_usage.js';
import { whatIf } from './what_if.js';

/** The handlers of UsageService. */
export function usageService(backend: UsageBackend): Handlers<typeof UsageServiceService> {
  return {
    recordUsage: (call) => record(backend, call),
    streamUsage: (call) => streamUsage(backend, call),
    queryUsage: (call) => read(backend, call, (state) => queryUsage(backend, state, call.request)),
    listUsage: (call) => read(backend, call, (state) => listUsage(backend, state, call.request)),
    whatIf: (call) => read(backend, call, (state) => whatIf(backend, state, call.request, call.signal)),
    repriceUsage: (call) => repriceUsage(backend, call),
  };
}

async function record(
  backend: UsageBackend,
  { principal, request, signal }: Call<RecordUsageRequest, RecordUsageResponse>,
): Promise<RecordUsageResponse> {
  const { results, known, revision } = await recordUsage(backend, principal, request, signal);
  const costs = await backend.usageWriter.costs(known);
  const counts = { [UsageStatus.NEW]: 0, [UsageStatus.KNOWN]: 0, [UsageStatus.REJECTED]: 0 };
  for (const { status } of results) counts[status as keyof typeof counts]++;
  return {
    results: known.length === 0 ? results : results.map((result) => withCost(result, costs)),
    revision: BigInt(revision),
    new_count: counts[UsageStatus.NEW],
    known_count: counts[UsageStatus.KNOWN],
    rejected_count: counts[UsageStatus.REJECTED],
  };
}
