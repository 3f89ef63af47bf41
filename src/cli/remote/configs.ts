import type { Command } from 'commander';
import type { AgentLLMConfig } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { Input } from '../kit/inputs.js';
import { agentArgument, limitInput, minRevision, printList } from '../kit/lists.js';
import { record } from '../kit/print.js';
import { type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { agent, configId, flag, model, negatableFlag, provider, word } from '../kit/values.js';
import { etagInput, findingLines, requireChange, writeInputs, writeSummary } from '../kit/writes.js';
import { bulkConfigs, reorderConfigs, upsertConfig } from './config_chain.js';
import {
  clearApiKey,
  configBody,
  configExtras,
  configFields,
  configGroups,
  configList,
  configNamed,
} from './config_fields.js';
import { configHealth } from './health.js';
import { validateConfig } from './validate.js';

const idArgument = (to: string): Input => ({
  name: '<id>',
  to,
  kind: configId,
  mask: '',
  help: 'the config, by its id',
});

const list: RemoteCommand = {
  name: 'list',
  description: 'show the configs of all agents, or of selected ones',
  inputs: [
    { name: 'agent', to: 'agent', kind: agent, help: 'only configs of this agent, by name or id' },
    { name: 'model', to: ['provider', 'model_name'], kind: model, help: 'only configs of this model' },
    { name: 'provider', to: 'provider', kind: provider, help: 'only configs of this provider' },
    { name: 'model-name', to: 'model_name', kind: word('name'), help: 'only configs of a model with this name' },
    {
      name: 'include-fallbacks',
      to: 'include_fallbacks',
      kind: flag,
      help: 'match the provider and model of the fallback too',
    },
    {
      name: 'enabled',
      to: 'enabled',
      kind: negatableFlag,
      help: 'only enabled configs, or with --no- only disabled ones',
    },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm configs list', 'the configs of all agents'],
    ['agentllm configs list --agent trader --no-enabled', 'the disabled configs of the trader'],
    ['agentllm configs list --provider claude --include-fallbacks', 'all uses of claude, also as fallback'],
  ],
  next: 'agentllm configs get <id> shows all fields of a config',
  run: (call) => printList(call, configList),
};

const get: RemoteCommand = {
  name: 'get',
  description: 'show all fields of a config',
  inputs: [idArgument('id'), minRevision],
  examples: [['agentllm configs get 1', 'the first config of a fresh service']],
  next: 'agentllm configs update <id> changes it, agentllm configs validate <id> lints it',
  async run(call) {
    const response = await call.api.configs.getConfig(call.request());
    return call.print(response, () => record(configGroups(response.config as AgentLLMConfig)));
  },
};

const create: RemoteCommand = {
  name: 'create',
  description: 'add a config to an agent',
  more: 'The enabled configs of an agent, ordered by priority, are its chain; the first is its primary config. A new config\nis placed last unless --priority sets its position.',
  inputs: [agentArgument, ...configFields, ...configExtras, ...writeInputs],
  body: configBody,
  examples: [
    [
      'agentllm configs create trader --model claude/claude-haiku-4-5 --temperature 0.2',
      'as the last config of the trader',
    ],
    [
      'agentllm configs create trader --model openai/gpt-5.4 --fallback claude/claude-haiku-4-5 --priority -1',
      'as the first one, with a fallback',
    ],
    [
      'printf %s "$OPENAI_API_KEY" | agentllm configs create trader --model openai/gpt-5.4 --api-key',
      'with its own API key',
    ],
  ],
  next: 'agentllm configs primary <agent> shows the primary config',
  async run(call) {
    const response = await call.api.configs.createConfig(call.request());
    const config = response.config as AgentLLMConfig;
    return call.print(
      response,
      () => writeSummary(call, 'created', configNamed(config), response) + findingLines(response.findings),
    );
  },
};

const update: RemoteCommand = {
  name: 'update',
  description: 'change some fields of a config; all other fields are kept',
  inputs: [
    idArgument('config.id'),
    ...configFields,
    ...configExtras,
    clearApiKey,
    etagInput('config.etag'),
    ...writeInputs,
  ],
  body: configBody,
  patches: true,
  examples: [
    ['agentllm configs update 8 --temperature 0 --max-tokens 4000', '0 is a value and is sent'],
    ['agentllm configs update 8 --unset max-tokens,temperature', 'clear both; neither is sent'],
    ['agentllm configs update 8 --model openai/gpt-5.4 --dry-run --reason "try it first"', 'check only'],
  ],
  next: 'agentllm configs get <id> shows the result',
  async run(call) {
    requireChange(call, configBody, configFields);
    const response = await call.api.configs.updateConfig(call.request());
    const config = response.config as AgentLLMConfig;
    return call.print(
      response,
      () => writeSummary(call, 'updated', configNamed(config), response) + findingLines(response.findings),
    );
  },
};

const remove: RemoteCommand = {
  name: 'delete',
  description: 'delete a config',
  inputs: [idArgument('id'), etagInput('etag'), ...writeInputs],
  examples: [
    ['agentllm configs create trader --model openai/gpt-5.4', 'creates config 13 on a fresh service'],
    ['agentllm configs delete 13 --reason "no longer wanted"', 'delete it'],
  ],
  next: 'agentllm configs update <id> --no-enabled disables a config and keeps it',
  async run(call) {
    const response = await call.api.configs.deleteConfig(call.request());
    const what = `config ${call.inputs.message['id']}`;
    return call.print(response, () => writeSummary(call, 'deleted', what, response) + findingLines(response.findings));
  },
};

const primary: RemoteCommand = {
  name: 'primary',
  description: 'show the primary config of an agent: the first enabled one of its chain',
  inputs: [agentArgument, minRevision],
  examples: [['agentllm configs primary trader', 'the primary config of the trader']],
  next: 'agentllm configs upsert <agent> changes it',
  async run(call) {
    const response = await call.api.configs.getPrimaryConfig(call.request());
    return call.print(response, () => record(configGroups(response.config as AgentLLMConfig)));
  },
};

/** `agentllm configs …`: the provider, model and parameters of each agent. */
export function configsCommand(): Command {
  return remoteGroup(
    'configs',
    'show and change the LLM configs of agents: model, parameters, fallbacks, keys',
    'Start with: agentllm configs list, then agentllm configs primary trader.\nA config needs a model of the catalogue (agentllm models list). Its API key comes from a credential\n(agentllm credentials create), from its own --api-key, or from the environment of the agent.',
    [
      list,
      get,
      primary,
      create,
      update,
      upsertConfig,
      bulkConfigs,
      reorderConfigs,
      remove,
      validateConfig,
      configHealth,
    ],
  );
}
