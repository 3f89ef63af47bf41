import { setTimeout as sleep } from 'node:timers/promises';
import {
  type AuditEvent,
  AuditEventKind,
  type AuditServiceService,
  type ListAuditEventsRequest,
  ListAuditEventsResponse,
} from '../../../gen/ts/agentllm/v1/audit_service.js';
import type { Names } from '../../domain/history.js';
import type { State } from '../../domain/state.js';
import { textProblem } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import {
  type Audited,
  type EventPosition,
  insertEvent,
  insertEvents,
  listAudited,
  type NewEvent,
} from '../../store/history/audit.js';
import { namesIn } from '../../store/history/history.js';
import type { Handlers } from '../dispatch/method.js';
import { checkPage, pageFrom, pageResponse } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { idOfAny, revisionMessage } from './history.js';
import { read } from './read_write.js';
import { checkRef } from './requests.js';

/** The handlers of AuditService, which merges the change log with the audit events. */
export function auditService(backend: Backend): Handlers<typeof AuditServiceService> {
  return {
    listAuditEvents: (call) => read(backend, call, (state) => listAuditEvents(backend, state, call.request)),
  };
}

/** Records what a call did. The call does not fail because of it, and waits at most `limits.auditWaitMs`. */
export async function audit({ store, log }: Backend, event: NewEvent): Promise<void> {
  const recorded = insertEvent(store, event).catch((error) =>
    log.warn({ err: error, event }, 'an event could not be recorded in the audit'),
  );
  await Promise.race([recorded, sleep(limits.auditWaitMs, undefined, { ref: false })]);
}

/** Records what a call is about to do; throws if that fails, so that the call does not do it. */
export async function auditFirst({ store, log }: Backend, events: readonly NewEvent[]): Promise<void> {
  try {
    await insertEvents(store, events);
  } catch (error) {
    if (!(error instanceof ServiceError)) log.error({ err: error }, 'events could not be recorded in the audit');
    throw error instanceof ServiceError && error.code === 'UNAVAILABLE'
      ? error
      : ServiceError.of('DATABASE_UNAVAILABLE', {}, { cause: error });
  }
}

const KINDS: readonly AuditEventKind[] = [
  AuditEventKind.WRITE,
  AuditEventKind.HEALTH_CHECK,
  AuditEventKind.KEY_VALIDATION,
  AuditEventKind.KEY_LEASE,
  AuditEventKind.KEY_ROTATION,
  AuditEventKind.CALL_REFUSED,
  AuditEventKind.TOKEN_USE,
];

async function listAuditEvents({ store }: Backend, state: State, request: ListAuditEventsRequest): Promise<Buffer> {
  checkFilter(request);
  const { agent, actor, since, until } = request;
  const agentId = agent && idOfAny(state, agent);
  const kinds = request.kinds.length > 0 ? request.kinds : KINDS;
  const page = pageFrom(request, ['audit', agentId, request.kinds, actor, since, until]);
  const { revision } = state;
  const { rows, complete } = await listAudited(store, {
    agentId,
    actor: actor || undefined,
    entries: kinds.includes(AuditEventKind.WRITE),
    kinds: kinds.filter((kind) => kind !== AuditEventKind.WRITE),
    since,
    before: until,
    until: state.revision,
    after: page.last && positionIn(page.last),
    limit: page.size + 1,
  });
  const names = await namesIn(
    store,
    rows.flatMap((row) => ('entry' in row ? [row.entry] : [])),
  );
  return pageResponse(
    page,
    rows,
    {
      type: ListAuditEventsResponse,
      revision,
      keyOf: ({ position }) => position,
      rowOf: (row) => ({ events: [eventMessage(row, names)] }),
    },
    complete,
  );
}

function checkFilter(request: ListAuditEventsRequest): void {
  const { agent, kinds, actor, since, until } = request;
  const problems = new Problems();
  checkPage(problems, request);
  if (agent) checkRef(problems, agent);
  for (const [at, kind] of kinds.entries())
    if (!KINDS.includes(kind)) problems.add(`kinds[${at}]`, 'must be one of AuditEventKind');
  problems.add('actor', textProblem(actor, limits.actor));
  problems.add('since', since && timeProblem(since));
  problems.add('until', until && timeProblem(until));
  if (since && until && since >= until) problems.add('until', 'must be later than since');
  problems.throwIfAny();
}

function timeProblem(time: Date): string | undefined {
  const year = time.getUTCFullYear();
  return year >= 1 && year <= 9999 ? undefined : 'must be a time between the years 1 and 9999';
}

/** Reads the position in a page token, and checks it because a client can forge a token. */
function positionIn(key: readonly (string | number)[]): EventPosition {
  const [ms, source, ...rest] = key;
  const areIntegers = [ms, ...rest].every((part) => Number.isSafeInteger(part));
  const isKnownSource = source === 'entry' || source === 'event';
  if (key.length !== 4 || !areIntegers || !isKnownSource || timeProblem(new Date(ms as number)))
    throw ServiceError.of('INVALID_PAGE_TOKEN', {});
  return key as unknown as EventPosition;
}

function eventMessage(audited: Audited, names: Names): AuditEvent {
  if ('entry' in audited) {
    const { entry } = audited;
    return {
      id: `w-${entry.revision}-${entry.position}`,
      kind: AuditEventKind.WRITE,
      created_at: entry.created_at,
      actor: entry.actor,
      method: entry.method,
      agent_id: entry.agent_id ?? undefined,
      config_id: entry.entity === 'config' ? entry.entity_id : undefined,
      provider: '',
      outcome: '',
      change: revisionMessage(entry, names),
    };
  }
  const { id, kind, agent_id, config_id, ...event } = audited.event;
  return {
    ...event,
    id: `e-${id}`,
    kind: KINDS.find((known) => known === kind) ?? AuditEventKind.UNSPECIFIED,
    agent_id: agent_id ?? undefined,
    config_id: config_id ?? undefined,
    change: undefined,
  };
}
