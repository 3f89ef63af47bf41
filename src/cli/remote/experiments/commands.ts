import type { Command } from 'commander';
import type { Experiment, ExperimentVariant } from '../../../../gen/ts/agentllm/v1/experiment.js';
import type { Input, ParsedInputs } from '../../kit/inputs.js';
import { UsageError } from '../../kit/inputs.js';
import { limitInput, minRevision, printList } from '../../kit/lists.js';
import { record } from '../../kit/print.js';
import { type Call, type RemoteCommand, remoteGroup } from '../../kit/remote_command.js';
import { agent, choice, experiment, list as listOf, word } from '../../kit/values.js';
import { etagInput, writeInputs, writeSummary } from '../../kit/writes.js';
import { allowUnknownModel } from '../config_fields.js';
import { agentOf, agentOption, body, experimentList, fields, groupsOf, nameArgument, titleOf } from './fields.js';
import { metricTitle } from './metrics.js';
import { recordOutcome } from './outcomes.js';
import { results, status } from './results.js';
import { conclude, pause, resume, start } from './transitions.js';
import {
  control,
  createdVariants,
  movesBetween,
  percentText,
  settingsText,
  type TypedVariant,
  updatedVariants,
  type VariantChanges,
  variant,
  weight,
} from './variants.js';

const EXAMPLE =
  'agentllm experiments create model --agent trader --variant cheap=openai/gpt-5.4-mini@50% --metric cost';

const list: RemoteCommand = {
  name: 'list',
  description: 'show the experiments',
  inputs: [
    { name: 'agent', to: 'agent', kind: agent, help: 'only experiments of this agent, by name or id' },
    {
      name: 'state',
      to: 'states',
      kind: listOf(choice('EXPERIMENT_STATE_', 'state', ['draft', 'running', 'paused', 'concluded'])),
      help: 'only experiments in this state; can be repeated',
    },
    limitInput,
    minRevision,
  ],
  examples: [
    ['agentllm experiments list', 'all experiments'],
    [
      'agentllm experiments list --agent trader --state running --json',
      'the running experiments of one agent, as JSON',
    ],
  ],
  next: 'agentllm experiments results <name> shows the results of an experiment',
  run: (call) => printList(call, experimentList),
};

const show: RemoteCommand = {
  name: 'show',
  description: 'show all fields of an experiment',
  inputs: [nameArgument('name'), agentOption, minRevision],
  examples: [
    [EXAMPLE, 'create one'],
    ['agentllm experiments show model', 'show it'],
  ],
  next: 'agentllm experiments results <name> shows the results',
  async run(call) {
    const { name } = call.inputs.message as { name: string };
    const response = await call.api.experiments.getExperiment(call.request(await agentOf(call, name)));
    return call.print(response, () => record(groupsOf(response.experiment as Experiment)));
  },
};

const SYNTAX = `A variant has the form NAME=SETTINGS@WEIGHT%. SETTINGS are separated by commas: provider/model, the base config (primary
or the id of a config), and temperature=, max-tokens=, top-p=, reasoning-effort=, thinking-budget=, seed= and
request-timeout= with a value. Variants without a weight share the remaining weight equally.`;

const GUARDRAILS = `A guardrail is a metric with a margin: "error rate +2pp" (percentage points), "cost +10%" (relative to the control),
"p95 latency +500ms", "outcome:NAME -5%". The sign states the direction in which the metric becomes worse.`;

const create: RemoteCommand = {
  name: 'create',
  description: 'create an experiment as a draft; it has no effect until it is started',
  more: `${SYNTAX}\n\n${GUARDRAILS}`,
  inputs: [
    { ...nameArgument('experiment.name'), kind: word('name'), help: 'the name, 1 to 100 characters' },
    { ...agentOption, help: 'the agent, by name or id; required' },
    {
      name: 'control',
      kind: control,
      help: 'the current settings, with which the variants are compared (default: primary, the primary config)',
    },
    { name: 'variant', kind: listOf(variant), help: 'a variant, NAME=SETTINGS@WEIGHT%; can be repeated' },
    ...fields,
    allowUnknownModel,
    ...writeInputs,
  ],
  body,
  examples: [
    [`${EXAMPLE} --guardrail "error rate +2pp"`, 'another model for half of the runs'],
    [
      'agentllm experiments create style --agent trader --control primary --variant cool=temperature=0.2 --variant warm=temperature=1 --metric outcome:accuracy:higher --subject ticker',
      'three temperatures, compared by an outcome that the application records',
    ],
  ],
  next: 'agentllm experiments start <name> starts the experiment',
  prepare: completeCreate,
  async run(call) {
    const response = await call.api.experiments.createExperiment(call.request());
    return call.print(response, () => {
      const created = response.experiment as Experiment;
      const summary = writeSummary(call, 'created', titleOf(created), response);
      return [summary, ...describe(created)].join('\n');
    });
  },
};

