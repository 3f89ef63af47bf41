import { AttemptOutcome, UsageDimension, type UsageGroup } from '../../../gen/ts/agentllm/v1/usage.js';
import { type QueryUsageRequest, QueryUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import type { State } from '../../domain/state.js';
import { textProblem } from '../../domain/text.js';
import { timeZoneProblem } from '../../domain/time_zone.js';
import {
  hasWholeHours,
  type PeriodUnit,
  periodStarts,
  type ReportedRanges,
  reportedRanges,
} from '../../domain/usage_period.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { onDatabase } from '../../store/failure.js';
import type { Store } from '../../store/store.js';
import {
  type Dimension,
  type GroupRow,
  keyColumns,
  lostAttempts,
  queryUsage as querySums,
  type UsageQuery,
} from '../../store/usage/query.js';
import { oldestRetained } from '../../store/usage/retention.js';
import { inSlices } from '../../time_slice.js';
import { checkPage, type PageStart, pageFrom, pageResponse } from '../messages/pages.js';
import type { UsageBackend } from './record_usage.js';
import { checkFilter, checkRange, filterOf, totalsMessage } from './usage_requests.js';

const PERIODS: ReadonlyMap<UsageDimension, PeriodUnit> = new Map([
  [UsageDimension.HOUR, 'hour'],
  [UsageDimension.DAY, 'day'],
  [UsageDimension.MONTH, 'month'],
]);
const DIMENSIONS: ReadonlyMap<UsageDimension, Dimension> = new Map([
  [UsageDimension.AGENT, 'agent'],
  [UsageDimension.CONFIG, 'config'],
  [UsageDimension.PROVIDER, 'provider'],
  [UsageDimension.MODEL, 'model'],
  [UsageDimension.VARIANT, 'variant'],
  [UsageDimension.OUTCOME, 'outcome'],
  [UsageDimension.FALLBACK, 'fallback'],
]);

/** Sums attempts by dimensions. */
export async function queryUsage(
  { store, usageRetentionMs }: UsageBackend,
  state: State,
  request: QueryUsageRequest,
): Promise<Buffer> {
  checkRequest(request);
  const [since, until] = [request.since as Date, request.until as Date];
  const { group_by, time_zone: zone, filter } = request;
  const page = pageFrom(request, ['usage', since, until, group_by, zone, filter]);
  const unit = group_by.map((dimension) => PERIODS.get(dimension)).find(Boolean);
  const { ranges, periods } = await periodsOf(unit, zone || 'UTC', since.getTime(), until.getTime());
  await checkRetained(store, ranges, usageRetentionMs);
  const dimensions = group_by.flatMap((dimension) => DIMENSIONS.get(dimension) ?? []);
  const query = { ranges, periods, dimensions, filter: filterOf(state, filter, since, until), limit: page.size + 1 };
  const [{ groups, totals }, lost_attempts] = await Promise.all([
    querySums(store, { ...query, after: keyIn(page, query) }),
    page.last ? 0n : lostAttempts(store, since, until, filter?.agents ?? []),
  ]);
  const columns = keyColumns(query);
  const response = pageResponse(page, groups, {
    type: QueryUsageResponse,
    revision: state.revision,
    keyOf: (group) => columns.map(({ name }) => group[name as keyof GroupRow] as string | number),
    rowOf: (group) => ({ groups: [groupMessage(group, query)], totals: undefined, lost_attempts: 0n }),
  });
  if (page.last) return response;
  // Concatenated protobuf messages merge their fields.
  const sums = QueryUsageResponse.fromPartial({ totals: totalsMessage(totals), lost_attempts });
  return Buffer.concat([response, QueryUsageResponse.encode(sums).finish()]);
}

function checkRequest(request: QueryUsageRequest): void {
  const { group_by, time_zone } = request;
  const problems = new Problems();
  checkPage(problems, request);
  checkRange(problems, request, limits.usageRangeDays);
  checkFilter(problems, request.filter);
  for (const [at, dimension] of group_by.entries()) {
    const field = `group_by[${at}]`;
    if (!PERIODS.has(dimension) && !DIMENSIONS.has(dimension)) problems.add(field, 'must be one of UsageDimension');
    else if (group_by.indexOf(dimension) < at) problems.add(field, 'must not repeat another dimension');
  }
  if (group_by.filter((dimension) => PERIODS.has(dimension)).length > 1)
    problems.add('group_by', 'must have at most one of hour, day and month');
  if (time_zone !== '')
    problems.add('time_zone', textProblem(time_zone, limits.timeZone) ?? timeZoneProblem(time_zone));
  problems.throwIfAny();
}

/** The periods of a report, and the hours, days and months of UTC of which they consist. */
async function periodsOf(unit: PeriodUnit | undefined, zone: string, since: number, until: number) {
  if (unit === undefined) return { periods: undefined, ranges: reportedRanges(since, until, []) };
  if (unit === 'hour' && hasWholeHours(zone, since, until))
    return { periods: 'hours' as const, ranges: reportedRanges(since, until, 'hours') };
  const periods: number[] = [];
  for await (const start of inSlices(periodStarts(unit, zone, since, until))) periods.push(start);
  return { periods, ranges: reportedRanges(since, until, periods) };
}

/** Throws if the report needs a part of an hour whose attempts have been deleted. */
export async function checkRetained(store: Store, { parts }: ReportedRanges, retentionMs: number): Promise<void> {
  if (parts.length === 0) return;
  const oldest = await onDatabase(store, (db) => oldestRetained(db, Date.now(), retentionMs));
  if (parts.some(({ from }) => from < oldest))
    throw ServiceError.of('USAGE_COMPACTED', { oldest: new Date(oldest).toISOString() });
}

/** Reads the key in a page token, and checks it because a client can forge a token. */
function keyIn({ last }: PageStart, query: Pick<UsageQuery, 'periods' | 'dimensions'>): UsageQuery['after'] {
  if (!last) return undefined;
  const columns = keyColumns(query);
  const isValid =
    last.length === columns.length &&
    last.every((part, at) =>
      columns[at]?.isText
        ? typeof part === 'string' && textProblem(part, limits.agentName) === undefined
        : Number.isSafeInteger(part),
    );
  if (!isValid) throw ServiceError.of('INVALID_PAGE_TOKEN', {});
  return last;
}

function groupMessage(
  group: GroupRow,
  { periods, dimensions }: Pick<UsageQuery, 'periods' | 'dimensions'>,
): UsageGroup {
  const has = (dimension: Dimension) => dimensions.includes(dimension);
  const hasModel = has('model');
  return {
    start: periods && group.start_ms !== null ? new Date(group.start_ms) : undefined,
    // An agent that the service does not know is stored with a negative id.
    agent_id: has('agent') ? Math.max(0, group.agent_id) : 0,
    agent: has('agent') ? group.agent_name : '',
    config_id: has('config') && group.config_id !== 0 ? group.config_id : undefined,
    provider: has('provider') || hasModel ? group.provider : '',
    model_name: hasModel ? group.model_name : '',
    experiment: has('variant') ? group.experiment : '',
    variant: has('variant') ? group.variant : '',
    outcome: has('outcome') ? outcomeMessage(group.outcome) : AttemptOutcome.UNSPECIFIED,
    fallback: has('fallback') && group.is_fallback === 1,
    totals: totalsMessage(group),
  };
}

export const outcomeMessage = (outcome: string): AttemptOutcome =>
  Object.values(AttemptOutcome).find((known) => known === outcome) ?? AttemptOutcome.UNSPECIFIED;
