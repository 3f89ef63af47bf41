import type { Command } from 'commander';
import type { KeyCheck } from '../../../gen/ts/agentllm/v1/check.js';
import { type ParameterRule, Provider } from '../../../gen/ts/agentllm/v1/provider.js';
import { Exit } from '../kit/error_output.js';
import type { Body } from '../kit/from_file.js';
import type { Input } from '../kit/inputs.js';
import { type List, limitInput, minRevision, printList } from '../kit/lists.js';
import { ago, counted, formatValue, type Group, lines, record, recordOf, small } from '../kit/print.js';
import { type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { choice, list as listOf, negatableFlag, provider, rule, text, word } from '../kit/values.js';
import { etagInput, keyInput, requireChange, writeInputs, writeSummary } from '../kit/writes.js';
import { CHECK_TIMEOUT_MS } from './health.js';

const body: Body = { at: 'provider', type: 'Provider', message: Provider };

const nameArgument = (to: string, help = 'the provider, by its name'): Input => ({
  name: '<name>',
  to,
  kind: provider,
  mask: '',
  help,
});

const dialect = choice('DIALECT_', 'dialect', ['openai', 'openai-compatible', 'anthropic', 'openai-responses']);

const wireApi = choice('WIRE_API_', 'api', ['chat-completions', 'responses', 'messages']);

const fields: readonly Input[] = [
  {
    name: 'base-url',
    to: 'provider.base_url',
    kind: word('url'),
    help: 'https URL of its API; http, local host names and private addresses need PROVIDER_ALLOW_CIDRS in the environment of the service; required',
  },
  { name: 'dialect', to: 'provider.dialect', kind: dialect, help: 'the family of its APIs; required' },
  {
    name: 'wire-api',
    to: 'provider.wire_api',
    kind: wireApi,
    clears: true,
    help: 'the API that requests use (default: chat-completions; responses or messages if the dialect has only that one)',
  },
  {
    name: 'display-name',
    to: 'provider.display_name',
    kind: text,
    clears: true,
    help: 'name for people, at most 100 characters (default: the name)',
  },
  {
    name: 'alias',
    to: 'provider.aliases',
    kind: listOf(word('name')),
    clears: true,
    help: 'another name for it; can be repeated, at most 20',
  },
  {
    name: 'api-key-env',
    to: 'provider.api_key_env_vars',
    kind: listOf(word('variable')),
    clears: true,
    help: 'environment variable with its key, such as LOCAL_API_KEY; can be repeated, at most 5, tried in this order',
  },
  {
    name: 'enabled',
    to: 'provider.enabled',
    kind: negatableFlag,
    clears: true,
    help: 'whether it is enabled (default: yes)',
  },
  {
    name: 'allow-unknown-models',
    to: 'provider.allow_unknown_models',
    kind: negatableFlag,
    clears: true,
    help: 'whether configs may use models that are not in the catalogue (default: yes, except for built-in providers)',
  },
  ruleInput('provider.parameter_rules', 'all its models treat'),
];

/** The parameter rules of a provider or of a model. */
export function ruleInput(to: string, subject: string): Input {
  return {
    name: 'rule',
    to,
    kind: listOf(rule),
    clears: true,
    help: `how ${subject} a parameter, such as temperature=rejected or temperature=accepted,maximum=1; replaces all rules; can be repeated, at most 20`,
  };
}

/** A rule in the form of --rule. */
export function ruleText({ parameter, support, ...more }: ParameterRule): string {
  const attributes = Object.entries(more).filter(
    ([, value]) => value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0),
  );
  const rest = attributes.map(([key, value]) => `,${key}=${Array.isArray(value) ? value.join('|') : value}`);
  return `${parameter}=${small(support, 'PARAMETER_SUPPORT_')}${rest.join('')}`;
}

const providerList: List<Provider> = {
  field: 'providers',
  columns: [
    ['NAME', ({ name }) => name],
    ['ALIASES', ({ aliases }) => aliases.join(', ')],
    ['DIALECT', (row) => small(row.dialect, 'DIALECT_')],
    ['WIRE API', (row) => small(row.wire_api, 'WIRE_API_')],
    ['BASE URL', ({ base_url }) => base_url],
    ['BUILT IN', ({ built_in }) => formatValue(built_in)],
    ['ENABLED', ({ enabled }) => formatValue(enabled)],
    ['KEY FROM', ({ api_key_env_vars }) => api_key_env_vars.join(', ')],
    ['UPDATED', ({ updated_at }) => ago(updated_at)],
  ],
  empty: 'no providers; agentllm seed creates the built-in ones, agentllm providers create adds one',
  fetchPage: (api, request) => api.providers.listProviders(request),
};

const list: RemoteCommand = {
  name: 'list',
  description: 'show the providers',
  inputs: [limitInput, minRevision],
  examples: [['agentllm providers list', 'all providers']],
  next: 'agentllm models list --provider <name> shows its models',
  run: (call) => printList(call, providerList),
};

const get: RemoteCommand = {
  name: 'get',
  description: 'show all fields of a provider',
  inputs: [nameArgument('name', 'the provider, by name or alias'), minRevision],
  examples: [['agentllm providers get anthropic', 'by an alias: its name is claude']],
  next: 'agentllm models list --provider <name> shows its models',
  async run(call) {
    const response = await call.api.providers.getProvider(call.request());
    return call.print(response, () => record(groupsOf(response.provider as Provider)));
  },
};

