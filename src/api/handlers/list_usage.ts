import { type RecordedAttempt, UnpricedReason, UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { type ListUsageRequest, ListUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import type { State } from '../../domain/state.js';
import { textProblem, UUID } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { type AttemptPosition, type AttemptRow, listAttempts } from '../../store/usage/list.js';
import { checkPage, pageFrom, pageResponse } from '../messages/pages.js';
import { outcomeMessage } from './query_usage.js';
import type { UsageBackend } from './record_usage.js';
import { checkFilter, filterOf } from './usage_requests.js';

/** Lists stored attempts, newest first. */
export async function listUsage({ store }: UsageBackend, state: State, request: ListUsageRequest): Promise<Buffer> {
  checkRequest(request);
  const { since, until, filter, run_id, unpriced_only } = request;
  const page = pageFrom(request, ['attempts', since, until, filter, run_id, unpriced_only]);
  // The clock of a process may be ahead, so an attempt can begin later than now.
  const end = until ?? new Date(Date.now() + limits.usageSkewMs + 1);
  const { rows, complete } = await listAttempts(store, {
    since,
    until: end,
    filter: filterOf(state, filter, since ?? new Date(0), end),
    runId: run_id,
    unpricedOnly: unpriced_only,
    after: page.last && positionIn(page.last),
    limit: page.size + 1,
  });
  const list = {
    type: ListUsageResponse,
    revision: state.revision,
    keyOf: ({ started_at, attempt_id }: AttemptRow) => [started_at.getTime(), attempt_id],
    rowOf: (row: AttemptRow) => ({ attempts: [attemptMessage(row)] }),
  };
  return pageResponse(page, rows, list, complete);
}

function checkRequest(request: ListUsageRequest): void {
  const { since, until, filter, run_id } = request;
  const problems = new Problems();
  checkPage(problems, request);
  checkFilter(problems, filter);
  problems.add('run_id', textProblem(run_id, limits.runId));
  if (since && until && since >= until) problems.add('until', 'must be later than since');
  problems.throwIfAny();
}

/** Reads the position in a page token, and checks it because a client can forge a token. */
function positionIn(key: readonly (string | number)[]): AttemptPosition {
  const [ms, id] = key;
  const isTime = Number.isSafeInteger(ms) && (ms as number) >= 0 && (ms as number) < Date.UTC(9999, 0);
  if (key.length !== 2 || !isTime || typeof id !== 'string' || !UUID.test(id))
    throw ServiceError.of('INVALID_PAGE_TOKEN', {});
  return [ms as number, id];
}

const attemptMessage = (row: AttemptRow): RecordedAttempt => ({
  record: UsageRecord.decode(row.record),
  recorded_at: row.recorded_at,
  outcome: outcomeMessage(row.outcome),
  cost_nano_usd: row.cost_nano_usd === null ? undefined : BigInt(row.cost_nano_usd),
  unpriced_reason:
    Object.values(UnpricedReason).find((known) => known === row.unpriced_reason) ?? UnpricedReason.UNSPECIFIED,
  price_revision: BigInt(row.price_revision),
  price_from_config: row.price_from_config,
  adjustment_nano_usd: BigInt(row.adjustment ?? 0),
  priced_by_adjustment: row.cost_nano_usd === null && row.adjustment !== null,
});
