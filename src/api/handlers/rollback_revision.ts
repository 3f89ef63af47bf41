import type {
  RollbackRevisionRequest,
  RollbackRevisionResponse,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import type { Finding } from '../../../gen/ts/agentllm/v1/finding.js';
import { type ConfigRevision, FieldChange } from '../../../gen/ts/agentllm/v1/history.js';
import type { Draft } from '../../domain/draft.js';
import { withoutConfig } from '../../domain/findings.js';
import type { HistoryEntry, Names } from '../../domain/history.js';
import type { Change, Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import type { Problems } from '../../problems.js';
import { type PastRevision, revisionAt } from '../../store/history/history.js';
import type { Call } from '../dispatch/method.js';
import type { Backend } from './backend.js';
import { requireHistory } from './historical_config.js';
import { revisionMessage } from './history.js';
import { write } from './read_write.js';
import { requestIdOf, revisionProblem } from './requests.js';
import { type Conflict, RevisionRollback } from './revision_rollback.js';
import { findingsOf } from './write_config.js';

type RollbackCall = Call<RollbackRevisionRequest, RollbackRevisionResponse>;

/**
 * Rolls back the changes of one revision. The history is read before the write is planned, because plans are pure and
 * the past does not change. The plan throws an error of that read: the problems of the request take precedence, and a
 * retry of a committed write gets its stored response.
 */
export async function rollbackRevision(backend: Backend, call: RollbackCall): Promise<Uint8Array> {
  const { revision } = call.request;
  const past = revisionProblem(revision)
    ? undefined
    : await pastRevision(backend, call).catch((error) => {
        if (error instanceof ServiceError) return error;
        throw error;
      });
  return write(backend, call, {
    plan(state, draft, problems) {
      checkRequest(problems, call.request);
      if (!past || past instanceof ServiceError) throw past;
      plan(state, draft, call.request, past);
      return { past, draft };
    },
    respond: ({ past, draft }, at, state) => ({
      entries: entriesOf(call, draft, namesOf(past.state, state)),
      revision: at,
      findings: findingsAfter(state, draft.changes),
    }),
  });
}

async function pastRevision(backend: Backend, call: RollbackCall): Promise<PastRevision> {
  const { revision } = call.request;
  await requireHistory(backend, revision, call.signal);
  call.recheckAccess();
  const past = await revisionAt(backend.store, Number(revision), limits.maxRollbackChanges + 1);
  if (Number(revision) < past.oldest || past.entries.length === 0)
    throw ServiceError.of('REVISION_COMPACTED', { revision: String(revision), oldest: String(past.oldest) });
  if (past.entries.some(({ entity }) => entity === 'agent')) call.require('PERMISSION_AGENTS_WRITE');
  if (past.entries.some(({ entity }) => entity === 'experiment')) call.require('PERMISSION_EXPERIMENTS_WRITE');
  return past;
}

function checkRequest(problems: Problems, { revision }: RollbackRevisionRequest): void {
  problems.add('revision', revisionProblem(revision));
  problems.throwIfAny();
}

function plan(state: State, draft: Draft, request: RollbackRevisionRequest, past: PastRevision): void {
  const permanent = conflictsOfKind(past);
  if (permanent.length > 0) throw conflictError(request, permanent);
  const undo = new RevisionRollback(state, draft, past, { withoutKeys: request.without_keys });
  undo.run();
  if (undo.conflicts.length > 0) throw conflictError(request, undo.conflicts);
}

/** The conflicts of a revision that can never be rolled back, independently of later revisions. */
function conflictsOfKind({ entries }: PastRevision): Conflict[] {
  const conflict = (field: string, description: string) => ({ field, description, resource: undefined });
  const maximum = limits.maxRollbackChanges;
  if (entries.length > maximum)
    return [conflict('the revision', `changed more than ${maximum} agents, configs and experiments`)];
  const [first] = entries;
  if (first && !first.method.includes('/'))
    return [conflict('the revision', `was made by the service itself (${first.method})`)];
  return entries
    .filter(({ entity }) => entity !== 'agent' && entity !== 'config' && entity !== 'experiment')
    .map(({ entity, entity_id }) =>
      conflict(
        `${entity} ${entity_id}`,
        'is neither an agent, a config nor an experiment; only these can be rolled back',
      ),
    );
}

const NAMED = 5;

function conflictError({ revision }: RollbackRevisionRequest, conflicts: readonly Conflict[]): ServiceError {
  const named = conflicts.slice(0, NAMED).map(({ field, description }) => `${field} ${description}`);
  const more = conflicts.length > NAMED ? [`and ${conflicts.length - NAMED} more`] : [];
  return ServiceError.of(
    'ROLLBACK_CONFLICT',
    { revision: String(revision), conflicts: [...named, ...more].join('; ') },
    {
      violations: conflicts.map(({ field, description }) => ({ field, description })),
      resources: conflicts.flatMap(({ resource }) => resource ?? []),
    },
  );
}

/** The names of credentials, at the revision and now. */
const namesOf = (then: State, now: State): Names => ({
  credential: new Map([...then.credentials.values(), ...now.credentials.values()].map(({ id, name }) => [id, name])),
  model: new Map(),
});

/** The history entries of the draft; field changes that exceed the limit of the response are omitted. */
function entriesOf(call: RollbackCall, draft: Draft, names: Names): ConfigRevision[] {
  let bytes = 0;
  return draft.changes.map((change, position) => {
    const entry = revisionMessage(entryOf(call, draft, change, position), names);
    for (const fieldChange of entry.changes) bytes += FieldChange.encode(fieldChange).finish().length;
    return bytes > limits.rollbackChangesBytes ? { ...entry, changes: [] } : entry;
  });
}

function entryOf(call: RollbackCall, { revision, now }: Draft, change: Change, position: number): HistoryEntry {
  const { entity, id, before, after } = change;
  return {
    revision,
    position,
    entity,
    entity_id: id,
    agent_id: change.entity === 'agent' ? id : agentIdOf(change),
    action: before ? (after ? 'update' : 'delete') : 'create',
    before: before ? { ...before } : null,
    after: after ? { ...after } : null,
    actor: call.caller,
    method: call.method,
    request_id: requestIdOf(call.request) ?? null,
    reason: call.request.reason || null,
    created_at: now,
  };
}

/** The agent of a changed config or experiment. */
const agentIdOf = ({ before, after }: Change): number | null => {
  const row = after ?? before;
  return row && 'agent_id' in row ? row.agent_id : null;
};

/** The findings of the changed configs, and of agents without an enabled config. */
function findingsAfter(state: State, changes: readonly Change[]): Finding[] {
  const configs = changes.flatMap((change) => (change.entity === 'config' ? [change] : []));
  const findings = configs.flatMap(({ after }) => (after ? findingsOf(state, after) : []));
  const agents = new Set(configs.map(({ before, after }) => (after ?? before)?.agent_id as number));
  for (const id of agents) {
    const agent = state.agents.get(id);
    if (agent) findings.push(...withoutConfig(agent, chainAfter(state, id, configs)));
  }
  return [...new Map(findings.map((finding) => [finding.message, finding])).values()].slice(0, limits.maxFindings);
}

type ConfigChange = Extract<Change, { entity: 'config' }>;

/** The configs of an agent after the changes, in any order. */
function chainAfter(state: State, agentId: number, changes: readonly ConfigChange[]): Config[] {
  const changed = new Map(changes.map(({ id, after }) => [id, after]));
  const kept = state.configsOf(agentId).filter(({ id }) => !changed.has(id));
  return [...kept, ...[...changed.values()].filter((after) => after?.agent_id === agentId)] as Config[];
}
