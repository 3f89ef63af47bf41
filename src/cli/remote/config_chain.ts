import type { AgentLLMConfig } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { BulkAssignResult } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { Exit } from '../kit/error_output.js';
import { agentArgument, tableOf } from '../kit/lists.js';
import { counted } from '../kit/print.js';
import type { RemoteCommand } from '../kit/remote_command.js';
import { agent, configId, flag } from '../kit/values.js';
import { etagInput, findingLines, requireChange, writeInputs, writeSummary } from '../kit/writes.js';
import { agentFilters, chosenAgents } from './agent_filters.js';
import {
  clearApiKey,
  configBody,
  configColumns,
  configExtras,
  configFields,
  configNamed,
  modelOf,
} from './config_fields.js';

/* The commands that change the chain of an agent instead of one config. */

export const upsertConfig: RemoteCommand = {
  name: 'upsert',
  description: 'change the primary config of an agent, or create it',
  more: 'Changes the primary config of the agent. If the agent has no enabled config, its first disabled config is changed\nand enabled. If it has no config, one is created, which needs --model.',
  inputs: [agentArgument, ...configFields, ...configExtras, clearApiKey, etagInput('config.etag'), ...writeInputs],
  body: configBody,
  patches: true,
  examples: [
    ['agentllm configs upsert trader --model claude/claude-haiku-4-5 --temperature 0.2', 'another model'],
    ['agentllm configs upsert trader --unset temperature', 'clear the temperature'],
  ],
  next: 'agentllm configs primary <agent> shows the result',
  async run(call) {
    requireChange(call, configBody, configFields);
    const response = await call.api.configs.upsertPrimaryConfig(call.request());
    const done = response.created ? 'created' : 'updated';
    const what = configNamed(response.config as AgentLLMConfig);
    return call.print(response, () => writeSummary(call, done, what, response) + findingLines(response.findings));
  },
};

export const bulkConfigs: RemoteCommand = {
  name: 'bulk',
  description: 'change the primary configs of several agents in one step, as upsert does for one',
  more: 'All or nothing: if one agent is rejected, nothing is written. With --partial the other agents are changed, and exit\ncode 1 means that some were rejected.\nThe agents are named, or selected with --all and the filters, which must all match.',
  inputs: [
    { name: '[agents...]', to: 'agents', kind: agent, help: 'the agents, 1 to 1000, by names or ids' },
    ...agentFilters,
    ...configFields,
    ...configExtras,
    {
      name: 'partial',
      to: 'allow_partial',
      kind: flag,
      help: 'change the agents that can be changed, and report the others',
    },
    ...writeInputs,
  ],
  body: configBody,
  patches: true,
  examples: [
    ['agentllm configs bulk trader market_analyst --model openai/gpt-5.4', 'the same model for both'],
    ['agentllm configs bulk --all --max-tokens 4000 --dry-run', 'all agents'],
    [
      'agentllm configs bulk --of-type researcher --of-provider openai --temperature 0.2',
      'the researchers whose primary config is of openai',
    ],
  ],
  next: 'agentllm configs list shows the result',
  async run(call) {
    requireChange(call, configBody, configFields);
    const agents = await chosenAgents(call);
    const response = await call.api.configs.bulkAssignConfig(call.request(agents && { agents }));
    const { results } = response;
    const refused = results.filter(({ status }) => status).length;
    const what = counted(results.length - refused, 'config');
    const plain = results.map(({ status, ...result }) => ({ ...result, ...(status && { status: statusOf(status) }) }));
    call.print(
      { ...response, results: plain },
      () =>
        [writeSummary(call, 'assigned', what, response), tableOf(results, { columns: bulkColumns, empty: '' })].join(
          '\n',
        ) + findingLines(response.findings),
    );
    return refused > 0 ? Exit.failed : Exit.done;
  },
};

type Status = NonNullable<BulkAssignResult['status']>;

/** A status without its details, which are encoded messages. */
const statusOf = ({ code, message }: Status) => ({ code, message });

const bulkColumns = [
  ['AGENT', ({ agent_name, agent_id }: BulkAssignResult) => agent_name || String(agent_id)],
  ['CONFIG', ({ config }: BulkAssignResult) => (config?.id ? String(config.id) : '')],
  ['MODEL', ({ config }: BulkAssignResult) => (config ? modelOf(config) : '')],
  [
    'RESULT',
    ({ status, created }: BulkAssignResult) =>
      status ? `rejected: ${status.message}` : created ? 'created' : 'updated',
  ],
] as const;

export const reorderConfigs: RemoteCommand = {
  name: 'reorder',
  description: 'set the order of the configs of an agent; the first enabled config is its primary',
  inputs: [
    agentArgument,
    {
      name: '<ids...>',
      to: 'config_ids',
      kind: configId,
      help: 'all configs of the agent, enabled or not, in the new order',
    },
    {
      ...etagInput('chain_etag'),
      help: 'reorder only if the agent still has this chain etag, as agents get shows it',
    },
    ...writeInputs,
  ],
  examples: [
    ['agentllm configs create trader --model openai/gpt-5.4', 'creates config 13 on a fresh service'],
    ['agentllm configs reorder trader 13 8', 'move it to the front'],
  ],
  next: 'agentllm configs primary <agent> shows the new primary',
  async run(call) {
    const response = await call.api.configs.reorderConfigs(call.request());
    const name = response.configs[0]?.agent_name ?? '';
    return call.print(response, () =>
      [
        writeSummary(call, 'reordered', `the configs of ${name}`, response),
        tableOf(response.configs, { columns: configColumns, empty: '' }),
      ].join('\n'),
    );
  },
};
