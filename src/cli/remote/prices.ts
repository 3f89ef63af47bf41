import type { Command } from 'commander';
import { ModelPrice } from '../../../gen/ts/agentllm/v1/provider.js';
import type { ImportModelsResponse, PricedModel, PriceProposal } from '../../../gen/ts/agentllm/v1/provider_service.js';
import { readNamedFile } from '../kit/connection.js';
import type { Body } from '../kit/from_file.js';
import { type Input, UsageError } from '../kit/inputs.js';
import { type Column, type List, limitInput, minRevision, printList, tableOf } from '../kit/lists.js';
import { counted, moment, small, visible } from '../kit/print.js';
import { conditionsOf, priceChanges, rateText } from '../kit/rates.js';
import { type Call, type RemoteCommand, remoteGroup } from '../kit/remote_command.js';
import { readStdin } from '../kit/stdin.js';
import {
  choice,
  file,
  flag,
  integer,
  list as listOf,
  model,
  provider,
  text,
  tier,
  time,
  usd,
  window,
  word,
} from '../kit/values.js';
import { writeInputs, writeSummary } from '../kit/writes.js';

const body: Body = { at: 'price', type: 'ModelPrice', message: ModelPrice };

const priceList: List<PricedModel> = {
  field: 'prices',
  columns: [
    ['MODEL', (row) => `${row.provider}/${row.model_name}`],
    ['VALID FROM', ({ price }) => moment(price?.valid_from)],
    ['UNTIL', ({ valid_until }) => moment(valid_until)],
    ['INPUT', ({ price }) => rateText(price?.input_micro_usd_per_million)],
    ['CACHED', ({ price }) => rateText(price?.cached_input_micro_usd_per_million)],
    ['WRITE', ({ price }) => rateText(price?.cache_write_micro_usd_per_million)],
    ['WRITE 1H', ({ price }) => rateText(price?.cache_write_long_micro_usd_per_million)],
    ['OUTPUT', ({ price }) => rateText(price?.output_micro_usd_per_million)],
    ['REASONING', ({ price }) => rateText(price?.reasoning_micro_usd_per_million)],
    ['TIERS AND WINDOWS', ({ price }) => (price ? conditionsOf(price).join('; ') : '')],
  ],
  noMatch: 'no price matches',
  empty: 'no prices; agentllm prices set provider/model --input <usd> --output <usd> adds one',
  fetchPage: (api, request) => api.providers.listPrices(request),
};

const modelPath = ['provider', 'model_name'];

const list: RemoteCommand = {
  name: 'list',
  description: 'show the prices of the price book in USD per million tokens, newest first',
  more: `TIERS AND WINDOWS: the input and output rates above a number of input tokens, and in time windows in UTC.
agentllm models get and --json show all rates and the source of a price.`,
  inputs: [
    { name: '[provider/model]', to: modelPath, kind: model, help: 'only prices of this model' },
    { name: 'provider', to: 'provider', kind: provider, help: 'only prices of the models of this provider' },
    { name: 'at', to: 'at', kind: time, help: 'only the price of each model that is valid at this time' },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm prices list openai/gpt-5.4', 'all prices of a model'],
    ['agentllm prices list --provider deepseek', 'the prices of one provider; deepseek has peak hours'],
    ['agentllm prices list --at 2027-01-01 --limit 5', 'the prices that are valid on that day'],
  ],
  next: 'agentllm prices set provider/model adds a price',
  run: (call) => printList(call, priceList),
};

const rate = (name: string, field: string, of: string): Input => ({
  name,
  to: `price.${field}_micro_usd_per_million`,
  kind: usd,
  group: 'Price in USD per million tokens:',
  help: `price of ${of}`,
});

