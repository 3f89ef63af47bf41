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
  about: 'show the configs of all agents, or of some',
  inputs: [
    { name: 'agent', to: 'agent', kind: agent, help: 'only those of this agent, by name or id' },
    { name: 'model', to: ['provider', 'model_name'], kind: model, help: 'only those of this model' },
    { name: 'provider', to: 'provider', kind: provider, help: 'only those of this provider' },
    { name: 'model-name', to: 'model_name', kind: word('name'), help: 'only those of a model of this name' },
    {
      name: 'include-fallbacks',
      to: 'include_fallbacks',
      kind: flag,
      help: 'compare provider and model with the fallback as well',
    },
    { name: 'enabled', to: 'enabled', kind: negatableFlag, help: 'only those that are enabled, or are not' },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm configs list', 'what every agent uses'],
    ['agentllm configs list --agent trader --no-enabled', 'what is kept for the trader and not in use'],
    ['agentllm configs list --provider claude --include-fallbacks', 'where claude is used, first or as fallback'],
    ['agentllm configs list --json --limit 3', 'for a program'],
  ],
  next: 'agentllm configs get <id> shows everything about one',
  run: (call) => printList(call, configList),
};

const get: RemoteCommand = {
  name: 'get',
  about: 'show everything about one config',
  inputs: [idArgument('id'), minRevision],
  examples: [['agentllm configs get 1', 'the first config of a fresh service']],
  next: 'agentllm configs update <id> changes it, agentllm configs validate <id> says what is risky about it',
  async run(call) {
    const response = await call.api.configs.getConfig(call.request());
    return call.print(response, () => record(configGroups(response.config as AgentLLMConfig)));
  },
};

const create: RemoteCommand = {
  name: 'create',
  about: 'give an agent another config',
  more: "An agent's enabled configs, ordered by priority, are its chain; the first is its primary. A new one stands behind\nthe others unless --priority says otherwise.",
  inputs: [agentArgument, ...configFields, ...configExtras, ...writeInputs],
  body: configBody,
  examples: [
    ['agentllm configs create trader --model openai/gpt-4o --temperature 0.2', 'behind what it has'],
    [
      'agentllm configs create trader --model openai/gpt-4o --fallback claude/claude-3-haiku-20240307 --priority -1',
      'in front of what it has, with a fallback',
    ],
    [
      'printf %s "$OPENAI_API_KEY" | agentllm configs create trader --model openai/gpt-4o --api-key',
      'with a key of its own',
    ],
  ],
  next: 'agentllm configs primary <agent> shows what the agent uses now',
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
  about: 'change some fields of a config; all others are kept',
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
    ['agentllm configs update 8 --temperature 0 --max-tokens 4000', '0 is a value: it is sent as 0'],
    ['agentllm configs update 8 --unset max-tokens,temperature', 'send neither'],
    ['agentllm configs update 8 --model openai/gpt-4o --dry-run --reason "try it first"', 'check only'],
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
  about: 'delete a config',
  inputs: [idArgument('id'), etagInput('etag'), ...writeInputs],
  examples: [
    ['agentllm configs create trader --model openai/gpt-4o', 'makes config 13 on a fresh service'],
    ['agentllm configs delete 13 --reason "no longer wanted"', 'and takes it away again'],
  ],
  next: 'agentllm configs update <id> --no-enabled keeps a config and takes it out of use',
  async run(call) {
    const response = await call.api.configs.deleteConfig(call.request());
    const what = `config ${call.inputs.message['id']}`;
    return call.print(response, () => writeSummary(call, 'deleted', what, response) + findingLines(response.findings));
  },
};

const primary: RemoteCommand = {
  name: 'primary',
  about: 'show the config that an agent uses: the first enabled one of its chain',
  inputs: [agentArgument, minRevision],
  examples: [['agentllm configs primary trader', 'what the trader uses now']],
  next: 'agentllm configs upsert <agent> changes it, whichever it is',
  async run(call) {
    const response = await call.api.configs.getPrimaryConfig(call.request());
    return call.print(response, () => record(configGroups(response.config as AgentLLMConfig)));
  },
};

/** `agentllm configs …`: which provider and model each agent uses, with which parameters. */
export function configsCommand(): Command {
  return remoteGroup(
    'configs',
    'show and change the LLM configs of agents: model, parameters, fallbacks, keys',
    'Start with: agentllm configs list, then agentllm configs primary trader.\nA config needs a model of the catalogue (agentllm models list) and finds its API key in a credential\n(agentllm credentials create), in its own --api-key, or in the environment of the agent.',
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
