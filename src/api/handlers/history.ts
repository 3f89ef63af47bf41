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
import { Problems } from '../../problems.js';
import { listEntries, namesIn } from '../../store/history/history.js';
import type { Call, Handlers } from '../dispatch/method.js';
import { configMessage } from '../messages/entities.js';
import { checkPage, pageFrom, pageReply } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { type Earlier, historicalConfig } from './historical_config.js';
import { read } from './read_write.js';
import { agentOf, checkRef, idProblem, revisionProblem } from './requests.js';
import { rollbackConfig } from './rollback.js';

type HistoryMethods = 'listConfigRevisions' | 'getConfigRevision' | 'rollbackConfig';

/** The methods of AgentLLMConfigService that look back, and go back. */
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
};
/** Of what ListConfigRevisions tells: who has access stands in the audit. */
const ENTITIES = (Object.keys(KINDS) as Entity[]).filter((entity) => entity !== 'token');
const ACTIONS = { create: ChangeAction.CREATE, update: ChangeAction.UPDATE, delete: ChangeAction.DELETE } as const;

/** An entry of the log as the history shows it. */
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
  const behind = page.last && placeIn(page.last);
  const entities = ENTITIES.filter((entity) => kinds.length === 0 || kinds.includes(KINDS[entity]));
  const query = { agentId, configId, entities, until: state.revision, behind, limit: page.size + 1 };
  const { revision } = state;
  const { rows, complete } = await listEntries(store, query);
  const names = await namesIn(store, rows);
  return pageReply(
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

/** The id of an agent that was deleted is one too; its name may be another's by now. */
export const idOfAny = (state: State, ref: AgentRef): number => ref.id ?? agentOf(state, ref).id;

/** The place in a page token, which anybody can make. */
function placeIn(key: readonly (string | number)[]): [number, number] {
  if (key.length !== 2 || !key.every((part) => Number.isSafeInteger(part)))
    throw ServiceError.of('INVALID_PAGE_TOKEN', {});
  return key as [number, number];
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

/** A config as it was, with the names that its agent and its credential had; what is known of its key is of today. */
const pastMessage = (now: State, { state: then, config }: Earlier): AgentLLMConfig => ({
  ...configMessage(then, config),
  etag: '',
  api_key_state: keyState(now, config),
});

/** What is known of the key that a config had: as good as unreadable when it is not the one that is stored. */
function keyState(now: State, config: Config): ApiKeyState {
  if (config.key_id === null) return ApiKeyState.NONE;
  const stored = now.configs.get(config.id);
  const same = stored && stored.key_id !== null && stored.key_revision === config.key_revision;
  return same ? now.vault.stateOf('config', stored) : ApiKeyState.UNREADABLE;
}