const set: RemoteCommand = {
  name: 'set',
  description: 'add a price of a model, valid from now or from another time',
  more: `A price replaces all rates of the previous price, so set every known rate. Existing prices and the cost of
recorded attempts never change.`,
  inputs: [
    { name: '<provider/model>', to: modelPath, kind: model, help: 'the model, with its provider by name or alias' },
    rate('input', 'input', 'input'),
    rate('cached-input', 'cached_input', "input that is read from the provider's cache"),
    rate('cache-write', 'cache_write', 'input that is written to the cache for a short time, 5 minutes'),
    rate('cache-write-long', 'cache_write_long', 'input that is written to the cache for one hour'),
    rate('output', 'output', 'output'),
    rate('reasoning', 'reasoning', 'reasoning (default: the price of output)'),
    {
      name: 'tier',
      to: 'price.tiers',
      kind: listOf(tier),
      group: 'Price in USD per million tokens:',
      help: 'rates for every token of a request with more input tokens than above: above=272k,input=4,output=15; can be repeated',
    },
    {
      name: 'window',
      to: 'price.windows',
      kind: listOf(window),
      group: 'Price in USD per million tokens:',
      help: 'rates in a time window in UTC: 01:00-04:00,days=mon-fri,input=0.3; days is optional; can be repeated',
    },
    { name: 'source', to: 'price.source', kind: text, help: 'the origin of the price, at most 200 characters' },
    { name: 'valid-from', to: 'valid_from', kind: time, help: 'start of the price, past or future (default: now)' },
    ...writeInputs,
  ],
  body,
  examples: [
    [
      'agentllm prices set openai/gpt-5.4 --input 2.5 --cached-input 0.25 --output 15 --tier above=272k,input=5,output=22.5',
      'with a context tier',
    ],
    [
      'agentllm prices set deepseek/deepseek-flash --input 0.15 --output 0.6 --window 01:00-04:00,days=mon-fri,input=0.3,output=1.2',
      'with peak hours',
    ],
    ['agentllm prices set openai/gpt-5.4 --input 2 --output 12 --valid-from 2030-01-01', 'from a later date'],
  ],
  next: 'agentllm prices list provider/model shows all prices of a model',
  async run(call) {
    if (!('price' in call.inputs.message)) throw new UsageError('no rate: set --input and --output, or other rates');
    const response = await call.api.providers.setPrice(call.request());
    const { provider: owner, model_name } = response.price as PricedModel;
    return call.print(response, () => writeSummary(call, 'set', `the price of ${owner}/${model_name}`, response));
  },
};

const FILES = `The file is LiteLLM's model_prices_and_context_window.json or the api.json of models.dev. Download it first, for
example with: curl -sO https://models.dev/api.json`;

const fileInputs: readonly Input[] = [
  { name: '<file>', kind: file, help: 'the catalogue file; - is standard input' },
  {
    name: 'format',
    to: 'format',
    kind: choice('IMPORT_FORMAT_', 'format', ['litellm', 'models-dev']),
    help: 'format of the file (default: detected)',
  },
  { name: 'provider', to: 'providers', kind: listOf(provider), help: 'only models of this provider; can be repeated' },
  {
    name: 'new-models',
    to: 'new_models',
    kind: flag,
    help: 'also propose models that are not in the catalogue of the service',
  },
];

const diff: RemoteCommand = {
  name: 'diff',
  description: 'show how the prices of a public catalogue differ from the price book; writes nothing',
  more: FILES,
  inputs: fileInputs,
  examples: [
    [
      `echo '{"gpt-5.1": {"litellm_provider": "openai", "output_cost_per_token": 1.1e-05}}' | agentllm prices diff -`,
      'a file with one model',
    ],
  ],
  next: 'agentllm prices import <file> --accept provider/model applies a price',
  async run(call) {
    const response = await call.api.providers.importModels(
      call.request({ ...(await readFile(call)), validate_only: true }),
    );
    return call.print(response, () => proposalsText(response));
  },
};

