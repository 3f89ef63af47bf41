import type { Command } from 'commander';
import type { RecordedAttempt } from '../../../gen/ts/agentllm/v1/usage.js';
import type { WhatIfModel } from '../../../gen/ts/agentllm/v1/usage_service.js';
import type { Input } from '../kit/inputs.js';
import { type List, limitInput, minRevision, printList } from '../kit/lists.js';
import { counted, moment, small, table } from '../kit/print.js';
import { type Call, type RemoteCommand, remoteCommand, remoteGroup } from '../kit/remote_command.js';
import { flag, integer, model, text, time, usd, word } from '../kit/values.js';
import { filterInputs, rangeInputs, rangeOf, usdText } from './usage_range.js';
import { usageReport } from './usage_report.js';

const DEFAULT_LIMIT = 50;

const costOf = ({
  cost_nano_usd: cost,
  adjustment_nano_usd,
  priced_by_adjustment,
  unpriced_reason,
}: RecordedAttempt) =>
  cost === undefined && !priced_by_adjustment
    ? small(unpriced_reason, 'UNPRICED_REASON_')
    : usdText((cost ?? 0n) + adjustment_nano_usd);

const attempts: List<RecordedAttempt> = {
  field: 'attempts',
  columns: [
    ['STARTED', ({ record }) => moment(record?.attempt?.started_at)],
    ['AGENT', ({ record }) => record?.agent ?? ''],
    ['MODEL', ({ record }) => `${record?.attempt?.provider}/${record?.attempt?.model_name}`],
    ['HOP', ({ record }) => String(record?.attempt?.hop_index ?? 0)],
    ['OUTCOME', ({ outcome }) => small(outcome, 'ATTEMPT_OUTCOME_')],
    ['INPUT', ({ record }) => record?.attempt?.usage?.input_tokens?.toString() ?? ''],
    ['OUTPUT', ({ record }) => record?.attempt?.usage?.output_tokens?.toString() ?? ''],
    ['USD', costOf],
  ],
  empty: 'no attempts are recorded',
  noMatch: 'no attempt matches',
  defaultLimit: DEFAULT_LIMIT,
  fetchPage: (api, request) => api.usage.listUsage(request),
};

const listAttempts: RemoteCommand = {
  name: 'list',
  description: 'list recorded attempts, newest first',
  inputs: [
    { name: 'since', to: 'since', kind: time, help: 'only attempts that began at or after this time' },
    { name: 'until', to: 'until', kind: time, help: 'only attempts that began before this time' },
    { name: 'run', to: 'run_id', kind: word('id'), help: 'only attempts of this run' },
    { name: 'unpriced', to: 'unpriced_only', kind: flag, help: 'only attempts whose cost is unknown' },
    ...filterInputs,
    { ...limitInput, help: `maximum number of rows (default: ${DEFAULT_LIMIT})` },
    minRevision,
  ],
  examples: [
    ['agentllm usage list --limit 5', 'the newest attempts'],
    ['agentllm usage list --unpriced', 'the attempts whose cost is unknown'],
  ],
  next: 'agentllm usage reprice prices attempts again after a price was set',
  run: (call) => printList(call, attempts),
};

const rate = (name: string, field: string, of: string): Input => ({
  name,
  to: `price.${field}_micro_usd_per_million`,
  kind: usd,
  group: 'Another price, in USD per million tokens:',
  help: `price of ${of}`,
});

