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

const dialect = choice('DIALECT_', 'dialect', ['openai', 'openai-compatible', 'openai-responses', 'anthropic']);

const fields: readonly Input[] = [
  {
    name: 'base-url',
    to: 'provider.base_url',
    kind: word('url'),
    help: 'the URL of its API, https; http, host names of the local network and private addresses need PROVIDER_ALLOW_CIDRS in the environment of the service; required',
  },
  { name: 'dialect', to: 'provider.dialect', kind: dialect, help: 'its wire API; required' },
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
    help: 'another name that means it; at most 20, each an option of its own',
  },
  {
    name: 'api-key-env',
    to: 'provider.api_key_env_vars',
    kind: listOf(word('variable')),
    clears: true,
    help: 'environment variable that holds its key, such as LOCAL_API_KEY; at most 5, in the order in which they are tried',
  },
  {
    name: 'enabled',
    to: 'provider.enabled',
    kind: negatableFlag,
    clears: true,
    help: 'whether it may be used (default: it may)',
  },
  {
    name: 'allow-unknown-models',
    to: 'provider.allow_unknown_models',
    kind: negatableFlag,
    clears: true,
    help: 'whether configs may name models that the catalogue lacks (default: they may, except of built-in ones)',
  },
  ruleInput('provider.parameter_rules', 'all its models treat'),
];

/** How parameters are treated, by a provider or by one model. */
export function ruleInput(to: string, subject: string): Input {
  return {
    name: 'rule',
    to,
    kind: listOf(rule),
    clears: true,
    help: `how ${subject} a parameter, such as temperature=rejected or temperature=accepted,maximum=1; replaces all rules; at most 20`,
  };
}

/** A rule as it is typed. */
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
    ['BASE URL', ({ base_url }) => base_url],
    ['BUILT IN', ({ built_in }) => formatValue(built_in)],
    ['ENABLED', ({ enabled }) => formatValue(enabled)],
    ['KEY FROM', ({ api_key_env_vars }) => api_key_env_vars.join(', ')],
    ['UPDATED', ({ updated_at }) => ago(updated_at)],
  ],
  empty: 'no providers; agentllm seed brings the built-in ones, agentllm providers create makes one',
  fetchPage: (api, request) => api.providers.listProviders(request),
};

const list: RemoteCommand = {
  name: 'list',
  about: 'show the providers',
  inputs: [limitInput, minRevision],
  examples: [['agentllm providers list', 'the built-in ones, and yours']],
  next: 'agentllm models list --provider <name> shows its models',
  run: (call) => printList(call, providerList),
};

const get: RemoteCommand = {
  name: 'get',
  about: 'show everything about a provider',
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
  about: 'add a provider: any endpoint that speaks as OpenAI or Anthropic do',
  inputs: [nameArgument('provider.name', 'its name, 1 to 50 of a-z 0-9 . _ -'), ...fields, ...writeInputs],
  body,
  examples: [
    [
      'agentllm providers create together --dialect openai-compatible --base-url https://api.together.xyz/v1 --api-key-env TOGETHER_API_KEY',
      'one of many',
    ],
    ['agentllm models create together/meta-llama/Llama-3-70b', 'a model of it'],
    ['agentllm configs upsert trader --model together/meta-llama/Llama-3-70b', 'which an agent uses'],
  ],
  next: 'agentllm models create <name>/<model> adds a model of it, agentllm credentials create <name> --provider <name> a key',
  async run(call) {
    const response = await call.api.providers.createProvider(call.request());
    return call.print(response, () => writeSummary(call, 'created', `provider ${response.provider?.name}`, response));
  },
};

const update: RemoteCommand = {
  name: 'update',
  about: 'change some fields of a provider; all others are kept',
  more: 'Of a built-in one only the display name, the aliases and whether it and unknown models may be used can be changed.',
  inputs: [nameArgument('provider.name'), ...fields, etagInput('provider.etag'), ...writeInputs],
  body,
  patches: true,
  examples: [
    ['agentllm providers update openai --alias oai --alias gpt', 'two aliases, in place of those it had'],
    ['agentllm providers update openai --unset alias', 'and none'],
    ['agentllm providers update grok --no-enabled', 'nobody uses it from now on'],
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
  about: 'delete a provider that is not built in, with its models',
  inputs: [nameArgument('name'), etagInput('etag'), ...writeInputs],
  examples: [
    ['agentllm providers create mine --dialect openai-compatible --base-url https://llm.example.com/v1', 'one'],
    ['agentllm providers delete mine', 'and away'],
  ],
  next: 'agentllm providers update <name> --no-enabled keeps a provider and takes it out of use',
  async run(call) {
    const response = await call.api.providers.deleteProvider(call.request());
    const what = `provider ${call.inputs.message['name']} with ${counted(response.deleted_models, 'model')}`;
    return call.print(response, () => writeSummary(call, 'deleted', what, response));
  },
};

const checkKey: RemoteCommand = {
  name: 'check-key',
  about: 'ask a provider whether an API key is good, before it is stored anywhere; costs no tokens',
  more: 'The key is asked for unseen at a terminal, and read from standard input elsewhere; it is never an argument, and\nkept nowhere. Exit code 1: it is not good, or nobody could say.',
  inputs: [
    nameArgument('provider', 'the provider, by name or alias'),
    { name: 'model-name', to: 'model_name', kind: word('name'), help: 'a model that it has to have, too' },
    {
      ...keyInput,
      required: true,
      help: 'the key to check: asked for at a terminal, else read from standard input; never an argument',
    },
    minRevision,
  ],
  examples: [
    [
      'printf %s "$OPENAI_API_KEY" | agentllm providers check-key openai --model-name gpt-4o',
      'is it good, and for this model?',
    ],
  ],
  timeoutMs: CHECK_TIMEOUT_MS,
  next: 'agentllm credentials create <name> --provider <provider> stores it',
  async run(call) {
    const response = await call.api.providers.validateApiKey(call.request());
    const { status, message, latency_ms } = response.check as KeyCheck;
    const took = latency_ms === undefined ? '' : ` (${latency_ms} ms)`;
    call.print(response, () => `${small(status, 'CHECK_STATUS_')}: ${message}${took}`);
    return status === 'CHECK_STATUS_OK' ? Exit.done : Exit.refused;
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

/** `agentllm providers …`: who serves models. */
export function providersCommand(): Command {
  return remoteGroup(
    'providers',
    'show and change the providers of models',
    'Start with: agentllm providers list. openai, deepseek, grok and claude are built in.',
    [list, get, create, update, remove, checkKey],
  );
}
