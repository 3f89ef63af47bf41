import type { Command } from 'commander';
import { Agent } from '../../../gen/ts/agentllm/v1/agent.js';
import type { UpdateAgentResponse } from '../../../gen/ts/agentllm/v1/agent_service.js';
import type { Body } from '../kit/from_file.js';
import type { Input } from '../kit/inputs.js';
import { agentArgument, type List, limitInput, minRevision, printList } from '../kit/lists.js';
import { ago, counted, formatValue, type Group, lines, record, recordOf, small } from '../kit/print.js';
import { type Call, type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import {
  choice,
  flag,
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
import { etagInput, findingLines, requireChange, writeInputs, writeSummary } from '../kit/writes.js';

const body: Body = { at: 'agent', type: 'Agent', message: Agent };
const json = word('json');

/** A model, or `none`. */
const modelOrNone: Kind = { ...model, read: (raw) => (raw === 'none' ? ['', ''] : model.read(raw)) };

const name: Input = { name: 'name', to: 'agent.name', kind: word('name'), help: 'the new name of the agent' };
const type: Input = {
  name: 'type',
  to: 'agent.agent_type',
  kind: word('type'),
  help: 'its type, such as analyst, researcher, manager, trader or risk_analyst; required',
};

const fields: readonly Input[] = [
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

const agentList: List<Agent> = {
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

const list: RemoteCommand = {
  name: 'list',
  about: 'show the agents',
  inputs: [
    { name: 'type', to: 'agent_type', kind: word('type'), help: 'only agents of this type' },
    { name: 'role', to: 'role', kind: word('role'), help: 'only agents with this role' },
    {
      name: 'active',
      to: 'is_active',
      kind: negatableFlag,
      help: 'only active agents, or with --no- only inactive ones',
    },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm agents list', 'all agents'],
    ['agentllm agents list --type researcher --active', 'filtered'],
  ],
  next: 'agentllm configs list --agent <agent> shows the models of an agent',
  run: (call) => printList(call, agentList),
};

const get: RemoteCommand = {
  name: 'get',
  about: 'show everything about an agent',
  inputs: [agentArgument, minRevision],
  examples: [
    ['agentllm agents get trader', 'by name'],
    ['agentllm agents get 8 --json', 'by id, for a program'],
  ],
  next: 'agentllm configs list --agent <agent> shows its models',
  async run(call) {
    const response = await call.api.agents.getAgent(call.request());
    return call.print(response, () => record(groupsOf(response.agent as Agent)));
  },
};

const create: RemoteCommand = {
  name: 'create',
  about: 'add an agent',
  inputs: [
    {
      name: '<name>',
      to: 'agent.name',
      kind: word('name'),
      help: 'its unique name, 1 to 255 characters',
    },
    type,
    ...fields,
    {
      name: 'reserved',
      to: 'agent.is_reserved',
      kind: flag,
      help: 'it belongs to the system and cannot be deleted; this cannot be changed later',
    },
    ...writeInputs,
  ],
  body,
  examples: [
    ['agentllm agents create scout --type analyst --description "looks for news"', 'an analyst'],
    [
      'agentllm agents create guard --type risk_analyst --substitution same-provider',
      'an agent whose calls stay with one provider',
    ],
    [
      'agentllm agents create vault --type analyst --model none',
      'an agent that calls no model without an enabled config',
    ],
  ],
  next: 'agentllm configs create <agent> --model provider/model selects its model',
  async run(call) {
    const response = await call.api.agents.createAgent(call.request());
    return call.print(response, () => summaryOf(call, 'created', response));
  },
};

const update: RemoteCommand = {
  name: 'update',
  about: 'change some fields of an agent; all other fields are kept',
  inputs: [{ ...agentArgument, to: [] }, name, type, ...fields, etagInput('agent.etag'), ...writeInputs],
  body,
  patches: true,
  examples: [
    ['agentllm agents update trader --description "trades" --substitution same-model', 'two fields'],
    ['agentllm agents update trader --unset description', 'clear one'],
    ['agentllm agents update trader --no-active', 'deactivate it; its configs are kept'],
  ],
  next: 'agentllm agents get <agent> shows the result',
  async run(call) {
    requireChange(call, body, [name, type, ...fields]);
    const id = await idOf(call);
    const response = await call.api.agents.updateAgent(
      call.request({ agent: { ...(call.inputs.message['agent'] as object), id } }),
    );
    return call.print(response, () => summaryOf(call, 'updated', response));
  },
};

/** The id of the agent: an update cannot use the name, which it may change. */
async function idOf(call: Call): Promise<number> {
  const ref = call.local<{ id?: number }>('<agent>');
  if (ref?.id !== undefined) return ref.id;
  const { agent: found } = await call.api.agents.getAgent({ agent: ref });
  return (found as Agent).id;
}

const remove: RemoteCommand = {
  name: 'delete',
  about: 'delete an agent; an agent of the system cannot be deleted',
  inputs: [
    agentArgument,
    { name: 'cascade', to: 'cascade', kind: flag, help: 'delete its configs with it' },
    etagInput('etag'),
    ...writeInputs,
  ],
  examples: [
    ['agentllm agents create scout --type analyst', 'an agent'],
    ['agentllm agents delete scout --cascade --reason "was a trial"', 'delete it'],
  ],
  next: 'agentllm agents update <agent> --no-active deactivates an agent and keeps it',
  async run(call) {
    const response = await call.api.agents.deleteAgent(call.request());
    const ref = call.inputs.message['agent'] as { id?: number; name?: string };
    const what = `agent ${ref.name ?? ref.id} with ${counted(response.deleted_configs, 'config')}`;
    return call.print(response, () => writeSummary(call, 'deleted', what, response));
  },
};

/** The summary of a write, with its findings. */
const summaryOf = (call: Call, done: string, response: UpdateAgentResponse) =>
  writeSummary(call, done, titleOf(response.agent as Agent), response) + findingLines(response.findings);

const titleOf = ({ name, id }: Agent) => `agent ${name}${id === 0 ? '' : ` (id ${id})`}`;

function groupsOf(row: Agent): Group[] {
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

/** `agentllm agents …`: the registry of agents. */
export function agentsCommand(): Command {
  return remoteGroup(
    'agents',
    'show and change the agents that configs belong to',
    'Start with: agentllm agents list. An agent is given by name or id; name:42 is the agent with the name 42.',
    [list, get, create, update, remove],
  );
}
