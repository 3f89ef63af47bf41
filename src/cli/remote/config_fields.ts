import { AgentLLMConfig } from '../../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { Body } from '../kit/from_file.js';
import type { Input } from '../kit/inputs.js';
import type { Column, List } from '../kit/lists.js';
import { ago, formatValue, type Group, lines, recordOf, small } from '../kit/print.js';
import {
  credential,
  flag,
  int64,
  integer,
  list,
  model,
  negatableFlag,
  number,
  provider,
  text,
  word,
} from '../kit/values.js';
import { keyInput } from '../kit/writes.js';

/* The fields of a config: their options, and their output. */

export const configBody: Body = { at: 'config', type: 'AgentLLMConfig', message: AgentLLMConfig };

const money = 'USD per 1000 tokens, 0 to 1000000; overrides the price book when it is set';

export const configFields: readonly Input[] = [
  {
    name: 'model',
    to: ['config.provider', 'config.model_name'],
    kind: model,
    help: 'provider and model, as `agentllm models list` shows them',
  },
  { name: 'provider', to: 'config.provider', kind: provider, help: 'the provider only, by name or alias' },
  { name: 'model-name', to: 'config.model_name', kind: word('name'), help: 'the model name only, 1 to 100 characters' },
  {
    name: 'fallback',
    to: ['config.fallback_provider', 'config.fallback_model'],
    kind: model,
    clears: true,
    help: 'the model that is used when the first model fails',
  },
  {
    name: 'fallback-provider',
    to: 'config.fallback_provider',
    kind: provider,
    clears: true,
    help: 'the provider of the fallback only',
  },
  {
    name: 'fallback-model',
    to: 'config.fallback_model',
    kind: word('name'),
    clears: true,
    help: 'the model name of the fallback only',
  },
  {
    name: 'temperature',
    to: 'config.temperature',
    kind: number,
    clears: true,
    help: 'sampling temperature, 0 to 2 (default 0.7); when cleared, none is sent',
  },
  {
    name: 'max-tokens',
    to: 'config.max_tokens',
    kind: integer,
    clears: true,
    help: 'output limit in tokens, at least 1 (default: none)',
  },
  { name: 'top-p', to: 'config.top_p', kind: number, clears: true, help: 'nucleus sampling, 0 to 1 (default: none)' },
  {
    name: 'reasoning-effort',
    to: 'config.extra_params.reasoning_effort',
    kind: word('effort'),
    clears: true,
    help: 'reasoning effort of the model, such as low, medium or high',
  },
  {
    name: 'thinking-budget',
    to: 'config.extra_params.thinking_budget_tokens',
    kind: integer,
    clears: true,
    help: 'thinking budget in tokens, 0 to 1000000; 0 switches thinking off',
  },
  {
    name: 'stop',
    to: 'config.extra_params.stop_sequences',
    kind: list(text),
    clears: true,
    help: 'sequence at which generation stops; can be repeated, at most 16',
  },
  { name: 'seed', to: 'config.extra_params.seed', kind: int64, clears: true, help: 'seed for reproducible sampling' },
  {
    name: 'request-timeout',
    to: 'config.extra_params.request_timeout_ms',
    kind: { ...integer, value: 'ms' },
    clears: true,
    help: 'deadline of one model call, 1 to 3600000; applied by the agent, not sent to the provider',
  },
  {
    name: 'input-cost',
    to: 'config.cost_per_1k_input_tokens',
    kind: number,
    clears: true,
    help: `price of input: ${money}`,
  },
  {
    name: 'output-cost',
    to: 'config.cost_per_1k_output_tokens',
    kind: number,
    clears: true,
    help: `price of output: ${money}`,
  },
  {
    name: 'price-given',
    to: 'config.price_given',
    kind: negatableFlag,
    clears: true,
    help: 'whether the costs are set; --no-price-given clears both',
  },
  {
    name: 'enabled',
    to: 'config.enabled',
    kind: negatableFlag,
    clears: true,
    help: 'whether it is part of the chain (default: yes)',
  },
  {
    name: 'priority',
    to: 'config.priority',
    kind: integer,
    clears: true,
    help: 'position among the configs of the agent, lowest first, -1000000 to 1000000 (default: after the last)',
  },
  {
    name: 'credential',
    to: 'config.credential_name',
    kind: credential,
    clears: true,
    help: 'name of the credential whose API key is used (default: none)',
  },
  {
    name: 'metadata',
    to: 'config.metadata_json',
    kind: word('json'),
    clears: true,
    help: 'JSON object for any purpose, at most 16384 bytes',
  },
];