const importPrices: RemoteCommand = {
  name: 'import',
  description: 'apply prices of a public catalogue: those that --accept names, or all with a small drift',
  more: `${FILES}
Without --accept and --up-to-drift, the command only shows the proposals. It never changes a price with time windows.`,
  inputs: [
    ...fileInputs,
    {
      name: 'accept',
      to: 'accept',
      kind: listOf(word('provider/model', 'models')),
      help: 'apply the proposal for this model; can be repeated',
    },
    {
      name: 'up-to-drift',
      to: 'apply_up_to_drift_percent',
      kind: integer,
      help: 'apply proposals that change no rate by more than this, in percent, 0 to 1000',
    },
    { name: 'source', to: 'source', kind: text, help: 'the origin of the file, at most 150 characters' },
    { name: 'as-of', to: 'as_of', kind: time, help: 'date of the file (default: today)' },
    ...writeInputs,
  ],
  examples: [
    [
      `echo '{"gpt-5.4": {"litellm_provider": "openai", "output_cost_per_token": 1.6e-05, "output_cost_per_token_above_272k_tokens": 2.4e-05}}' | agentllm prices import - --up-to-drift 10`,
      'all small changes of a file',
    ],
    [
      `echo '{"openai": {"models": {"gpt-5.1": {"cost": {"input": 1, "output": 8}}}}}' | agentllm prices import - --accept openai/gpt-5.1`,
      'one model',
    ],
  ],
  next: 'agentllm prices list provider/model shows the prices of a model',
  async run(call) {
    const response = await call.api.providers.importModels(call.request(await readFile(call)));
    return call.print(response, () => `${proposalsText(response)}\n\n${importSummary(call, response)}`);
  },
};

/** The content of the file, and its format unless the command line states it. */
async function readFile(call: Call): Promise<{ content: Buffer; format?: string; source?: string }> {
  const path = call.local<string>('<file>') as string;
  const json = path === '-' ? await readStdin() : readNamedFile(path, path);
  const content = Buffer.from(json);
  return 'format' in call.inputs.message ? { content } : { content, format: formatOf(path, json) };
}

/** The format of a file: entries of models.dev have `models`, entries of LiteLLM have `litellm_provider`. */
function formatOf(path: string, json: string): string {
  let values: unknown[] = [];
  try {
    values = Object.values(JSON.parse(json) as object);
  } catch {
    throw UsageError.of([{ typed: path, description: 'must be JSON' }]);
  }
  const has = (field: string) =>
    values.some((value) => typeof value === 'object' && value !== null && Object.hasOwn(value, field));
  if (has('litellm_provider')) return 'IMPORT_FORMAT_LITELLM';
  if (has('models')) return 'IMPORT_FORMAT_MODELS_DEV';
  const description = 'must be a file of LiteLLM or of models.dev; set --format if the file is one of them';
  throw UsageError.of([{ typed: path, description }]);
}

const proposalColumns: readonly Column<PriceProposal>[] = [
  ['MODEL', (row) => `${row.provider}/${row.model_name}`],
  ['IS', ({ kind }) => small(kind, 'PROPOSAL_KIND_').replaceAll('-', ' ')],
  ['USD PER MILLION TOKENS', ({ current, proposed }) => priceChanges(current, proposed)],
  ['DRIFT', ({ drift_percent }) => (drift_percent === undefined ? '' : `${drift_percent} %`)],
  ['APPLIED', ({ applied }) => (applied ? 'yes' : 'no')],
];

function proposalsText(response: ImportModelsResponse): string {
  const { proposals, proposal_count, unchanged_count, skipped } = response;
  const more = proposal_count - proposals.length;
  return [
    tableOf(proposals, { columns: proposalColumns, empty: 'no price differs' }),
    more > 0 && `and ${counted(more, 'more proposal')}; --provider shows those of one provider`,
    `${counted(unchanged_count, 'model')} with an equal price`,
    skipped.length > 0 && `Not read:\n${skipped.map((sentence) => `  ${visible(sentence)}`).join('\n')}`,
  ]
    .filter(Boolean)
    .join('\n');
}

function importSummary(call: Call, response: ImportModelsResponse): string {
  const { applied_count, proposal_count } = response;
  if (applied_count > 0) return writeSummary(call, 'applied', counted(applied_count, 'price'), response);
  return proposal_count > 0
    ? 'nothing was applied; --accept provider/model or --up-to-drift <percent> applies proposals'
    : 'nothing to apply';
}

/** `agentllm prices …`: the price book, from which the cost of attempts is computed. */
export function pricesCommand(): Command {
  return remoteGroup(
    'prices',
    'show, set and import prices of models',
    'Start with: agentllm prices list openai/gpt-5.4. Prices are in USD per million tokens.',
    [list, set, importPrices, diff],
  );
}
