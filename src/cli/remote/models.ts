import type { Command } from 'commander';
import type { RetiringModelUse } from '../../../gen/ts/agentllm/v1/agent_llm_config_service.js';
import { Model } from '../../../gen/ts/agentllm/v1/provider.js';
import type { Body } from '../kit/from_file.js';
import type { Input } from '../kit/inputs.js';
import { type List, limitInput, minRevision, printList } from '../kit/lists.js';
import { dayOf, formatValue, type Group, lines, moment, record, recordOf, small } from '../kit/print.js';
import { priceLines, rateText } from '../kit/rates.js';
import { type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { integer, model, negatableFlag, provider, text, time, usd, word } from '../kit/values.js';
import { etagInput, requireChange, writeInputs, writeSummary } from '../kit/writes.js';
import { ruleInput, ruleText } from './providers.js';

const body: Body = { at: 'model', type: 'Model', message: Model };

const modelArgument = (...to: string[]): Input => ({
  name: '<provider/model>',
  to,
  kind: model,
  mask: '',
  help: 'the model, with its provider by name or alias',
});

const price = (name: string, field: string, of: string): Input => ({
  name,
  to: `model.price.${field}`,
  mask: 'price',
  kind: usd,
  group: 'Price, in USD per million tokens (replaces all rates; for tiers and time windows, use agentllm prices set):',
  help: `price of ${of}`,
});

const fields: readonly Input[] = [
  {
    name: 'display-name',
    to: 'model.display_name',
    kind: text,
    clears: true,
    help: 'name for people, at most 100 characters',
  },
  {
    name: 'context-window',
    to: 'model.context_window_tokens',
    kind: integer,
    clears: true,
    help: 'context window in tokens, at least 1',
  },
  {
    name: 'max-output',
    to: 'model.max_output_tokens',
    kind: integer,
    clears: true,
    help: 'largest number of output tokens of one call, at least 1',
  },
  {
    name: 'functions',
    to: 'model.supports_functions',
    kind: negatableFlag,
    clears: true,
    help: 'whether it supports function calls',
  },
  { name: 'vision', to: 'model.supports_vision', kind: negatableFlag, clears: true, help: 'whether it accepts images' },
  {
    name: 'reasoning',
    to: 'model.supports_reasoning',
    kind: negatableFlag,
    clears: true,
    help: 'whether it is a reasoning model',
  },
  {
    name: 'forced-tool-choice',
    to: 'model.supports_forced_tool_choice',
    kind: negatableFlag,
    clears: true,
    help: 'whether a call can force it to call a tool',
  },
  {
    name: 'prefill',
    to: 'model.supports_prefill',
    kind: negatableFlag,
    clears: true,
    help: 'whether a call can give the start of its response',
  },
  {
    name: 'structured-output',
    to: 'model.supports_structured_output',
    kind: negatableFlag,
    clears: true,
    help: 'whether a call can require a response that matches a JSON schema',
  },
  ruleInput('model.parameter_rules', 'the model treats'),
  { name: 'as-of', to: 'model.as_of', kind: time, clears: true, help: 'date of these facts' },
  {
    name: 'retires-at',
    to: 'model.retires_at',
    kind: time,
    clears: true,
    help: 'its shutdown date: when its provider stops serving it, or did',
  },
  {
    name: 'replaced-by',
    to: 'model.replaced_by',
    kind: word('name'),
    clears: true,
    help: 'its successor, as named by its provider',
  },
  price('input-price', 'input_micro_usd_per_million', 'input'),
  price('cached-input-price', 'cached_input_micro_usd_per_million', "input that is read from the provider's cache"),
  price('cache-write-price', 'cache_write_micro_usd_per_million', "input that is written to the provider's cache"),
  price('cache-write-long-price', 'cache_write_long_micro_usd_per_million', 'input that is cached for one hour'),
  price('output-price', 'output_micro_usd_per_million', 'output'),
  price('reasoning-price', 'reasoning_micro_usd_per_million', 'reasoning (default: the output price)'),
  { ...price('price-source', 'source', ''), kind: text, help: 'source of the price, at most 200 characters' },
];

const modelList: List<Model> = {
  field: 'models',
  columns: [
    ['MODEL', (row) => `${row.provider}/${row.name}`],
    ['CONTEXT', ({ context_window_tokens }) => formatValue(context_window_tokens)],
    ['MAX OUTPUT', ({ max_output_tokens }) => formatValue(max_output_tokens)],
    ['INPUT USD/M', (row) => rateText(row.price?.input_micro_usd_per_million)],
    ['OUTPUT USD/M', (row) => rateText(row.price?.output_micro_usd_per_million)],
    ['SHUTDOWN', ({ retires_at }) => dayOf(retires_at)],
    ['REPLACED BY', ({ replaced_by }) => replaced_by ?? ''],
    ['BUILT IN', ({ built_in }) => formatValue(built_in)],
  ],
  noMatch: 'no model matches',
  empty: 'no models; agentllm models create provider/model adds one',
  fetchPage: (api, request) => api.providers.listModels(request),
};

const list: RemoteCommand = {
  name: 'list',
  description: 'show the models of the catalogue',
  inputs: [
    { name: 'provider', to: 'provider', kind: provider, help: 'only models of this provider, by name or alias' },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm models list --provider openai', 'the models of openai'],
    ['agentllm models list --limit 5 --json', 'for a program'],
  ],
  next: 'agentllm configs create <agent> --model provider/model assigns a model to an agent',
  run: (call) => printList(call, modelList),
};

const get: RemoteCommand = {
  name: 'get',
  description: 'show all facts about a model: limits, parameter rules, price',
  inputs: [modelArgument('provider', 'name'), minRevision],
  examples: [['agentllm models get openai/gpt-5.4', 'one model']],
  async run(call) {
    const response = await call.api.providers.getModel(call.request());
    return call.print(response, () => record(groupsOf(response.model as Model)));
  },
};

const create: RemoteCommand = {
  name: 'create',
  description: 'add a model to a provider, also to a built-in one',
  inputs: [modelArgument('model.provider', 'model.name'), ...fields, ...writeInputs],
  body,
  examples: [
    ['agentllm models create openai/gpt-next --context-window 200000 --max-output 16000', 'with its limits'],
    [
      'agentllm models create openai/gpt-next-mini --input-price 0.15 --output-price 0.6 --rule temperature=rejected',
      'with a price and a rule',
    ],
  ],
  next: 'agentllm configs create <agent> --model provider/model assigns it to an agent',
  async run(call) {
    const response = await call.api.providers.createModel(call.request());
    return call.print(response, () => writeSummary(call, 'created', titleOf(response.model as Model), response));
  },
};

const update: RemoteCommand = {
  name: 'update',
  description: 'change some facts about a model; all other facts are kept',
  inputs: [modelArgument('model.provider', 'model.name'), ...fields, etagInput('model.etag'), ...writeInputs],
  body,
  patches: true,
  examples: [
    [
      'agentllm models update openai/gpt-5.4 --input-price 2.5 --output-price 15 --price-source "price list"',
      'a new price, valid from now on',
    ],
    ['agentllm models update openai/gpt-5.4 --retires-at 2030-01-31 --replaced-by gpt-6-sol', 'set its shutdown date'],
    ['agentllm models update openai/gpt-5.4 --unset retires-at,replaced-by', 'clear it'],
  ],
  next: 'agentllm models retiring shows the uses of models that are shut down or will be',
  async run(call) {
    requireChange(call, body, fields);
    const response = await call.api.providers.updateModel(call.request());
    return call.print(response, () => writeSummary(call, 'updated', titleOf(response.model as Model), response));
  },
};

const remove: RemoteCommand = {
  name: 'delete',
  description: 'delete a model that is not built in and not in use',
  inputs: [modelArgument('provider', 'name'), etagInput('etag'), ...writeInputs],
  examples: [
    ['agentllm models create openai/gpt-next', 'create a model'],
    ['agentllm models delete openai/gpt-next', 'delete it'],
  ],
  async run(call) {
    const response = await call.api.providers.deleteModel(call.request());
    const { provider: of, name } = call.inputs.message;
    return call.print(response, () => writeSummary(call, 'deleted', `model ${of}/${name}`, response));
  },
};

const retiringList: List<RetiringModelUse> = {
  field: 'uses',
  columns: [
    ['MODEL', (row) => `${row.provider}/${row.model_name}`],
    ['STATE', ({ state }) => small(state, 'RETIREMENT_STATE_')],
    ['SHUTDOWN', ({ retires_at }) => dayOf(retires_at)],
    ['REPLACED BY', ({ replaced_by }) => replaced_by],
    ['AGENT', ({ agent_name }) => agent_name],
    ['CONFIG', ({ config_id }) => formatValue(config_id)],
    [
      'AS',
      ({ source, experiment, variant }) => (experiment ? `${experiment}/${variant}` : small(source, 'HOP_SOURCE_')),
    ],
    ['IN USE', ({ enabled }) => formatValue(enabled)],
  ],
  empty: 'no model in use is shut down within that time',
  fetchPage: (api, request) => api.configs.listRetiringModels(request),
};

const retiring: RemoteCommand = {
  name: 'retiring',
  description: 'show the uses of models that are shut down, will be, or have a successor',
  inputs: [
    { name: 'days', to: 'within_days', kind: integer, help: 'number of days ahead, 1 to 3650 (default 90)' },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm models retiring', 'in the next 90 days'],
    ['agentllm models retiring --days 365', 'in the next year'],
  ],
  next: 'agentllm configs update <id> --model provider/model moves a config to another model',
  run: (call) => printList(call, retiringList),
};

const titleOf = (row: Model) => `model ${row.provider}/${row.name}`;

function groupsOf(row: Model): Group[] {
  return [
    [
      titleOf(row),
      lines(
        ['display name', row.display_name],
        ['context window', row.context_window_tokens],
        ['max output', row.max_output_tokens],
        ['functions', row.supports_functions],
        ['vision', row.supports_vision],
        ['reasoning', row.supports_reasoning],
        ['forced tool choice', row.supports_forced_tool_choice],
        ['prefill', row.supports_prefill],
        ['structured output', row.supports_structured_output],
        ['shutdown', moment(row.retires_at)],
        ['replaced by', row.replaced_by],
        ['as of', moment(row.as_of)],
        ['built in', row.built_in],
      ),
    ],
    ['Rules', row.parameter_rules.map((one) => ['rule', ruleText(one)] as const)],
    ['Price in USD per million tokens', priceLines(row.price)],
    recordOf(row),
  ];
}

/** `agentllm models …`: the catalogue, against which configs are checked. */
export function modelsCommand(): Command {
  return remoteGroup(
    'models',
    'show and change the catalogue of models, their limits and prices',
    'Start with: agentllm models list --provider openai. A model is given with its provider: openai/gpt-5.4.',
    [list, get, create, update, remove, retiring],
  );
}
