import type { Agent, AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import { type Input, UsageError } from '../kit/inputs.js';
import type { Call } from '../kit/remote_command.js';
import { flag, negatableFlag, provider, word } from '../kit/values.js';

/* The selection of agents for a bulk change. */

const group = 'Which agents:';

export const agentFilters: readonly Input[] = [
  { name: 'all', kind: flag, group, help: 'select all agents' },
  { name: 'of-type', kind: word('type'), group, help: 'only agents of this type' },
  { name: 'of-role', kind: word('role'), group, help: 'only agents with this role' },
  { name: 'of-provider', kind: provider, group, help: 'only agents whose primary config is of this provider' },
  { name: 'of-active', kind: negatableFlag, group, help: 'only active agents, or with --no- only inactive ones' },
];

/** The largest number of agents in one bulk change, by the contract. */
const MAX_AGENTS = 1000;
const PAGE = 1000;

/** The agents that match the filters; undefined when the command line names agents. */
export async function chosenAgents(call: Call): Promise<AgentRef[] | undefined> {
  const isNamed = 'agents' in call.inputs.message;
  const isFiltered = agentFilters.some(({ name }) => call.local(name) !== undefined);
  if (isNamed && isFiltered) throw new UsageError('name agents or select them with --all and the filters, not both');
  if (isNamed) return undefined;
  if (!isFiltered) throw new UsageError('no agents are selected: name them, or use --all or a filter');
  const agents = await listMatching(call);
  const ids = await filterByProvider(call, agents);
  if (ids.length === 0) throw new UsageError('no agent matches');
  if (ids.length > MAX_AGENTS)
    throw new UsageError(`${ids.length} agents match, and one change can have at most ${MAX_AGENTS}: add a filter`);
  return ids.map((id) => ({ id }));
}

async function listMatching({ api, local }: Call): Promise<Agent[]> {
  const filter = {
    agent_type: local<string>('of-type') ?? '',
    role: local<string>('of-role') ?? '',
    is_active: local<boolean>('of-active'),
  };
  const agents: Agent[] = [];
  let page_token = '';
  do {
    const page = await api.agents.listAgents({ ...filter, page_size: PAGE, page_token });
    agents.push(...page.agents);
    page_token = page.next_page_token;
  } while (page_token !== '');
  return agents;
}

/** The ids of the agents whose primary config is of the requested provider. */
async function filterByProvider({ api, local }: Call, agents: readonly Agent[]): Promise<number[]> {
  const ids = agents.map(({ id }) => id);
  const name = local<string>('of-provider');
  if (name === undefined) return ids;
  const { provider: requested } = await api.providers.getProvider({ name });
  const found: number[] = [];
  for (let from = 0; from < ids.length; from += PAGE) {
    const refs = ids.slice(from, from + PAGE).map((id) => ({ id }));
    const { results } = await api.configs.batchGetPrimaryConfigs({ agents: refs });
    for (const { agent_id, config } of results) if (config?.provider === requested?.name) found.push(agent_id);
  }
  return found;
}
