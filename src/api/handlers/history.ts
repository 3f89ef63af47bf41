import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import { type AgentLLMConfig, ApiKeyState } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import type {
  AgentLLMConfigServiceService,
  GetConfigRevisionRequest,
  GetConfigRevisionResponse,
  ListConfigRevisionsRequest,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { ListConfigRevisionsResponse } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { ChangeAction, type ConfigRevision, ResourceKind } from '../../../gen/ts/agentllm/v1/history.js';
import { entryName, fieldChanges, type HistoryEntry, type Names } from '../../domain/history.js';
import type { Config, Entity } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { ServiceError } from '../../errors.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { listEntries, namesIn } from '../../store/history/history.js';
import type { Call, Handlers } from '../dispatch/method.js';
import { configMessage } from '../messages/entities.js';
import { checkPage, pageFrom, pageResponse } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { type Earlier, historicalConfig } from './historical_config.js';
import { read } from './read_write.js';
import { agentOf, checkRef, idProblem, revisionProblem } from './requests.js';
import { rollbackConfig } from './rollback.js';

type HistoryMethods = 'listConfigRevisions' | 'getConfigRevision' | 'rollbackConfig';

/** The handlers of AgentLLMConfigService for the history and for rollbacks. */
export function historyHandlers(backend: Backend): Pick<Handlers<typeof AgentLLMConfigServiceService>, HistoryMethods> {
  return {
    listConfigRevisions: (call) => read(backend, call, (state) => listConfigRevisions(backend, state, call.request)),
    getConfigRevision: (call) => read(backend, call, () => getConfigRevision(backend, call)),
    rollbackConfig: (call) => rollbackConfig(backend, call),
  };
}

export const KINDS: Readonly<Record<Entity, ResourceKind>> = {
  agent: ResourceKind.AGENT,
  config: ResourceKind.CONFIG,
  credential: ResourceKind.CREDENTIAL,
  provider: ResourceKind.PROVIDER,
  model: ResourceKind.MODEL,
  price: ResourceKind.PRICE,
  token: ResourceKind.TOKEN,
  budget: ResourceKind.BUDGET,
  experiment: ResourceKind.EXPERIMENT,
};
/** The entities that ListConfigRevisions returns. Changes of tokens are in the audit. */
const ENTITIES = (Object.keys(KINDS) as Entity[]).filter((entity) => entity !== 'token');
const ACTIONS = { create: ChangeAction.CREATE, update: ChangeAction.UPDATE, delete: ChangeAction.DELETE } as const;

/** Converts an entry of the change log to a message of the history. */
export const revisionMessage = (entry: HistoryEntry, names: Names): ConfigRevision => ({
  revision: BigInt(entry.revision),
  position: entry.position,
  kind: KINDS[entry.entity],
  id: entry.entity_id,
  name: entryName(entry, names),
  agent_id: entry.agent_id ?? undefined,
  action: ACTIONS[entry.action],
  actor: entry.actor,
  method: entry.method,
  request_id: entry.request_id ?? '',
  reason: entry.reason ?? '',
  created_at: entry.created_at,
  changes: fieldChanges(entry, names),
});

async function listConfigRevisions(
  { store }: Backend,
  state: State,
  request: ListConfigRevisionsRequest,
): Promise<Buffer> {
  const { agent, config_id: configId, kinds } = request;
  const problems = new Problems();
  checkPage(problems, request);
  if (agent) checkRef(problems, agent);
  if (configId !== undefined) problems.add('config_id', idProblem(configId));
  for (const [at, kind] of kinds.entries())
    if (!ENTITIES.some((entity) => KINDS[entity] === kind)) problems.add(`kinds[${at}]`, 'must be one of ResourceKind');
  problems.throwIfAny();
  const agentId = agent && idOfAny(state, agent);
  const page = pageFrom(request, ['revisions', agentId, configId, kinds]);
  const after = page.last && positionIn(page.last);
  const entities = ENTITIES.filter((entity) => kinds.length === 0 || kinds.includes(KINDS[entity]));
  const query = { agentId, configId, entities, until: state.revision, after, limit: page.size + 1 };
  const { revision } = state;
  const { rows, complete } = await listEntries(store, query);
  const names = await namesIn(store, rows);
  return pageResponse(
    page,
    rows,
    {
      type: ListConfigRevisionsResponse,
      revision,
      keyOf: (entry) => [entry.revision, entry.position],
      rowOf: (entry) => ({ entries: [revisionMessage(entry, names)] }),
    },
    complete,
  );
}

/**
 * The id of an agent, which may be deleted. A name is only accepted for an existing agent, because it can be reused.
 */
export const idOfAny = (state: State, ref: AgentRef): number => ref.id ?? agentOf(state, ref).id;

/** Reads the position in a page token, and checks it because a client can forge a token. */
function positionIn(key: readonly (string | number)[]): [number, number] {
  const [revision, position] = key as [number, number];
  const isPosition = Number.isInteger(position) && position >= 0 && position <= limits.maxInt32;
  if (key.length !== 2 || !Number.isSafeInteger(revision) || !isPosition)
    throw ServiceError.of('INVALID_PAGE_TOKEN', {});
  return [revision, position];
}

async function getConfigRevision(
  backend: Backend,
  { request: { id, at_revision }, signal }: Call<GetConfigRevisionRequest, GetConfigRevisionResponse>,
): Promise<GetConfigRevisionResponse> {
  const problems = new Problems();
  problems.add('id', idProblem(id));
  problems.add('at_revision', revisionProblem(at_revision));
  problems.throwIfAny();
  const past = await historicalConfig(backend, id, at_revision, signal);
  const { entry, config } = past;
  const names = await namesIn(backend.store, [entry]);
  const { state } = backend.store;
  return {
    config: config && pastMessage(state, { ...past, config }),
    revision: BigInt(state.revision),
    entry: revisionMessage(entry, names),
  };
}

/**
 * A config at a past revision, with the names of its agent and credential at that revision and the current state of its
 * key.
 */
const pastMessage = (now: State, { state: then, config }: Earlier): AgentLLMConfig => ({
  ...configMessage(then, config),
  etag: '',
  api_key_state: keyState(now, config),
});

/** The state of the key that a config had: UNREADABLE if another key is stored now. */
function keyState(now: State, config: Config): ApiKeyState {
  if (config.key_id === null) return ApiKeyState.NONE;
  const stored = now.configs.get(config.id);
  const isSameKey = stored && stored.key_id !== null && stored.key_revision === config.key_revision;
  return isSameKey ? now.encryption.stateOf('config', stored) : ApiKeyState.UNREADABLE;
}
