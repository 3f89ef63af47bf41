import { z } from 'zod';
import type { ExperimentMetricKind, MetricDirection } from '../../../gen/ts/agentllm/v1/experiment.js';
import { limits } from '../../limits.js';
import { configFields } from '../config.js';
import { flag, integer, nameOrEmpty, number, ownName, text } from '../fields.js';
import type { FieldSpecs } from '../patch.js';
import type { ExtraParams, Guardrail, Metric, Overrides, Variant } from '../rows.js';

type Kind = ExperimentMetricKind;

const PRIMARY_KINDS: readonly Kind[] = [
  'EXPERIMENT_METRIC_KIND_SUCCESS_RATE',
  'EXPERIMENT_METRIC_KIND_COST_PER_CALL',
  'EXPERIMENT_METRIC_KIND_LATENCY_MEAN',
  'EXPERIMENT_METRIC_KIND_TOKENS_PER_CALL',
  'EXPERIMENT_METRIC_KIND_OUTCOME',
];
const GUARDRAIL_KINDS: readonly Kind[] = [
  'EXPERIMENT_METRIC_KIND_ERROR_RATE',
  'EXPERIMENT_METRIC_KIND_COST_PER_CALL',
  'EXPERIMENT_METRIC_KIND_LATENCY_MEAN',
  'EXPERIMENT_METRIC_KIND_LATENCY_P95',
  'EXPERIMENT_METRIC_KIND_TOKENS_PER_CALL',
  'EXPERIMENT_METRIC_KIND_OUTCOME',
];

/** The default direction of a kind. */
export const directionOf = (kind: Kind): MetricDirection =>
  kind === 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE'
    ? 'METRIC_DIRECTION_HIGHER_IS_BETTER'
    : 'METRIC_DIRECTION_LOWER_IS_BETTER';

const absent = <T>(value: T | undefined): value is undefined => value === undefined;

/** A metric of one of these kinds, with its direction. */
const metric = (kinds: readonly Kind[]) =>
  z
    .object({
      kind: z.string(),
      outcome: nameOrEmpty(limits.outcomeName),
      direction: z.string(),
    })
    .superRefine((value, context) => {
      const report = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message });
      if (!kinds.includes(value.kind as Kind)) report('kind', `must be one of ${kinds.join(', ')}`);
      const isOutcome = value.kind === 'EXPERIMENT_METRIC_KIND_OUTCOME';
      const owner = 'EXPERIMENT_METRIC_KIND_OUTCOME';
      if (isOutcome && value.outcome === '') report('outcome', `is required for ${owner}`);
      if (!isOutcome && value.outcome !== '') report('outcome', `must be empty without ${owner}`);
      const problem = directionProblem(value.kind as Kind, value.direction as MetricDirection);
      if (problem && kinds.includes(value.kind as Kind)) report('direction', problem);
    })
    .transform(({ kind, outcome, direction }): Metric => {
      const known = direction === 'METRIC_DIRECTION_UNSPECIFIED' ? directionOf(kind as Kind) : direction;
      return { kind: kind as Kind, outcome, direction: known as MetricDirection };
    });

function directionProblem(kind: Kind, direction: MetricDirection): string | undefined {
  const both: readonly MetricDirection[] = ['METRIC_DIRECTION_HIGHER_IS_BETTER', 'METRIC_DIRECTION_LOWER_IS_BETTER'];
  if (kind === 'EXPERIMENT_METRIC_KIND_OUTCOME')
    return both.includes(direction) ? undefined : `must be one of ${both.join(', ')}`;
  const own = directionOf(kind);
  return direction === own || direction === 'METRIC_DIRECTION_UNSPECIFIED' ? undefined : `must be ${own} or absent`;
}