const whatIf: RemoteCommand = {
  name: 'what-if',
  description: 'calculate the cost of past attempts with another model, another price or another share of cached input',
  more: 'The calculation uses the recorded numbers of tokens. Another model would have used other numbers.',
  inputs: [
    { name: 'model', to: ['provider', 'model_name'], kind: model, help: 'the other model' },
    {
      name: 'cache-hit-percent',
      to: 'cache_hit_percent',
      kind: integer,
      help: 'the part of the input that is read from the cache, in percent, 0 to 100',
    },
    rate('input', 'input', 'input'),
    rate('cached-input', 'cached_input', 'cached input'),
    rate('output', 'output', 'output'),
    ...rangeInputs,
    ...filterInputs,
    minRevision,
  ],
  examples: [
    ['agentllm usage what-if --model openai/gpt-5.4', 'the last seven days with another model'],
    ['agentllm usage what-if --cache-hit-percent 80 --last 30d', 'with 80 % of the input read from the cache'],
  ],
  timeoutMs: 30_000,
  async run(call) {
    const response = await call.api.usage.whatIf(call.request(rangeOf(call)));
    const { models, totals, approximate_attempts } = response;
    call.print(response, () => whatIfText(models, totals, approximate_attempts));
    return undefined;
  },
};

function whatIfText(models: readonly WhatIfModel[], totals: WhatIfModel | undefined, approximate: bigint): string {
  if (!totals?.actual || totals.actual.attempts === 0n) return 'no attempts in this range';
  const row = (name: string, { actual, cost_nano_usd, unpriced_attempts }: WhatIfModel) => [
    name,
    String(actual?.attempts ?? 0n),
    usdText(actual?.cost_nano_usd ?? 0n),
    usdText(cost_nano_usd),
    usdText(cost_nano_usd - (actual?.cost_nano_usd ?? 0n)),
    String(unpriced_attempts),
  ];
  const rows = models.map((one) => row(`${one.provider}/${one.model_name}`, one));
  const heads = ['MODEL', 'ATTEMPTS', 'USD', 'WHAT IF', 'DIFFERENCE', 'UNPRICED'];
  const note =
    approximate > 0n ? `\n${counted(Number(approximate), 'attempt')} calculated from hourly sums, without tiers` : '';
  return `${table(heads, [...rows, row('total', totals)])}${note}`;
}

const reprice: RemoteCommand = {
  name: 'reprice',
  description: 'price recorded attempts again with the current price book',
  more: 'The recorded cost does not change; differences are stored as adjustments, which reports include.',
  inputs: [
    ...rangeInputs,
    { name: 'unpriced', to: 'unpriced_only', kind: flag, help: 'only attempts whose cost is unknown' },
    { name: 'reason', to: 'reason', kind: text, help: 'reason for the adjustments, required, at most 500 characters' },
    { name: 'dry-run', to: 'validate_only', kind: flag, help: 'show what would be adjusted and store nothing' },
    ...filterInputs,
  ],
  examples: [
    ["agentllm usage reprice --unpriced --reason 'the price was missing' --dry-run", 'what would be adjusted'],
    ["agentllm usage reprice --unpriced --reason 'the price was missing'", 'the adjustment'],
  ],
  timeoutMs: 30_000,
  run: runReprice,
};

async function runReprice(call: Call): Promise<undefined> {
  const response = await call.api.usage.repriceUsage(call.request(rangeOf(call)));
  const { adjusted_attempts, adjustment_nano_usd, unpriced_attempts, more } = response;
  const isDry = call.inputs.message['validate_only'] === true;
  const verb = isDry ? 'dry run, nothing was stored: would adjust' : 'adjusted';
  const lines = [
    `${verb} ${counted(Number(adjusted_attempts), 'attempt')} by ${usdText(adjustment_nano_usd)} USD`,
    ...(unpriced_attempts > 0n ? [`${counted(Number(unpriced_attempts), 'attempt')} still without a known cost`] : []),
    ...(more ? ['there are more: run the command again'] : []),
  ];
  return call.print(response, () => lines.join('\n'));
}

/** `agentllm usage`: without a subcommand, it prints the report. */
export function usageCommand(): Command {
  const more = 'Without a subcommand, agentllm usage prints the report: agentllm usage --by agent --last 7d';
  const group = remoteGroup('usage', 'report the usage and the cost of the models that agents call', more, [
    listAttempts,
    whatIf,
    reprice,
  ]);
  return group.addCommand(remoteCommand(usageReport), { isDefault: true });
}