const create: RemoteCommand = {
  name: 'create',
  description: 'add a provider: any endpoint with an API of OpenAI or Anthropic',
  inputs: [nameArgument('provider.name', 'its name, 1 to 50 of a-z 0-9 . _ -'), ...fields, ...writeInputs],
  body,
  examples: [
    [
      'agentllm providers create together --dialect openai-compatible --base-url https://api.together.xyz/v1 --api-key-env TOGETHER_API_KEY',
      'add a provider',
    ],
    ['agentllm models create together/meta-llama/Llama-3-70b', 'add a model to it'],
    [
      'agentllm providers create gateway --dialect openai-compatible --wire-api responses --base-url https://llm.example.com/v1',
      'one that serves the Responses API',
    ],
  ],
  next: 'agentllm models create <name>/<model> adds a model, agentllm credentials create <name> --provider <name> a key',
  async run(call) {
    const response = await call.api.providers.createProvider(call.request());
    return call.print(response, () => writeSummary(call, 'created', `provider ${response.provider?.name}`, response));
  },
};

const update: RemoteCommand = {
  name: 'update',
  description: 'change some fields of a provider; all other fields are kept',
  more: 'A built-in provider permits changes of these fields only: display name, aliases, enabled, allow-unknown-models.\nA new --dialect without --wire-api gets the default wire API of the dialect.',
  inputs: [nameArgument('provider.name'), ...fields, etagInput('provider.etag'), ...writeInputs],
  body,
  patches: true,
  examples: [
    ['agentllm providers update openai --alias oai --alias gpt', 'replace its aliases'],
    ['agentllm providers update openai --unset alias', 'clear them'],
    ['agentllm providers update grok --no-enabled', 'disable it'],
  ],
  next: 'agentllm providers get <name> shows the result',
  async run(call) {
    requireChange(call, body, fields);
    const response = await call.api.providers.updateProvider(call.request());
    return call.print(response, () => writeSummary(call, 'updated', `provider ${response.provider?.name}`, response));
  },
};

const remove: RemoteCommand = {
  name: 'delete',
  description: 'delete a provider that is not built in, with its models',
  inputs: [nameArgument('name'), etagInput('etag'), ...writeInputs],
  examples: [
    [
      'agentllm providers create mine --dialect openai-compatible --base-url https://llm.example.com/v1',
      'add a provider',
    ],
    ['agentllm providers delete mine', 'delete it'],
  ],
  next: 'agentllm providers update <name> --no-enabled disables a provider and keeps it',
  async run(call) {
    const response = await call.api.providers.deleteProvider(call.request());
    const what = `provider ${call.inputs.message['name']} with ${counted(response.deleted_models, 'model')}`;
    return call.print(response, () => writeSummary(call, 'deleted', what, response));
  },
};

const checkKey: RemoteCommand = {
  name: 'check-key',
  description: 'check an API key with its provider before it is stored; uses no model tokens',
  more: 'The command prompts for the key at a terminal and reads it from standard input otherwise; it is never an argument.\nThe key is not stored. Exit code 1: the key is not valid, or the check failed.',
  inputs: [
    nameArgument('provider', 'the provider, by name or alias'),
    { name: 'model-name', to: 'model_name', kind: word('name'), help: 'a model that the key must give access to' },
    {
      ...keyInput,
      required: true,
      help: 'the key to check: prompted for at a terminal, else read from standard input; never an argument',
    },
    minRevision,
  ],
  examples: [
    [
      'printf %s "$OPENAI_API_KEY" | agentllm providers check-key openai --model-name gpt-5.4',
      'check a key and a model',
    ],
  ],
  timeoutMs: CHECK_TIMEOUT_MS,
  next: 'agentllm credentials create <name> --provider <provider> stores it',
  async run(call) {
    const response = await call.api.providers.validateApiKey(call.request());
    const { status, message, latency_ms } = response.check as KeyCheck;
    const took = latency_ms === undefined ? '' : ` (${latency_ms} ms)`;
    call.print(response, () => `${small(status, 'CHECK_STATUS_')}: ${message}${took}`);
    return status === 'CHECK_STATUS_OK' ? Exit.done : Exit.failed;
  },
};

function groupsOf(row: Provider): Group[] {
  return [
    [
      `provider ${row.name}`,
      lines(
        ['display name', row.display_name],
        ['aliases', row.aliases],
        ['dialect', small(row.dialect, 'DIALECT_')],
        ['wire API', small(row.wire_api, 'WIRE_API_')],
        ['base URL', row.base_url],
        ['key from', row.api_key_env_vars],
        ['built in', row.built_in],
        ['enabled', row.enabled],
        ['unknown models', row.allow_unknown_models],
      ),
    ],
    ['Rules', row.parameter_rules.map((one) => ['rule', ruleText(one)] as const)],
    recordOf(row),
  ];
}

/** `agentllm providers …`: the providers of the catalogue. */
export function providersCommand(): Command {
  return remoteGroup(
    'providers',
    'show and change the providers of models',
    'Start with: agentllm providers list. openai, deepseek, grok and claude are built in.',
    [list, get, create, update, remove, checkKey],
  );
}
