import { randomUUID } from 'node:crypto';
import type {
  AgentLLMConfigWatchServiceService,
  ListWatchersRequest,
  WatchConfigsRequest,
  Watcher,
} from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { ListWatchersResponse } from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { State } from '../../domain/state.js';
import { textProblem, UUID } from '../../domain/text.js';
import { ServiceError } from '../../errors.js';
import { type Filter, filterOf } from '../../feed/filter.js';
import type { WatcherIdentity } from '../../feed/watch.js';
import type { ResumePosition } from '../../feed/watches.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { databaseFailure } from '../../store/failure.js';
import { listWatchers, type SeenWatcher } from '../../store/watchers.js';
import type { Handlers, StreamCall } from '../dispatch/method.js';
import { checkPage, pageFrom, pageResponse } from '../messages/pages.js';
import type { Backend } from './backend.js';
import { read } from './read_write.js';
import { agentOf, checkRef, minRevisionProblem } from './requests.js';
import { resumeAt, waitForRevision } from './resume.js';

/** The handlers of AgentLLMConfigWatchService. */
export function watchService(backend: Backend): Handlers<typeof AgentLLMConfigWatchServiceService> {
  const { watcherRegistry } = backend;
  return {
    watchConfigs: (call) => watchConfigs(backend, call),

    acknowledgeRevision(call) {
      const { acknowledgements } = call.request;
      checkAcknowledgements(acknowledgements);
      for (const { client_id, revision } of acknowledgements)
        watcherRegistry.acknowledge(client_id.toLowerCase(), Number(revision), call.principal);
      return { revision: BigInt(backend.store.state.revision) };
    },

    listWatchers: (call) => read(backend, call, (state) => listing(backend, state, call.request)),
  };
}

async function watchConfigs(backend: Backend, call: StreamCall<WatchConfigsRequest>): Promise<void> {
  const { watches } = backend;
  const { request, sink, principal } = call;
  const { filter, identity } = readRequest(backend.store.state, request, principal.agents);
  const release = watches.reserve(sink);
  try {
    const point = await positionOf(backend, call, filter);
    watches.open(filter, identity, sink, point);
  } finally {
    release();
  }
}

/**
 * The position at which the watch resumes, after the replica has reached `min_revision`; undefined: the watch
 * starts with a snapshot.
 */
async function positionOf(
  backend: Backend,
  { request, signal }: StreamCall<WatchConfigsRequest>,
  filter: Filter,
): Promise<ResumePosition | undefined> {
  const { store, feed, watches } = backend;
  if (request.min_revision > store.state.revision) await waitForRevision(feed, request.min_revision, signal);
  if (request.resume_token === '') return undefined;
  return await resumeAt({ store, feed, watches, signal }, request.resume_token, filter, backend.watchRetentionMs);
}

/** @param scope the agents that the token of the caller includes; undefined: all. */
function readRequest(
  state: State,
  request: WatchConfigsRequest,
  scope: ReadonlySet<string> | undefined,
): { filter: Filter; identity: WatcherIdentity } {
  const { agents, all_agents, client_id, client_name, client_version } = request;
  const problems = new Problems();
  if (all_agents && agents.length > 0) problems.add('agents', 'must be empty together with all_agents');
  if (!all_agents && agents.length === 0) problems.add('agents', 'is required: name agents, or set all_agents');
  for (const [at, ref] of agents.entries()) checkRef(problems, ref, `agents[${at}]`);
  if (client_id !== '' && !UUID.test(client_id)) problems.add('client_id', 'must be a UUID');
  problems.add('min_revision', minRevisionProblem(request.min_revision));
  problems.add('client_name', textProblem(client_name, limits.clientName));
  problems.add('client_version', textProblem(client_version, limits.clientVersion));
  problems.throwIfAny();
  const names = new Set(agents.flatMap(({ name }) => (name === undefined ? [] : [state.storedAgentName(name)])));
  const ids = new Set(agents.flatMap(({ id }) => (id === undefined ? [] : [id])));
  const identity = { client_id: client_id.toLowerCase() || randomUUID(), client_name, client_version };
  return { filter: filterOf(all_agents, names, ids, scope), identity };
}

function checkAcknowledgements(acknowledgements: readonly { client_id: string; revision: bigint }[]): void {
  const problems = new Problems();
  if (acknowledgements.length === 0) problems.add('acknowledgements', 'is required');
  for (const [at, { client_id, revision }] of acknowledgements.entries()) {
    if (!UUID.test(client_id)) problems.add(`acknowledgements[${at}].client_id`, 'must be a UUID');
    if (revision < 1n) problems.add(`acknowledgements[${at}].revision`, `must be at least 1, not ${revision}`);
  }
  problems.throwIfAny();
}

async function listing(
  { store, watcherRegistry }: Backend,
  state: State,
  request: ListWatchersRequest,
): Promise<Buffer> {
  const problems = new Problems();
  checkPage(problems, request);
  if (request.agent) checkRef(problems, request.agent);
  problems.throwIfAny();
  const agent = request.agent && agentOf(state, request.agent);
  const page = pageFrom(request, ['watchers', agent?.id, request.stale_only]);
  const after = page.last && watcherIn(page.last);
  try {
    await watcherRegistry.flush();
    const { rows, complete } = await listWatchers(store.database.knex, {
      ...(agent && { agents: [agent.name, `#${agent.id}`] }),
      staleOnly: request.stale_only,
      ...(after && { after }),
      limit: page.size + 1,
      namedAgents: limits.namedWatchers,
      staleMs: limits.staleWatcherMs,
    });
    const { revision } = store.state;
    return pageResponse(
      page,
      rows,
      {
        type: ListWatchersResponse,
        revision,
        keyOf: (row) => [row.client_name, row.client_id],
        rowOf: (row) => ({ watchers: [watcherMessage(row, revision)] }),
      },
      complete,
    );
  } catch (error) {
    throw databaseFailure(error);
  }
}

/** Reads the name and id of a watcher in a page token, and checks them because a client can forge a token. */
function watcherIn(key: readonly (string | number)[]): readonly [string, string] {
  const [name, id] = key;
  const isName = typeof name === 'string' && textProblem(name, limits.clientName) === undefined;
  const isId = typeof id === 'string' && UUID.test(id);
  if (key.length !== 2 || !isName || !isId) throw ServiceError.of('INVALID_PAGE_TOKEN', {});
  return [name, id];
}

function watcherMessage(row: SeenWatcher, head: number): Watcher {
  const { stream_id: _, agents, agent_count, sent_revision, applied_revision, catching_up, ...rest } = row;
  const applied = applied_revision ?? 0;
  return {
    client_id: rest.client_id,
    client_name: rest.client_name,
    client_version: rest.client_version,
    replica: rest.replica,
    connected_at: rest.connected_at,
    last_seen_at: rest.last_seen_at,
    agents: [...(agents ?? [])],
    agent_count: agent_count ?? 0,
    all_agents: agents === null,
    sent_revision: BigInt(sent_revision),
    applied_revision: applied_revision === null ? undefined : BigInt(applied_revision),
    // The lag is the number of revisions that the watcher has not applied: up to the last sent revision, or up to the
    // newest one of the store while the watcher is catching up.
    lag: BigInt(Math.max(0, (catching_up ? head : sent_revision) - applied)),
    stale: rest.stale,
  };
}
