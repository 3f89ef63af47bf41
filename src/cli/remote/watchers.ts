import type { Watcher } from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { type List, limitInput, minRevision, printList } from '../kit/lists.js';
import { ago, counted, formatValue } from '../kit/print.js';
import type { RemoteCommand } from '../kit/remote_command.js';
import { agent, flag } from '../kit/values.js';

/** What stands for an id that is long and means nothing to people. */
const SHORT_ID_LENGTH = 8;
const MAX_AGENTS = 5;

function agentsOf({ all_agents, agents, agent_count }: Watcher): string {
  if (all_agents) return 'all';
  const named = agents.slice(0, MAX_AGENTS).join(', ');
  return agent_count > MAX_AGENTS ? `${named}, … (${counted(agent_count, 'agent')})` : named;
}

const watcherList: List<Watcher> = {
  field: 'watchers',
  columns: [
    ['NAME', ({ client_name }) => client_name],
    ['VERSION', ({ client_version }) => client_version],
    ['PROCESS', ({ client_id }) => client_id.slice(0, SHORT_ID_LENGTH)],
    ['REPLICA', ({ replica }) => replica.slice(0, SHORT_ID_LENGTH)],
    ['AGENTS', agentsOf],
    ['APPLIED', ({ applied_revision }) => formatValue(applied_revision)],
    ['LAG', ({ lag }) => formatValue(lag)],
    ['STALE', ({ stale }) => (stale ? 'STALE' : 'no')],
    ['CONNECTED', ({ connected_at }) => ago(connected_at)],
    ['SEEN', ({ last_seen_at }) => ago(last_seen_at)],
  ],
  noMatch: 'no process matches',
  empty:
    'no process watches; an agent does with connect({ agents: […] }) of @agentllm/client, a person with agentllm watch',
  fetchPage: (api, request) => api.watchers.listWatchers(request),
};

/** `agentllm watchers`: who follows the configuration, and how far each of them is. */
export const watchers: RemoteCommand = {
  name: 'watchers',
  about: 'show the processes that watch, on all replicas, and what each has applied',
  more: 'LAG is in revisions, 0 when everything that concerns the process is applied; one that is behind for more than 10 s\nis STALE.',
  inputs: [
    { name: 'agent', to: 'agent', kind: agent, help: 'only those that watch this agent, by name or id' },
    { name: 'stale', to: 'stale_only', kind: flag, help: 'only those that are stale' },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm watchers', 'all of them'],
    ['agentllm watchers --agent trader --stale', 'who has not heard of the last change of the trader'],
  ],
  next: 'agentllm configs upsert <agent> … --wait 5000 says who has applied a write',
  run: (call) => printList(call, watcherList),
};
