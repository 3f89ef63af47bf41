import { type AuditEvent, AuditEventKind } from '../../../gen/ts/agentllm/v1/audit_service.js';
import { type Column, type List, minRevision, readAll, tableOf } from '../kit/lists.js';
import { moment, small, terminal } from '../kit/print.js';
import type { RemoteCommand } from '../kit/remote_command.js';
import { agent, choice, list, time, word } from '../kit/values.js';
import { shortMethod } from './changes.js';
import { agentNames, changeRecordOf, newestInput } from './history.js';

const DEFAULT_LIMIT = 50;
/** Longer cells are truncated; --json prints them in full. */
const MAX_CELL_LENGTH = 100;
const kind = choice('AUDIT_EVENT_KIND_', 'kind', [
  'write',
  'health-check',
  'key-validation',
  'key-lease',
  'call-refused',
  'token-use',
  'key-rotation',
]);

/** `agentllm audit`: all audited operations, including those that change nothing. */
export const audit: RemoteCommand = {
  name: 'audit',
  description: 'show the audit log, newest first: writes, uses of keys and tokens, rejected calls',
  inputs: [
    { name: 'agent', to: 'agent', kind: agent, help: 'only events of this agent and its configs, by name or id' },
    { name: 'kind', to: 'kinds', kind: list(kind), help: 'only events of this kind; can be repeated' },
    { name: 'actor', to: 'actor', kind: word('name'), help: 'only events of this actor' },
    { name: 'since', to: 'since', kind: time, help: 'only events at or after this time' },
    { name: 'until', to: 'until', kind: time, help: 'only events before this time' },
    newestInput,
    minRevision,
  ],
  examples: [
    ['agentllm audit --limit 5', 'the newest events'],
    ['agentllm audit --agent trader --kind write --since 2026-01-01', 'the changes of the trader'],
  ],
  next: 'agentllm history shows the changed fields',
  async run(call) {
    const { rows: events, revision, more } = await readAll(call, eventList);
    const names = call.json ? new Map<number, string>() : await agentNames(call.api, events);
    call.print({ events, revision }, () =>
      tableOf(events, { columns: columnsFor(names), empty: 'no event matches' }, MAX_CELL_LENGTH),
    );
    if (more && !call.json) terminal.err(`(the newest ${events.length}; --limit shows more)`);
    return undefined;
  },
};

const eventList: List<AuditEvent> = {
  field: 'events',
  columns: [],
  empty: '',
  defaultLimit: DEFAULT_LIMIT,
  fetchPage: (api, request) => api.audit.listAuditEvents(request),
};

const columnsFor = (names: ReadonlyMap<number, string>): readonly Column<AuditEvent>[] => [
  ['AT', ({ created_at }) => moment(created_at)],
  ['ACTOR', ({ actor }) => actor],
  ['METHOD', ({ method }) => shortMethod(method)],
  ['RESOURCE', (event) => subjectOf(event, names)],
  ['DETAILS', (event) => descriptionOf(event, names)],
];

/** The subject of events without an agent. */
const SUBJECTS: Readonly<Record<string, string>> = {
  [AuditEventKind.CALL_REFUSED]: 'access',
  [AuditEventKind.TOKEN_USE]: 'access',
  [AuditEventKind.KEY_ROTATION]: 'keys',
};

function subjectOf({ kind, change, agent_id, provider }: AuditEvent, names: ReadonlyMap<number, string>): string {
  if (change) return changeRecordOf(change, names).subject;
  if (SUBJECTS[kind]) return SUBJECTS[kind];
  return agent_id === undefined ? provider : (names.get(agent_id) ?? `agent #${agent_id}`);
}

function descriptionOf(event: AuditEvent, names: ReadonlyMap<number, string>): string {
  const { kind, change, config_id, provider, outcome } = event;
  if (change) return changeRecordOf(change, names).what;
  if (kind === AuditEventKind.KEY_ROTATION) return `rotation ${outcome}`;
  if (kind === AuditEventKind.CALL_REFUSED) return `rejected: ${outcome}`;
  if (kind === AuditEventKind.TOKEN_USE) return 'first use of the day';
  const checked = config_id === undefined ? `a key of ${provider}` : `config ${config_id}: ${provider}`;
  return `${checked}: ${small(outcome, 'CHECK_STATUS_')}`;
}