const guardrail = z
  .object({
    metric: z.any().pipe(metric(GUARDRAIL_KINDS)),
    relative_margin_basis_points: integer(limits.relativeMarginBasisPoints).optional(),
    absolute_margin: number(limits.absoluteMargin).optional(),
  })
  .superRefine(({ relative_margin_basis_points: relative, absolute_margin: absolute }, context) => {
    if (absent(relative) === absent(absolute))
      context.addIssue({
        code: 'custom',
        message: 'must have exactly one of relative_margin_basis_points and absolute_margin',
      });
  })
  .transform(
    (value): Guardrail => ({
      metric: value.metric,
      relative_margin_basis_points: value.relative_margin_basis_points ?? null,
      absolute_margin: value.absolute_margin ?? null,
    }),
  );

const schemaOf = (field: string) => (configFields[field] as FieldSpecs[string]).schema.optional();
const extra = (field: string) => schemaOf(`extra_params.${field}`);

/** The fields of an object that have a value; an empty list counts as absent. */
function presentFields<T extends object>(value: object): T {
  const present = Object.entries(value).filter(
    ([, one]) => one !== undefined && !(Array.isArray(one) && one.length === 0),
  );
  return Object.fromEntries(present) as T;
}

const extraParams = z
  .object({
    reasoning_effort: extra('reasoning_effort'),
    thinking_budget_tokens: extra('thinking_budget_tokens'),
    stop_sequences: extra('stop_sequences'),
    seed: extra('seed'),
    request_timeout_ms: extra('request_timeout_ms'),
  })
  .transform((value) => presentFields<ExtraParams>(value));

const overrides = z
  .object({
    provider: schemaOf('provider'),
    model_name: schemaOf('model_name'),
    temperature: schemaOf('temperature'),
    max_tokens: schemaOf('max_tokens'),
    top_p: schemaOf('top_p'),
    extra_params: extraParams.optional(),
  })
  .transform(({ extra_params, ...value }): Overrides => {
    const isEmpty = !extra_params || Object.keys(extra_params).length === 0;
    return presentFields<Overrides>({ ...value, extra_params: isEmpty ? undefined : extra_params });
  });

const variant = z
  .object({
    name: ownName(limits.variantName),
    description: text(limits.description).optional(),
    control: flag,
    config_id: integer({ min: 1, max: limits.maxInt32 }).optional(),
    overrides: overrides.optional(),
    weight_basis_points: z
      .any()
      .superRefine((value, context) => {
        if (value === undefined) context.addIssue({ code: 'custom', message: 'is required' });
      })
      .pipe(integer(limits.weight)),
  })
  .transform(
    (value): Variant => ({
      name: value.name,
      description: value.description ?? null,
      control: value.control,
      config_id: value.config_id ?? null,
      overrides: value.overrides ?? {},
      weight_basis_points: value.weight_basis_points,
      buckets: [],
    }),
  );

const emptyList = (value: unknown) => Array.isArray(value) && value.length === 0;

/** The fields of an experiment that a request can change, by their paths below `experiment`. */
export const experimentFields: FieldSpecs = {
  hypothesis: { schema: text(limits.hypothesis), cleared: null },
  subject_kind: { schema: ownName(limits.subjectKind), cleared: 'run' },
  variants: { schema: z.array(variant), absent: emptyList },
  primary_metric: { schema: z.any().pipe(metric(PRIMARY_KINDS)) },
  guardrails: { schema: z.array(guardrail), cleared: [], absent: emptyList },
  alpha_basis_points: { schema: integer(limits.alphaBasisPoints), cleared: limits.defaultAlphaBasisPoints },
  smallest_effect_basis_points: {
    schema: integer(limits.smallestEffectBasisPoints),
    cleared: limits.defaultSmallestEffectBasisPoints,
  },
};

export const newExperimentFields: FieldSpecs = {
  name: { schema: ownName(limits.experimentName), absent: (value) => value === '' },
  ...experimentFields,
};

export const experimentOutputOnly = [
  'id',
  'agent_id',
  'agent_name',
  'name',
  'salt',
  'state',
  'state_reason',
  'winner',
  'started_at',
  'ended_at',
  'allocation_revision',
  'created_at',
  'updated_at',
  'revision',
  'etag',
] as const;