export const allowUnknownModel: Input = {
  name: 'allow-unknown-model',
  to: 'allow_unknown_model',
  kind: flag,
  help: 'accept a model that is not in the catalogue, for this request',
};

export const clearApiKey: Input = {
  name: 'clear-api-key',
  to: 'clear_api_key',
  kind: flag,
  help: 'remove the API key that is stored with the config',
};

/** The inputs of a config write besides its fields. */
export const configExtras: readonly Input[] = [keyInput, allowUnknownModel];

const pair = (name: string | undefined, modelName: string | undefined) => (modelName ? `${name}/${modelName}` : '');
export const modelOf = (config: AgentLLMConfig): string => pair(config.provider, config.model_name);

/** The source of the API key of a config. */
const keyOf = ({ api_key_state, credential_name }: AgentLLMConfig): string => {
  if (credential_name) return credential_name;
  return api_key_state === 'API_KEY_STATE_NONE' ? 'environment' : `own, ${small(api_key_state, 'API_KEY_STATE_')}`;
};

/** `config 13 of trader`; a dry run of a create has no id. */
export const configNamed = ({ id, agent_name }: AgentLLMConfig): string =>
  `config${id === 0 ? '' : ` ${id}`} of ${agent_name}`;

export const configColumns: readonly Column<AgentLLMConfig>[] = [
  ['ID', ({ id }) => String(id)],
  ['AGENT', ({ agent_name }) => agent_name],
  ['MODEL', modelOf],
  ['TEMPERATURE', ({ temperature }) => formatValue(temperature)],
  ['MAX TOKENS', ({ max_tokens }) => formatValue(max_tokens)],
  ['FALLBACK', (config) => pair(config.fallback_provider, config.fallback_model)],
  ['KEY', keyOf],
  ['PRIORITY', ({ priority }) => formatValue(priority)],
  ['ENABLED', ({ enabled }) => formatValue(enabled)],
  ['UPDATED', ({ updated_at }) => ago(updated_at)],
];

export const configList: List<AgentLLMConfig> = {
  field: 'configs',
  columns: configColumns,
  noMatch: 'no config matches',
  empty: 'no configs; agentllm configs create <agent> --model provider/model creates one',
  fetchPage: (api, request) => api.configs.listConfigs(request),
};

/** All fields of a config, in groups. */
export function configGroups(config: AgentLLMConfig): Group[] {
  const { extra_params: extra } = config;
  return [
    [
      configNamed(config),
      lines(
        ['model', modelOf(config)],
        ['fallback', pair(config.fallback_provider, config.fallback_model)],
        ['enabled', config.enabled],
        ['priority', config.priority],
        ['API key', keyOf(config)],
        ['credential', config.credential_name],
      ),
    ],
    [
      'Parameters',
      lines(
        ['temperature', config.temperature],
        ['max tokens', config.max_tokens],
        ['top p', config.top_p],
        ['reasoning effort', extra?.reasoning_effort],
        ['thinking budget', extra?.thinking_budget_tokens],
        ['stop', extra?.stop_sequences.map((one) => JSON.stringify(one)).join(', ')],
        ['seed', extra?.seed],
        ['request timeout', extra?.request_timeout_ms === undefined ? '' : `${extra.request_timeout_ms} ms`],
      ),
    ],
    [
      'Price in USD per 1000 tokens',
      lines(
        ['given', config.price_given],
        ['input', config.price_given ? config.cost_per_1k_input_tokens : ''],
        ['output', config.price_given ? config.cost_per_1k_output_tokens : ''],
      ),
    ],
    ['Other fields', lines(['metadata', config.metadata_json])],
    recordOf(config),
  ];
}
