import { Agent } from '../../../gen/ts/agentllm/v1/agent.js';
import type { Body } from '../kit/from_file.js';
import type { Input } from '../kit/inputs.js';
import type { List } from '../kit/lists.js';
import { ago, formatValue, type Group, lines, recordOf, small } from '../kit/print.js';
import {
  choice,
  integer,
  type Kind,
  model,
  negatableFlag,
  number,
  oneOf,
  provider,
  text,
  word,
} from '../kit/values.js';

/** The body of a request that names an agent. */
export const body: Body = { at: 'agent', type: 'Agent', message: Agent };
const json = word('json');

/** A model, or `none`. */
const modelOrNone: Kind = { ...model, read: (raw) => (raw === 'none' ? ['', ''] : model.read(raw)) };

/** The option that renames an agent. */
export const name: Input = { name: 'name', to: 'agent.name', kind: word('name'), help: 'the new name of the agent' };
export const type: Input = {
  name: 'type',
  to: 'agent.agent_type',
  kind: word('type'),
  help: 'its type, such as analyst, researcher, manager, trader or risk_analyst; required',
};

/** The fields of an agent that can be set. */
export const fields: readonly Input[] = [
  {
    name: 'role',
    to: 'agent.role',
    kind: word('role'),
    clears: true,
    help: 'its role among agents of its type (default analyst)',
  },
  {
    name: 'description',
    to: 'agent.description',
    kind: text,
    clears: true,
    help: 'what it does, at most 1000 characters',
  },
  {
    name: 'active',
    to: 'agent.is_active',
    kind: negatableFlag,
    clears: true,
    help: 'whether it is in use (default: yes)',
  },
  {
    name: 'model',
    to: ['agent.llm_provider', 'agent.llm_model'],
    kind: modelOrNone,
    clears: true,
    help: 'its model while it has no enabled config (default openai/gpt-4o-mini); none: it calls no model',
  },
  {
    name: 'llm-provider',
    to: 'agent.llm_provider',
    kind: provider,
    clears: true,
    help: 'the provider of that model only',
  },
  { name: 'llm-model', to: 'agent.llm_model', kind: word('name'), clears: true, help: 'the name of that model only' },
  {
    name: 'llm-type',
    to: 'agent.llm_type',
    kind: oneOf('type', ['quick', 'deep']),
    clears: true,
    help: 'kind of model that it needs (default quick)',
  },
  {
    name: 'temperature',
    to: 'agent.temperature',
    kind: number,
    clears: true,
    help: 'temperature for that model, 0 to 2 (default 0.7)',
  },
  {
    name: 'max-tokens',
    to: 'agent.max_tokens',
    kind: integer,
    clears: true,
    help: 'output limit for that model, at least 1 (default: none)',
  },
  {
    name: 'substitution',
    to: 'agent.substitution_policy',
    kind: choice('SUBSTITUTION_POLICY_', 'policy', ['never', 'same-model', 'same-provider', 'any']),
    clears: true,
    help: 'which hops of its chain may replace the first hop (default any)',
  },
  {
    name: 'prompt-template',
    to: 'agent.prompt_template',
    kind: text,
    clears: true,
    help: 'its prompt template, at most 65536 characters',
  },
  {
    name: 'capabilities',
    to: 'agent.capabilities_json',
    kind: json,
    clears: true,
    help: 'JSON list of its capabilities',
  },
  {
    name: 'required-tools',
    to: 'agent.required_tools_json',
    kind: json,
    clears: true,
    help: 'JSON list of the tools that it needs',
  },
  {
    name: 'requires-memory',
    to: 'agent.requires_memory',
    kind: negatableFlag,
    clears: true,
    help: 'whether it needs a memory (default: no)',
  },
  {
    name: 'memory-name',
    to: 'agent.memory_name',
    kind: word('name'),
    clears: true,
    help: 'name of that memory, at most 100 characters',
  },
  {
    name: 'slot-name',
    to: 'agent.slot_name',
    kind: word('name'),
    clears: true,
    help: 'its slot in a workflow, at most 50 characters',
  },
  { name: 'config', to: 'agent.config_json', kind: json, clears: true, help: 'JSON object with its own configuration' },
  {
    name: 'agent-version',
    to: 'agent.version',
    kind: word('version'),
    clears: true,
    help: 'its version, at most 20 characters (default 1.0.0)',
  },
  {
    name: 'metadata',
    to: 'agent.metadata_json',
    kind: json,
    clears: true,
    help: 'JSON object for any purpose, at most 16384 bytes',
  },
];

const defaultModelOf = ({ llm_provider, llm_model }: Agent): string =>
  llm_provider ? `${llm_provider}/${llm_model}` : 'none';

/** The table of agents. */
export const agentList: List<Agent> = {
  field: 'agents',
  columns: [
    ['ID', ({ id }) => String(id)],
    ['NAME', ({ name }) => name],
    ['TYPE', ({ agent_type }) => agent_type],
    ['ROLE', ({ role }) => formatValue(role)],
    ['ACTIVE', ({ is_active }) => formatValue(is_active)],
    ['WITHOUT A CONFIG IT USES', defaultModelOf],
    ['UPDATED', ({ updated_at }) => ago(updated_at)],
  ],
  noMatch: 'no agent matches',
  empty: 'no agents; agentllm agents create <name> --type analyst creates one',
  fetchPage: (api, request) => api.agents.listAgents(request),
};

export const titleOf = ({ name, id }: Agent) => `agent ${name}${id === 0 ? '' : ` (id ${id})`}`;

/** The record of one agent. */
export function groupsOf(row: Agent): Group[] {
  return [
    [
      titleOf(row),
      lines(
        ['type', row.agent_type],
        ['role', row.role],
        ['description', row.description],
        ['active', row.is_active],
        ['reserved', row.is_reserved],
        ['version', row.version],
        ['slot name', row.slot_name],
        ['substitution', small(row.substitution_policy, 'SUBSTITUTION_POLICY_')],
      ),
    ],
    [
      'Without an enabled config',
      lines(
        ['model', defaultModelOf(row)],
        ['llm type', row.llm_type],
        ['temperature', row.temperature],
        ['max tokens', row.max_tokens],
      ),
    ],
    [
      'Other fields',
      lines(
        ['prompt template', row.prompt_template],
        ['capabilities', row.capabilities_json],
        ['required tools', row.required_tools_json],
        ['requires memory', row.requires_memory],
        ['memory name', row.memory_name],
        ['config', row.config_json],
        ['metadata', row.metadata_json],
      ),
    ],
    recordOf(row, ['chain etag', row.chain_etag]),
  ];
}
