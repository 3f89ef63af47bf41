import type { UsageGroup, UsageTotals } from '../../../gen/ts/agentllm/v1/usage.js';
import type { QueryUsageResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import { wallTime } from '../../domain/time_zone.js';
import { csvOf } from '../kit/csv.js';
import { UsageError } from '../kit/inputs.js';
import { type Column, limitInput, minRevision } from '../kit/lists.js';
import { counted, small, table, terminal } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { BadValue, flag, type Kind, word } from '../kit/values.js';
import { filterInputs, rangeInputs, rangeOf, usdText } from './usage_range.js';

const DIMENSIONS = ['agent', 'config', 'provider', 'model', 'variant', 'outcome', 'fallback', 'hour', 'day', 'month'];

/** Dimensions, separated by commas. */
const dimensions: Kind = {
  value: 'dimensions',
  separated: true,
  read: (raw) =>
    raw.split(',').map((name) => {
      if (!DIMENSIONS.includes(name)) throw new BadValue(`must be some of ${DIMENSIONS.join(', ')}`);
      return `USAGE_DIMENSION_${name.toUpperCase()}`;
    }),
};

/** `agentllm usage report`: the usage and the cost of the models that agents call. */
export const usageReport: RemoteCommand = {
  name: 'report',
  description: 'report the usage and the cost of the models that agents call (the default)',
  inputs: [
    { name: 'by', to: 'group_by', kind: dimensions, help: `group by ${DIMENSIONS.join(', ')} (default: day)` },
    ...rangeInputs,
    {
      name: 'time-zone',
      to: 'time_zone',
      kind: word('zone'),
      help: 'time zone of hours, days and months (default: UTC)',
    },
    ...filterInputs,
    { name: 'csv', kind: flag, help: 'print comma-separated values' },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm usage', 'the cost of the last seven days, by day'],
    ['agentllm usage report --by agent --last 7d', 'the cost of each agent; the word report can be omitted'],
    ['agentllm usage --by month,model --since 2026-01-01 --csv', 'a table for a spreadsheet'],
  ],
  next: 'agentllm usage what-if calculates the cost with another model',
  async run(call) {
    if (call.json && call.local('csv'))
      throw UsageError.of([{ typed: '--csv', description: 'cannot be combined with --json' }]);
    const { since, until } = rangeOf(call);
    const group_by = (call.inputs.message['group_by'] as string[] | undefined) ?? ['USAGE_DIMENSION_DAY'];
    const { groups, first } = await readGroups(call, { since, until, group_by });
    const { totals, lost_attempts, revision } = first;
    const columns = columnsOf(group_by, (call.inputs.message['time_zone'] as string | undefined) ?? 'UTC');
    const rows = groups.map((group) => columns.map(([, cell]) => cell(group)));
    const heads = columns.map(([head]) => head);
    if (call.local('csv')) terminal.out(csvOf([heads, ...rows]));
    else
      call.print({ since, until, groups, totals, lost_attempts, revision }, () =>
        textOf(heads, rows, groups, totals, isPeriod(group_by)),
      );
    if (lost_attempts > 0n && !call.json)
      terminal.err(
        `${counted(Number(lost_attempts), 'attempt')} of this range were lost: their processes had to drop them before the service could record them`,
      );
    return undefined;
  },
};

async function readGroups(call: Call, request: object): Promise<{ groups: UsageGroup[]; first: QueryUsageResponse }> {
  const limit = call.local<number>('limit') ?? Number.POSITIVE_INFINITY;
  if (limit < 1) throw UsageError.of([{ typed: `--limit ${limit}`, description: 'must be at least 1' }]);
  const groups: UsageGroup[] = [];
  let first: QueryUsageResponse | undefined;
  for (let page_token = ''; ; ) {
    const page_size = Math.min(limit - groups.length, 1000);
    const page = await call.api.usage.queryUsage(call.request({ ...request, page_size, page_token }));
    groups.push(...page.groups);
    first ??= page;
    page_token = page.next_page_token;
    if (page_token === '' || groups.length >= limit) return { groups, first };
  }
}

const PERIODS = ['USAGE_DIMENSION_HOUR', 'USAGE_DIMENSION_DAY', 'USAGE_DIMENSION_MONTH'];
const isPeriod = (groupBy: readonly string[]) => groupBy.length === 1 && PERIODS.includes(groupBy[0] as string);

function columnsOf(groupBy: readonly string[], zone: string): readonly Column<UsageGroup>[] {
  const period = PERIODS.find((one) => groupBy.includes(one));
  const start = ({ start: at }: UsageGroup) => (at && period ? periodText(period, zone, at) : '');
  const keys: Readonly<Record<string, readonly Column<UsageGroup>[]>> = {
    AGENT: [['AGENT', ({ agent }) => agent]],
    CONFIG: [['CONFIG', ({ config_id }) => config_id?.toString() ?? '']],
    PROVIDER: [['PROVIDER', ({ provider }) => provider]],
    MODEL: [['MODEL', ({ provider, model_name }) => `${provider}/${model_name}`]],
    VARIANT: [
      ['EXPERIMENT', ({ experiment }) => experiment],
      ['VARIANT', ({ variant }) => variant],
    ],
    OUTCOME: [['OUTCOME', ({ outcome }) => small(outcome, 'ATTEMPT_OUTCOME_')]],
    FALLBACK: [['FALLBACK', ({ fallback }) => (fallback ? 'yes' : 'no')]],
  };
  const count = (head: string, field: keyof UsageTotals): Column<UsageGroup> => [
    head,
    ({ totals }) => String(totals?.[field] ?? 0n),
  ];
  return [
    ...(period ? [[period.replace('USAGE_DIMENSION_', ''), start] as const] : []),
    ...groupBy.flatMap((dimension) => keys[dimension.replace('USAGE_DIMENSION_', '')] ?? []),
    count('ATTEMPTS', 'attempts'),
    count('UNSUCCESSFUL', 'unsuccessful_attempts'),
    count('UNPRICED', 'unpriced_attempts'),
    count('INPUT', 'input_tokens'),
    count('CACHED', 'input_cache_read_tokens'),
    count('OUTPUT', 'output_tokens'),
    ['USD', ({ totals }) => usdText(totals?.cost_nano_usd ?? 0n)],
  ];
}

/** A period in the local time of its zone. Hours have an offset from UTC, because an hour can occur twice. */
function periodText(period: string, zone: string, at: Date): string {
  const wall = wallTime(zone, at.getTime());
  const text = new Date(wall).toISOString();
  if (period === 'USAGE_DIMENSION_MONTH') return text.slice(0, 7);
  if (period === 'USAGE_DIMENSION_DAY') return text.slice(0, 10);
  const minutes = Math.round((wall - at.getTime()) / 60_000);
  const part = (value: number) => String(Math.floor(Math.abs(value))).padStart(2, '0');
  return `${text.slice(0, 16)}${minutes < 0 ? '-' : '+'}${part(minutes / 60)}:${part(minutes % 60)}`;
}

const BAR_WIDTH = 40;

/** The table, with a bar for each period, and the totals. */
function textOf(
  heads: readonly string[],
  rows: readonly (readonly string[])[],
  groups: readonly UsageGroup[],
  totals: UsageTotals | undefined,
  withBars: boolean,
): string {
  if (!totals || totals.attempts === 0n) return 'no attempts in this range';
  const costs = groups.map((group) => group.totals?.cost_nano_usd ?? 0n);
  const most = costs.reduce((max, cost) => (cost > max ? cost : max), 1n);
  const bars = costs.map((cost) => '█'.repeat(Number((cost * BigInt(BAR_WIDTH) + most - 1n) / most)));
  const printed = withBars
    ? table(
        [...heads, ''],
        rows.map((row, at) => [...row, bars[at] ?? '']),
      )
    : table(heads, rows);
  const unpriced = totals.unpriced_attempts;
  const more = unpriced > 0n ? `; ${counted(Number(unpriced), 'attempt')} without a known cost` : '';
  return `${printed}\n\ntotal: ${usdText(totals.cost_nano_usd)} USD, ${counted(Number(totals.attempts), 'attempt')}${more}`;
}