/** Collects the variants of the options. If the options have none, the variants of the file are used. */
function completeCreate(parsed: ParsedInputs): ParsedInputs {
  const typedControl = parsed.local.get('control') as TypedVariant | undefined;
  const others = (parsed.local.get('variant') ?? []) as readonly TypedVariant[];
  const typedFields = parsed.message['experiment'] as Partial<Experiment>;
  const problems = [
    ...('agent' in parsed.message ? [] : ['--agent']),
    ...(typedFields.primary_metric ? [] : ['--metric']),
    ...(others.length > 0 || (typedFields.variants ?? []).length > 0 ? [] : ['--variant']),
  ];
  if (problems.length > 0) throw UsageError.of(problems.map((typed) => ({ typed, description: 'is required' })));
  if (typedControl === undefined && others.length === 0) return parsed;
  const variants = createdVariants(typedControl, others);
  const path = 'experiment.variants';
  return {
    ...parsed,
    message: { ...parsed.message, experiment: { ...typedFields, variants } },
    causes: [
      ...parsed.causes,
      { path: `${path}[0]`, typed: `--control ${typedControl?.typed ?? 'primary'}` },
      ...others.map(({ typed }, at) => ({ path: `${path}[${at + 1}]`, typed: `--variant ${typed}` })),
    ],
  };
}

/** A description of an experiment, with one line for each variant. */
function describe({ variants, primary_metric, subject_kind }: Experiment): string[] {
  const shares = variants.map(
    (one) =>
      `  ${percentText(one.weight_basis_points)} of the subjects (${subject_kind}) get ${one.name}: ${settingsText(one)}`,
  );
  return [...shares, ...(primary_metric ? [`  decided by ${metricTitle(primary_metric)}`] : [])];
}

const variantInputs: readonly Input[] = [
  {
    name: 'weight',
    kind: listOf(weight),
    help: 'the new weight of a variant, NAME=30%; the weight of the control changes by the difference; can be repeated',
  },
  {
    name: 'variant',
    kind: listOf(variant),
    help: 'a variant to add, or to replace in a draft, NAME=SETTINGS@WEIGHT%; can be repeated',
  },
  { name: 'remove-variant', kind: listOf(word('name')), help: 'a variant to remove from a draft; can be repeated' },
];

const update: RemoteCommand = {
  name: 'update',
  description:
    'change an experiment; after its start, the metric, subject, alpha and the settings of its variants are fixed',
  more: 'A change of weights moves the smallest possible number of subjects: a variant with a higher weight takes subjects only\nfrom variants with a lower weight. The output states which part of the subjects moves.',
  inputs: [
    nameArgument('experiment.name'),
    agentOption,
    ...variantInputs,
    ...fields,
    allowUnknownModel,
    etagInput('experiment.etag'),
    ...writeInputs,
  ],
  body,
  patches: true,
  examples: [
    [EXAMPLE, 'create one'],
    ['agentllm experiments update model --weight cheap=20%', 'another weight of a variant'],
    ['agentllm experiments update model --guardrail "error rate +2pp" --guardrail "cost +10%"', 'other guardrails'],
  ],
  run: runUpdate,
};

async function runUpdate(call: Call): Promise<undefined> {
  const request = call.request<{ experiment: Partial<Experiment>; update_mask?: string[] }>();
  const changes: VariantChanges = {
    set: call.local('variant') ?? [],
    weights: call.local('weight') ?? [],
    removed: call.local('remove-variant') ?? [],
  };
  const hasVariants = Object.values(changes).some((one) => one.length > 0);
  if (!hasVariants && (request.update_mask ?? []).length === 0 && call.local('from-file') === undefined)
    throw new UsageError('nothing to change: set an option, or clear options with --unset');
  const { name = '' } = request.experiment;
  const owner = await agentOf(call, name);
  const before = (await call.api.experiments.getExperiment({ ...owner, name })).experiment as Experiment;
  const changed = hasVariants
    ? {
        // The new weights are computed from the weights that were read. The etag rejects the update if they have changed since.
        experiment: { etag: before.etag, ...request.experiment, variants: updatedVariants(before.variants, changes) },
        update_mask: [...(request.update_mask ?? []), 'variants'],
      }
    : {};
  const response = await call.api.experiments.updateExperiment({ ...request, ...changed, ...owner } as object);
  return call.print(response, () => {
    const after = response.experiment as Experiment;
    const summary = writeSummary(call, 'updated', titleOf(after), response);
    return [summary, ...moveLines(before.variants, after.variants)].join('\n');
  });
}

const moveLines = (before: readonly ExperimentVariant[], after: readonly ExperimentVariant[]) =>
  movesBetween(before, after).map(
    ({ from, to, basisPoints }) => `  ${percentText(basisPoints)} of the subjects move from ${from} to ${to}`,
  );

const remove: RemoteCommand = {
  name: 'delete',
  description: 'delete an experiment that is a draft or concluded, and its results',
  inputs: [{ ...nameArgument('name'), kind: experiment }, agentOption, etagInput('etag'), ...writeInputs],
  examples: [
    [EXAMPLE, 'create one'],
    ['agentllm experiments delete model', 'delete it'],
  ],
  async run(call) {
    const { name } = call.inputs.message as { name: string };
    const response = await call.api.experiments.deleteExperiment(call.request(await agentOf(call, name)));
    return call.print(response, () => writeSummary(call, 'deleted', `experiment ${name}`, response));
  },
};

/** `agentllm experiments …`: A/B tests of models and settings. */
export function experimentsCommand(): Command {
  return remoteGroup(
    'experiments',
    'compare models and settings on the real calls of an agent, and apply the better ones',
    `Start with: ${EXAMPLE}`,
    [list, show, create, update, remove, start, pause, resume, status, results, conclude, recordOutcome],
  );
}
