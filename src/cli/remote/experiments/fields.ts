import { Experiment, type ExperimentVariant } from '../../../../gen/ts/agentllm/v1/experiment.js';
import type { Body } from '../../kit/from_file.js';
import { type Input, UsageError } from '../../kit/inputs.js';
import { type List, readAll } from '../../kit/lists.js';
import { type Group, lines, moment, recordOf, small } from '../../kit/print.js';
import type { Call } from '../../kit/remote_command.js';
import { agent, experiment, list, percent, text, word } from '../../kit/values.js';
import { guardrail, guardrailText, metric, metricName, metricTitle } from './metrics.js';
import { percentText, settingsText } from './variants.js';

/* The fields of an experiment: their options, and their output. */

export const body: Body = { at: 'experiment', type: 'Experiment', message: Experiment };

export const nameArgument = (to: string): Input => ({
  name: '<name>',
  to,
  kind: experiment,
  mask: '',
  help: 'the name of the experiment',
});

export const agentOption: Input = {
  name: 'agent',
  to: 'agent',
  kind: agent,
  help: 'the agent, by name or id; required if several agents have an experiment with this name',
};

/** The fields with a separate option; variants.ts has the options of the variants. */
export const fields: readonly Input[] = [
  {
    name: 'metric',
    to: 'experiment.primary_metric',
    kind: metric,
    help: 'the metric that decides: success-rate, cost, latency, tokens, outcome:NAME:higher or outcome:NAME:lower',
  },
  {
    name: 'guardrail',
    to: 'experiment.guardrails',
    kind: list(guardrail),
    clears: true,
    help: 'pause if a variant is worse than the control by more than a margin, with confidence: "error rate +2pp"; can be repeated',
  },
  {
    name: 'hypothesis',
    to: 'experiment.hypothesis',
    kind: text,
    clears: true,
    help: 'the expected result of the experiment, at most 1000 characters',
  },
  {
    name: 'subject',
    to: 'experiment.subject_kind',
    kind: word('kind'),
    clears: true,
    help: 'a word for the kind of subject, such as user or ticker (default: run)',
  },
  {
    name: 'alpha',
    to: 'experiment.alpha_basis_points',
    kind: percent,
    clears: true,
    help: 'accepted probability of a false result (default: 5%)',
  },
  {
    name: 'smallest-effect',
    to: 'experiment.smallest_effect_basis_points',
    kind: percent,
    clears: true,
    help: 'smallest difference of interest of the metric, relative to the control (default: 5%)',
  },
];

export const titleOf = ({ name, agent_name }: Experiment): string => `experiment ${name} of ${agent_name}`;
export const stateOf = ({ state }: Experiment): string => small(state, 'EXPERIMENT_STATE_');

export const experimentList: List<Experiment> = {
  field: 'experiments',
  columns: [
    ['AGENT', ({ agent_name }) => agent_name],
    ['EXPERIMENT', ({ name }) => name],
    ['STATE', stateOf],
    ['METRIC', ({ primary_metric }) => (primary_metric ? metricName(primary_metric) : '')],
    ['VARIANTS', ({ variants }) => variants.map(shareText).join(', ')],
    ['WINNER', ({ winner }) => winner],
    ['STARTED', ({ started_at }) => moment(started_at)],
  ],
  empty:
    'no experiments; agentllm experiments create <name> --agent <agent> --variant cheap=provider/model --metric cost creates one',
  noMatch: 'no experiment matches',
  fetchPage: (api, request) => api.experiments.listExperiments(request),
};

const shareText = ({ name, weight_basis_points }: ExperimentVariant) => `${name} ${percentText(weight_basis_points)}`;

/** All fields of an experiment, in groups. */
export function groupsOf(row: Experiment): Group[] {
  return [
    [
      titleOf(row),
      lines(
        ['state', stateOf(row)],
        ['reason', row.state_reason],
        ['hypothesis', row.hypothesis],
        ['subject', row.subject_kind],
        ['metric', row.primary_metric && metricTitle(row.primary_metric)],
        ['guardrails', row.guardrails.map(guardrailText).join(', ')],
        ['alpha', percentText(row.alpha_basis_points)],
        ['smallest effect', percentText(row.smallest_effect_basis_points)],
        ['winner', row.winner],
        ['started', row.started_at],
        ['ended', row.ended_at],
      ),
    ],
    ...row.variants.map(variantGroup),
    recordOf(row, ['salt', row.salt], ['buckets changed at', row.allocation_revision]),
  ];
}

const variantGroup = (variant: ExperimentVariant): Group => [
  `Variant ${variant.name}${variant.control ? ', the control' : ''}`,
  lines(
    ['weight', percentText(variant.weight_basis_points)],
    ['settings', settingsText(variant)],
    ['buckets', bucketsText(variant)],
    ['description', variant.description],
  ),
];

const MAX_RANGES = 8;

/** `0–4999, 7500–7999`: the first ranges of buckets. */
function bucketsText({ buckets }: ExperimentVariant): string {
  const ranges = buckets.slice(0, MAX_RANGES).map(({ start, end }) => `${start}–${end - 1}`);
  const more = buckets.length - ranges.length;
  return `${ranges.join(', ')}${more > 0 ? ` and ${more} more ranges` : ''}`;
}

/**
 * The agent of an experiment: the agent of the command line, or the only agent that has an experiment with this name.
 */
export async function agentOf(call: Call, name: string): Promise<{ readonly agent: object }> {
  const { agent: typedAgent } = call.inputs.message as { agent?: object };
  if (typedAgent) return { agent: typedAgent };
  const listed = await readAll<Experiment>(call, {
    ...experimentList,
    fetchPage: (api, { page_size, page_token }: { page_size?: number; page_token?: string }) =>
      api.experiments.listExperiments({ page_size, page_token }),
  });
  const found = listed.rows.filter((one) => one.name === name);
  const [only] = found;
  if (only && found.length === 1) return { agent: { id: only.agent_id } };
  const names = found.map(({ agent_name }) => agent_name);
  const description = only
    ? `is an experiment of ${names.length} agents (${names.slice(0, 5).join(', ')}): choose one with --agent`
    : 'is not an experiment; agentllm experiments list shows the experiments';
  throw UsageError.of([{ typed: name, description }]);
}
