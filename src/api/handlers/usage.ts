import { UsageStatus } from '../../../gen/ts/agentllm/v1/usage.js';
import type {
  RecordUsageRequest,
  RecordUsageResponse,
  UsageServiceService,
} from '../../../gen/ts/agentllm/v1/usage_service.js';
import type { Call, Handlers } from '../dispatch/method.js';
import { recordUsage, type UsageBackend, withCost } from './record_usage.js';
import { streamUsage } from './stream_usage.js';

export type UsageMethods = Pick<UsageServiceService, 'recordUsage' | 'streamUsage'>;

/** The handlers of UsageService. */
export function usageService(backend: UsageBackend): Handlers<UsageMethods> {
  return {
    recordUsage: (call) => record(backend, call),
    streamUsage: (call) => streamUsage(backend, call),
  };
}

async function record(
  backend: UsageBackend,
  { principal, request, signal }: Call<RecordUsageRequest, RecordUsageResponse>,
): Promise<RecordUsageResponse> {
  const { results, known, revision } = await recordUsage(backend, principal, request, signal);
  const costs = await backend.usageWriter.costs(known);
  const count = (status: UsageStatus) => results.filter((result) => result.status === status).length;
  return {
    results: results.map((result) => withCost(result, costs)),
    revision: BigInt(revision),
    new_count: count(UsageStatus.NEW),
    known_count: count(UsageStatus.KNOWN),
    rejected_count: count(UsageStatus.REJECTED),
  };
}
