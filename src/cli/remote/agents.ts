import type { Command } from 'commander';
import type { Agent } from '../../../gen/ts/agentllm/v1/agent.js';
import type { UpdateAgentResponse } from '../../../gen/ts/agentllm/v1/agent_service.js';
import { agentArgument, limitInput, minRevision, printList } from '../kit/lists.js';
import { counted, record } from '../kit/print.js';
import { type Call, type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { flag, negatableFlag, word } from '../kit/values.js';
import { etagInput, findingLines, requireChange, writeInputs, writeSummary } from '../kit/writes.js';
import { agentList, body, fields, groupsOf, name, titleOf, type } from './agent_fields.js';

const list: RemoteCommand = {
  name: 'list',
  description: 'show the agents',
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
  description: 'show everything about an agent',
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
  description: 'add an agent',
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
  description: 'change some fields of an agent; all other fields are kept',
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
  description: 'delete an agent; an agent of the system cannot be deleted',
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

/** `agentllm agents …`: the agents of the store. */
export function agentsCommand(): Command {
  return remoteGroup(
    'agents',
    'show and change the agents that configs belong to',
    'Start with: agentllm agents list. An agent is given by name or id; name:42 is the agent with the name 42.',
    [list, get, create, update, remove],
  );
}
