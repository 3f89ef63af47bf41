import type { Experiment, MetricResult, VariantResults } from '../../../../gen/ts/agentllm/v1/experiment.js';
import type { GetResultsResponse } from '../../../../gen/ts/agentllm/v1/experiment_service.js';
import { csvOf } from '../../kit/csv.js';
import { UsageError } from '../../kit/inputs.js';
import { limitInput, minRevision, readAll, tableOf } from '../../kit/lists.js';
import { small, terminal } from '../../kit/print.js';
import type { Call, RemoteCommand } from '../../kit/remote_command.js';
import { flag } from '../../kit/values.js';
import { agentOf, agentOption, experimentList, nameArgument, stateOf } from './fields.js';
import { metricName } from './metrics.js';
import { resultsText, statusText } from './results_text.js';

const CREATE = 'agentllm experiments create model --agent trader --variant cheap=openai/gpt-5.4-mini@50% --metric cost';

/** `agentllm experiments results`: the metrics of each variant, with intervals. */
export const results: RemoteCommand = {
  name: 'results',
  description:
    'show the metrics of each variant with intervals, the better variant, and the subjects that are still needed',
  more: `The intervals contain the true difference to the control with the confidence of the experiment, however often and
whenever they are read, so the experiment may be ended at any time. All charts of a metric have the same scale.
All calls of the subjects of a variant count, even if a fallback served them; rows "as served" leave these calls out.`,
  inputs: [
    nameArgument('name'),
    agentOption,
    { name: 'csv', kind: flag, help: 'print comma-separated values, one row for each variant, metric and view' },
    minRevision,
  ],
  examples: [
    [CREATE, 'create one'],
    ['agentllm experiments start model', 'start it'],
    ['agentllm experiments results model', 'show its results'],
  ],
  next: 'agentllm experiments conclude <name> --winner <variant> applies a variant',
  async run(call) {
    if (call.json && call.local('csv'))
      throw UsageError.of([{ typed: '--csv', description: 'cannot be combined with --json' }]);
    const response = await readResults(call);
    if (!call.local('csv')) return call.print(response, () => resultsText(response));
    terminal.out(csvOf([CSV_HEADS, ...response.variants.flatMap(csvRowsOf)]));
    return undefined;
  },
};

async function readResults(call: Call): Promise<GetResultsResponse> {
  const { name } = call.inputs.message as { name: string };
  return call.api.experiments.getResults(call.request(await agentOf(call, name)));
}

const CSV_HEADS = [
  'variant',
  'control',
  'metric',
  'view',
  'subjects',
  'value',
  'difference',
  'low',
  'high',
  'relative',
  'relative_low',
  'relative_high',
  'result',
];

/** The rows of one variant, with the values in the units of the contract. */
const csvRowsOf = ({ variant, control, metrics }: VariantResults): string[][] =>
  metrics.map((result) => [
    variant,
    control ? 'yes' : 'no',
    result.metric ? metricName(result.metric) : '',
    small(result.view, 'RESULT_VIEW_'),
    String(result.subjects),
    ...numbersOf(result).map((one) => one?.toString() ?? ''),
    result.difference?.better ? 'better' : result.difference?.worse ? 'worse' : '',
  ]);

function numbersOf({ value, difference }: MetricResult): (number | undefined)[] {
  const { absolute, interval, relative, relative_interval } = difference ?? {};
  return [value, absolute, interval?.low, interval?.high, relative, relative_interval?.low, relative_interval?.high];
}

/** A running experiment with its results. */
interface Row {
  readonly experiment: Experiment;
  readonly results: GetResultsResponse;
}

const columns = [
  ['AGENT', ({ experiment }: Row) => experiment.agent_name],
  ['EXPERIMENT', ({ experiment }: Row) => experiment.name],
  ['STATE', ({ experiment }: Row) => stateOf(experiment)],
  ['SUBJECTS', ({ results: { variants } }: Row) => String(variants.reduce((sum, one) => sum + one.subjects, 0n))],
  ['RESULT', (row: Row) => verdictOf(row)],
] as const;

function verdictOf({ results: { verdict, better_variants } }: Row): string {
  const better = verdict === 'EXPERIMENT_VERDICT_VARIANT_BETTER' ? `: ${better_variants.join(', ')}` : '';
  return `${small(verdict, 'EXPERIMENT_VERDICT_').replaceAll('-', ' ')}${better}`;
}

const DEFAULT_LIMIT = 50;

/** `agentllm experiments status`: a summary of one experiment, or of all running and paused experiments. */
export const status: RemoteCommand = {
  name: 'status',
  description: 'show a summary of an experiment, or of all running and paused experiments',
  inputs: [
    { ...nameArgument('name'), name: '[name]' },
    agentOption,
    { ...limitInput, help: `maximum number of experiments (default: ${DEFAULT_LIMIT})` },
    minRevision,
  ],
  examples: [
    [`${CREATE} && agentllm experiments start model`, 'create and start one'],
    ['agentllm experiments status', 'all running and paused experiments'],
    ['agentllm experiments status model', 'one of them'],
  ],
  next: 'agentllm experiments results <name> shows the metrics with their intervals',
  async run(call) {
    if ('name' in call.inputs.message) {
      if (call.local('limit') !== undefined)
        throw UsageError.of([{ typed: '--limit', description: 'cannot be combined with the name of an experiment' }]);
      const response = await readResults(call);
      return call.print(response, () => statusText(response));
    }
    const { rows, revision } = await readActive(call);
    const empty = 'no experiment is running or paused; agentllm experiments list shows all experiments';
    return call.print({ results: rows.map((row) => row.results), revision }, () => tableOf(rows, { columns, empty }));
  },
};

async function readActive(call: Call): Promise<{ readonly rows: Row[]; readonly revision: bigint }> {
  const states = ['EXPERIMENT_STATE_RUNNING', 'EXPERIMENT_STATE_PAUSED'] as const;
  const fetchPage: typeof experimentList.fetchPage = (api, request) =>
    api.experiments.listExperiments({ ...request, states });
  const listed = await readAll<Experiment>(call, { ...experimentList, defaultLimit: DEFAULT_LIMIT, fetchPage });
  const rows: Row[] = [];
  for (const experiment of listed.rows) {
    const { agent_id, name } = experiment;
    rows.push({ experiment, results: await call.api.experiments.getResults({ agent: { id: agent_id }, name }) });
  }
  return { rows, revision: listed.revision };
}
