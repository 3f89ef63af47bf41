import type { Watcher } from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { type List, limitInput, minRevision, printList } from '../kit/lists.js';
import { ago, counted, formatValue } from '../kit/print.js';
import type { RemoteCommand } from '../kit/remote_command.js';
import { agent, flag } from '../kit/values.js';

/** Long ids are abbreviated to this length. */
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
    'no process watches; an agent watches with connect({ agents: […] }) of @agentllm/client, a person with agentllm watch',
  fetchPage: (api, request) => api.watchers.listWatchers(request),
};

/** `agentllm watchers`: the watching processes and the revision that each has applied. */
export const watchers: RemoteCommand = {
  name: 'watchers',
  description: 'show the watching processes of all replicas and the revision that each has applied',
  more: 'LAG is in revisions; it is 0 when the process has applied all its changes. A process that lags for more than 10 s is\nSTALE.',
  inputs: [
    { name: 'agent', to: 'agent', kind: agent, help: 'only processes that watch this agent, by name or id' },
    { name: 'stale', to: 'stale_only', kind: flag, help: 'only stale processes' },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm watchers', 'all processes'],
    ['agentllm watchers --agent trader --stale', 'stale watchers of the trader'],
  ],
  next: 'agentllm configs upsert <agent> … --wait 5000 reports the adoption of a write',
  run: (call) => printList(call, watcherList),
};
